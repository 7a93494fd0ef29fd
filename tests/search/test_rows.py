"""What we write in Optuna's tables is what Optuna reads there, and the other way round."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from peft_autoconfig.search.place import LockLost
from peft_autoconfig.search.rows import TrialRows
from peft_autoconfig.search.snapshot import Snapshot

PARAMS = {"size": 4, "layer_0": 1, "learning_rate": 1e-3}
DISTRIBUTIONS = {
    "size": CategoricalDistribution((0, 1, 4)),
    "layer_0": IntDistribution(0, 1),
    "learning_rate": CategoricalDistribution((1e-3, 5e-3)),
}
OPEN = (TrialState.WAITING, TrialState.RUNNING)


class Stored:
    """A study in a file, with our way of reading and writing it and Optuna's."""

    def __init__(self, file):
        self.storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        directions = ["maximize", "minimize"]
        optuna.create_study(storage=self.storage, study_name="other").ask()
        self.study = optuna.create_study(storage=self.storage, directions=directions)
        self.rows = TrialRows(self.study._study_id)
        self.statements = []
        event.listen(self.storage.engine, "before_cursor_execute", self._count)

    def _count(self, connection, cursor, statement, *_):
        self.statements.append(statement)

    def change(self, work):
        with self.storage.engine.begin() as connection:
            self.rows.read(connection)
            return work(connection)

    def read(self):
        """Returns the trials as we read them."""
        with self.storage.engine.connect() as connection:
            self.rows.read(connection)
        return self.rows.snapshot.all()


@pytest.fixture
def stored(tmp_path):
    return Stored(tmp_path / "study.db")


def test_optuna_reads_what_we_write(stored):
    rows = stored.rows

    def work(connection):
        queued = rows.add(
            connection,
            TrialState.WAITING,
            {"params": PARAMS},
            system_attrs={"fixed_params": PARAMS},
        )
        complete = rows.begin(connection, queued, {"owner": {"pid": 1}})
        complete = rows.set_params(connection, complete, PARAMS, DISTRIBUTIONS)
        complete = rows.set_attributes(connection, complete, {"loss": 0.5, "owner": None}, {"n": 1})
        rows.end(connection, complete, TrialState.COMPLETE, [0.75, 1000.0])
        running = rows.add(connection, TrialState.RUNNING, {"beat": 3}, like=complete)
        rows.end(connection, running, TrialState.FAIL)
        rows.add(connection, TrialState.WAITING, {})
        rows.add(connection, TrialState.RUNNING, {"owner": {}})

    stored.change(work)
    ours = stored.rows.snapshot.all()
    theirs = stored.study.get_trials()
    assert [trial.number for trial in theirs] == [0, 1, 2, 3]
    assert ours == theirs
    stored.rows.forget()
    assert stored.read() == theirs
    assert theirs[0].params == PARAMS
    assert theirs[0].values == [0.75, 1000.0]
    assert theirs[0].user_attrs == {"params": PARAMS, "owner": None, "loss": 0.5}


def test_we_read_what_optuna_writes_at_any_time(stored):
    study = stored.study
    asked = study.ask()
    assert stored.read() == study.get_trials()
    for name, distribution in DISTRIBUTIONS.items():
        asked._suggest(name, distribution)
    assert stored.read() == study.get_trials()
    asked.set_user_attr("beat", 1)
    study.enqueue_trial({"size": 4})
    assert stored.read() == study.get_trials()
    asked.set_user_attr("beat", 2)
    asked.set_user_attr("seconds", 2.5)
    study.tell(asked, [0.5, 10.0])
    popped = study.ask()
    study.add_trial(create_trial(state=TrialState.PRUNED))
    assert stored.read() == study.get_trials()
    study.tell(popped, state=TrialState.FAIL)
    assert stored.read() == study.get_trials()
    assert [trial.state.name for trial in stored.read()] == ["COMPLETE", "FAIL", "PRUNED"]


def test_a_trial_added_by_others_meanwhile_keeps_its_number(stored):
    def work(connection):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stored.storage.scoped_session(), "bind", connection)
            stored.study.enqueue_trial({"size": 1})  # without our lock, as a dashboard does
        return stored.rows.add(connection, TrialState.RUNNING, {}).number

    assert stored.change(work) == 1
    assert stored.read() == stored.study.get_trials()


def test_what_is_finished_is_read_once(stored):
    def finish(connection):
        trial = stored.rows.add(connection, TrialState.RUNNING, {"owner": {}})
        trial = stored.rows.set_params(connection, trial, PARAMS, DISTRIBUTIONS)
        stored.rows.end(connection, trial, TrialState.COMPLETE, [0.5, 10.0])

    for _ in range(3):
        stored.change(finish)
    other = TrialRows(stored.study._study_id)
    with stored.storage.engine.connect() as connection:
        other.read(connection)
        stored.statements.clear()
        other.read(connection)
    assert len(stored.statements) == 1
    assert len(other.snapshot) == 3


def test_an_end_that_others_made_is_not_made_again(stored):
    trial = stored.change(lambda c: stored.rows.add(c, TrialState.RUNNING, {}))
    stored.study.tell(trial.number, state=TrialState.FAIL)
    with pytest.raises(LockLost), stored.storage.engine.begin() as connection:
        stored.rows.end(connection, trial, TrialState.COMPLETE, [0.5, 10.0])
    stored.rows.forget()
    assert [(t.state.name, t.values) for t in stored.read()] == [("FAIL", None)]


def test_a_snapshot_finds_trials_by_state_and_by_parameters():
    snapshot = Snapshot()

    def put(number, state, **options):
        trial = create_trial(state=state, **options)
        trial.number = number
        snapshot.put(trial)

    some = {"params": PARAMS, "distributions": DISTRIBUTIONS}
    put(0, TrialState.FAIL, **some)
    put(1, TrialState.WAITING, user_attrs={"params": PARAMS})
    put(2, TrialState.RUNNING)
    assert snapshot.num_configurations() == 2
    assert snapshot.twin(PARAMS, OPEN) == 1
    assert snapshot.twin(PARAMS, OPEN, other_than=1) is None
    assert snapshot.twin(PARAMS, tuple(TrialState)) == 0
    assert snapshot.twin(PARAMS | {"size": 1}, tuple(TrialState)) is None
    put(1, TrialState.COMPLETE, values=[0.5, 10.0], **some)
    put(2, TrialState.RUNNING, **some)
    assert snapshot.num_configurations() == 3
    assert snapshot.twin(PARAMS, OPEN) == 2
    assert [trial.number for trial in snapshot.of(*OPEN)] == [2]
    assert snapshot.count(TrialState.COMPLETE, TrialState.FAIL) == 2
    assert snapshot.get(7) is None
