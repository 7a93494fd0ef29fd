"""A study with thousands of trials that nobody has trained, for the simulations."""

import json
from datetime import datetime

import numpy as np
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert, select

from benchmarks.stress.space import SPACE, scored
from peft_autoconfig.search import Search

__all__ = ["fill"]


def fill(search: Search, finished: int, running: int) -> None:
    """Adds trials to an empty search, as if they had been trained, or were being trained."""
    session = search._store.session
    owner = search._store.owner() | {"place": "elsewhere", "session": "another"}
    generator = np.random.default_rng(0)
    points = np.unique(SPACE.sample_stratified(2 * (finished + running), generator), axis=0)
    points = generator.permutation(points)[: finished + running]
    states = [TrialState.COMPLETE] * finished + [TrialState.RUNNING] * running
    texts = {name: distribution_to_json(d) for name, d in SPACE.distributions.items()}
    attributes = {"owner": json.dumps(owner), "seconds": "60.0"}
    study = session.study._study_id
    trials = [
        {"study_id": study, "number": i, "state": state, "datetime_start": datetime.now()}
        for i, state in enumerate(states)
    ]

    def add() -> None:
        connection = session.connection
        connection.execute(insert(models.TrialModel.__table__), trials)
        table = models.TrialModel.__table__
        ids = connection.scalars(
            select(table.c.trial_id).where(table.c.study_id == study).order_by(table.c.number)
        )
        params, values, facts = [], [], []
        for trial, x, state in zip(ids, points, states, strict=True):
            drawn = SPACE.decode_params(x)
            for name, distribution in SPACE.distributions.items():
                value = distribution.to_internal_repr(drawn[name])
                params.append((trial, name, value, texts[name]))
            facts += [(trial, key, value) for key, value in attributes.items()]
            if state == TrialState.COMPLETE:
                config = SPACE.config(drawn)
                for objective, value in enumerate((scored(config), SPACE.num_params(config))):
                    values.append((trial, objective, float(value), "FINITE"))
        for model, names, rows in (
            (models.TrialParamModel, ("param_name", "param_value", "distribution_json"), params),
            (models.TrialValueModel, ("objective", "value", "value_type"), values),
            (models.TrialUserAttributeModel, ("key", "value_json"), facts),
        ):
            keys = ("trial_id", *names)
            found = [dict(zip(keys, row, strict=True)) for row in rows]
            if found:
                connection.execute(insert(model.__table__), found)

    if points.size:
        search._store.step(add)
