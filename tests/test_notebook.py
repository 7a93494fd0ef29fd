"""The example notebook: what is stored of it, and that it runs from top to bottom."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "search.ipynb"


def cells(kind: str) -> list[dict]:
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in stored["cells"] if cell["cell_type"] == kind]


def test_it_is_stored_with_its_results_and_is_small():
    shown = [bool(cell["outputs"]) for cell in cells("code")]
    # the first cell only says what to do
    assert shown == [False] + [True] * (len(shown) - 1)
    outputs = [output for cell in cells("code") for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert NOTEBOOK.stat().st_size < 60_000


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbclient", "ipykernel", "matplotlib"))),
    reason='the notebook needs pip install "peft-autoconfig[notebook]"',
)
def test_it_runs(tiny_folder, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    file = tmp_path / "letters.csv"
    rows = [(f"{c}{a}{b}", c) for c in "xy" for a in "abcd" for b in "abcdefgh"]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = (
        "from peft_autoconfig.recipe import Recipe\n"
        f"recipe = Recipe(model={tiny_folder!r}, train_file={str(file)!r}, trials=2, "
        "max_steps=4, learning_rates=(1e-2,), max_params=3000, report_seeds=0)"
    )
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]), prepend=":")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    text = json.dumps(notebook)
    assert "search 2/2" in text
    assert "trainable params" in text
    assert (tmp_path / "runs" / "notebook" / "front.json").exists()
