"""The rows of a study's trials in Optuna's tables: read once, and written many at a time.

Optuna reads a trial that is not finished anew at each look, and commits each parameter by itself.
With many workers that is most of what a step costs, so here it is done in a few statements: what is
finished is read once for good, what runs is asked for its state and attributes only, and a step is
one transaction. What is written is what Optuna's own storage would have written, and the only place
that knows its tables is this one.

Imports `place` and `snapshot`; imported by `store`.
"""

import copy
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, func, insert, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from .place import LockLost
from .snapshot import Snapshot

__all__ = ["TrialRows"]

_STUDIES: Table = models.StudyModel.__table__
_TRIALS: Table = models.TrialModel.__table__
_PARAMS: Table = models.TrialParamModel.__table__
_VALUES: Table = models.TrialValueModel.__table__
_USER: Table = models.TrialUserAttributeModel.__table__
_SYSTEM: Table = models.TrialSystemAttributeModel.__table__
_FINITE = models.TrialValueModel.TrialValueType.FINITE

# More trials than these are read as all since the first of them.
_FEW = 500

Attributes = Mapping[str, Any]


class TrialRows:
    """The trials of one study in a data base; a snapshot that follows it, and what writes there.

    What writes needs the lock of the study, and changes the snapshot too: so when the transaction
    fails, `forget` must be called.

    Args:
        study_id: Which study.
    """

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._reading = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Reads everything anew next time."""
        with self._reading:
            self.snapshot = Snapshot()
            self._last_id = -1

    def read(self, connection: Connection, *, attributes: bool = True) -> None:
        """Brings the snapshot up to date.

        Args:
            connection: Any.
            attributes: Whether also of trials that ran before, whose signs of life are there.
        """
        with self._reading:
            last = self._last_id
            before = {t._trial_id: t for t in self.snapshot.of(*_UNFINISHED)}
            heads = self._heads(connection, last, [*before])
            same = [
                h for h in heads if h.trial_id in before and before[h.trial_id].state == h.state
            ]
            alive = [before[head.trial_id] for head in same if head.state == TrialState.RUNNING]
            given = self._given_params(connection, [t._trial_id for t in alive if not t.params])
            as_before = {head.trial_id for head in same} - given
            self._read_whole(connection, [h for h in heads if h.trial_id not in as_before])
            if attributes:
                self._read_attributes(connection, [t for t in alive if t._trial_id in as_before])
            self._last_id = max([last, *(head.trial_id for head in heads)])

    def _heads(self, connection: Connection, last: int, ids: Sequence[int]) -> Sequence[Any]:
        """Returns the rows of the trials after the last one, and of some others, by id."""
        head = select(
            _TRIALS.c.trial_id,
            _TRIALS.c.number,
            _TRIALS.c.state,
            _TRIALS.c.datetime_start,
            _TRIALS.c.datetime_complete,
        )
        new = head.where(_TRIALS.c.study_id == self._study_id, _TRIALS.c.trial_id > last)
        older = [trial_id for trial_id in ids if trial_id <= last]
        # Two statements in one, as each of them finds an index.
        both = union_all(new, head.where(_TRIALS.c.trial_id.in_(older))) if older else new
        return sorted(connection.execute(both).all(), key=lambda row: row.trial_id)

    def _given_params(self, connection: Connection, ids: Sequence[int]) -> set[int]:
        """Returns those of some trials that have parameters by now."""
        if not ids:
            return set()
        statement = select(_PARAMS.c.trial_id).where(_PARAMS.c.trial_id.in_(ids)).distinct()
        return set(connection.scalars(statement))

    def _read_whole(self, connection: Connection, heads: Sequence[Any]) -> None:
        """Reads trials that are new or have changed."""
        if not heads:
            return
        ids = [head.trial_id for head in heads]
        params: dict[int, dict[str, Any]] = defaultdict(dict)
        distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        for row in self._of(connection, _PARAMS, ids, _PARAMS.c.param_id):
            distribution = _distribution(row.distribution_json)
            distributions[row.trial_id][row.param_name] = distribution
            params[row.trial_id][row.param_name] = distribution.to_external_repr(row.param_value)
        values: dict[int, list[float]] = defaultdict(list)
        for row in self._of(connection, _VALUES, ids, _VALUES.c.objective):
            values[row.trial_id].append(row.value)
        user, system = (_attributes(self._of(connection, table, ids)) for table in (_USER, _SYSTEM))
        for head in heads:
            self.snapshot.put(
                FrozenTrial(
                    number=head.number,
                    state=head.state,
                    value=None,
                    values=values.get(head.trial_id),
                    datetime_start=_local(head.datetime_start),
                    datetime_complete=_local(head.datetime_complete),
                    params=params[head.trial_id],
                    distributions=distributions[head.trial_id],
                    user_attrs=user[head.trial_id],
                    system_attrs=system[head.trial_id],
                    intermediate_values={},
                    trial_id=head.trial_id,
                )
            )

    def _read_attributes(self, connection: Connection, running: Sequence[FrozenTrial]) -> None:
        """Reads what may change while a trial runs."""
        if running:
            ids = [trial._trial_id for trial in running]
            wanted = _USER.c.trial_id.in_(ids)
            now = _attributes(connection.execute(select(_USER).where(wanted)).all())
            for trial in running:
                if now[trial._trial_id] != trial.user_attrs:
                    self._put(trial, user_attrs=now[trial._trial_id])

    def _of(
        self, connection: Connection, table: Table, ids: Sequence[int], *order: Any
    ) -> Sequence[Any]:
        """Returns the rows of a table that belong to some trials, and maybe more."""
        statement = select(table).order_by(*order)
        if len(ids) <= _FEW:
            return connection.execute(statement.where(table.c.trial_id.in_(ids))).all()
        statement = statement.join(_TRIALS, _TRIALS.c.trial_id == table.c.trial_id)
        since = _TRIALS.c.study_id == self._study_id, table.c.trial_id >= min(ids)
        return connection.execute(statement.where(*since)).all()

    def add(
        self,
        connection: Connection,
        state: TrialState,
        user_attrs: Attributes,
        *,
        system_attrs: Attributes | None = None,
        like: FrozenTrial | None = None,
    ) -> FrozenTrial:
        """Adds a trial and returns it.

        Args:
            connection: Holds the lock.
            state: WAITING or RUNNING.
            user_attrs: Its attributes.
            system_attrs: Attributes that are Optuna's.
            like: A trial whose parameters it gets.
        """
        now = _utc_now()
        started = now if state == TrialState.RUNNING else None
        # As in Optuna, this row keeps others from taking the same number.
        row = select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == self._study_id)
        connection.execute(row.with_for_update())
        since = _TRIALS.c.study_id == self._study_id, _TRIALS.c.trial_id > self._last_id
        if connection.execute(select(func.count()).select_from(_TRIALS).where(*since)).scalar():
            self.read(connection)  # somebody added one without the lock, as a dashboard may
        number = len(self.snapshot)
        facts = {"study_id": self._study_id, "number": number, "state": state}
        done = connection.execute(insert(_TRIALS).values(datetime_start=started, **facts))
        assert done.inserted_primary_key is not None
        trial = FrozenTrial(
            number=number,
            state=state,
            value=None,
            datetime_start=_local(started),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=done.inserted_primary_key[0],
        )
        trial = self._write(connection, trial, _USER, user_attrs)
        trial = self._write(connection, trial, _SYSTEM, system_attrs or {})
        self._last_id = trial._trial_id
        if like is not None:
            return self.set_params(connection, trial, like.params, like.distributions)
        return self._put(trial)

    def begin(
        self, connection: Connection, trial: FrozenTrial, user_attrs: Attributes
    ) -> FrozenTrial:
        """Makes a waiting trial a running one, with more attributes."""
        now = _utc_now()
        self._change(connection, trial, state=TrialState.RUNNING, datetime_start=now)
        trial = self._put(trial, state=TrialState.RUNNING, datetime_start=_local(now))
        return self.set_attributes(connection, trial, user_attrs)

    def set_params(
        self,
        connection: Connection,
        trial: FrozenTrial,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
    ) -> FrozenTrial:
        """Gives a trial its parameters, all at once."""
        rows = [
            {
                "trial_id": trial._trial_id,
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]
        if rows:
            connection.execute(insert(_PARAMS).values(rows))
        kept = {name: distributions[name] for name in params}
        return self._put(trial, params=dict(params), distributions=kept)

    def set_attributes(
        self,
        connection: Connection,
        trial: FrozenTrial,
        user_attrs: Attributes,
        system_attrs: Attributes | None = None,
    ) -> FrozenTrial:
        """Adds attributes to a running trial, or renews them."""
        trial = self._write(connection, trial, _USER, user_attrs)
        return self._put(self._write(connection, trial, _SYSTEM, system_attrs or {}))

    def end(
        self,
        connection: Connection,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None = None,
    ) -> FrozenTrial:
        """Ends a running trial, for good."""
        if values is not None:
            rows = [
                {
                    "trial_id": trial._trial_id,
                    "objective": i,
                    "value": value,
                    "value_type": _FINITE,
                }
                for i, value in enumerate(values)
            ]
            connection.execute(insert(_VALUES).values(rows))
        now = _utc_now()
        self._change(connection, trial, state=state, datetime_complete=now)
        return self._put(trial, state=state, values=values, datetime_complete=_local(now))

    def _change(self, connection: Connection, trial: FrozenTrial, **columns: Any) -> None:
        is_as_known = _TRIALS.c.trial_id == trial._trial_id, _TRIALS.c.state == trial.state
        if not connection.execute(update(_TRIALS).where(*is_as_known).values(columns)).rowcount:
            raise LockLost(f"trial {trial.number} was changed without the lock")

    def _write(
        self, connection: Connection, trial: FrozenTrial, table: Table, attributes: Attributes
    ) -> FrozenTrial:
        if not attributes:
            return trial
        rows = [
            {"trial_id": trial._trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ]
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        adding = dialect.insert(table).values(rows)
        connection.execute(
            adding.on_conflict_do_update(
                index_elements=[table.c.trial_id, table.c.key],
                set_={"value_json": adding.excluded.value_json},
            )
        )
        name = "user_attrs" if table is _USER else "system_attrs"
        return _changed(trial, **{name: getattr(trial, name) | dict(attributes)})

    def _put(self, trial: FrozenTrial, **changes: Any) -> FrozenTrial:
        trial = _changed(trial, **changes)
        with self._reading:
            self.snapshot.put(trial)
        return trial


_UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)


def _attributes(rows: Sequence[Any]) -> dict[int, dict[str, Any]]:
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        attributes[row.trial_id][row.key] = json.loads(row.value_json)
    return attributes


def _changed(trial: FrozenTrial, **changes: Any) -> FrozenTrial:
    """Returns a copy of a trial; the original, which others may read, stays as it is."""
    trial = copy.copy(trial)
    for name, value in changes.items():
        setattr(trial, name, value)
    return trial


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    """Returns what a text describes; there are few, and thousands of parameters with each."""
    return json_to_distribution(text)


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _local(when: datetime | None) -> datetime | None:
    """Returns a time of the tables, which are in UTC, as Optuna tells it: in local time."""
    if when is None:
        return None
    return when.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
