"""The store of a run is an Optuna study, which Optuna's own tools open."""

import json
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from .search_cases import complete, open_search, run_path, scored  # noqa: F401


def test_the_study_names_its_objectives(folder):
    search = open_search(folder)
    search.run(scored, 2)
    open_search(folder)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    columns = study.trials_dataframe().columns
    assert {"values_score", "values_num_params"} <= set(columns)
    assert [trial.values[0] for trial in study.best_trials] == [
        record.score for record in sorted(search.front(), key=lambda record: record.number)
    ]


def test_optuna_dashboard_opens_it(folder):
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    search = open_search(folder)
    search.run(scored, 2)
    app = dashboard.wsgi(f"sqlite:///{folder}/study.db")

    def get(path: str):
        environ: dict = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(app(environ, lambda code, headers, *_: status.append(code)))
        assert status == ["200 OK"]
        return json.loads(body)

    (summary,) = get("/api/studies")["study_summaries"]
    study = get(f"/api/studies/{summary['study_id']}")
    shown = [trial["values"] for trial in study["trials"] if trial["state"] == "Complete"]
    assert shown == [[record.score, record.num_params] for record in complete(search)]
