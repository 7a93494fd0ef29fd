"""A place in which what the pages say can be done: a finished run, tiny models, small data."""

import json
import random
import shutil
from pathlib import Path

import datasets
import pytest
import transformers

from ..hub.conftest import LABELS, make_run

READERS = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoTokenizer",
)
MODELS = ("bert-base-uncased", "roberta-base")
DECODER = "HuggingFaceTB/SmolLM2-135M"
CLASSES = {"rte": LABELS, "mrpc": ["not_equivalent", "equivalent"]}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, tiny_folder):
    """A folder with a finished run, and the same as it lies on the Hub."""
    folder = tmp_path_factory.mktemp("docs")
    run = folder / "runs" / f"{MODELS[0]}-rte"
    search = make_run(run, model=MODELS[0])
    adapters = sorted((run / "adapters").iterdir())
    if not (run / "adapters" / "3").exists():
        shutil.copytree(adapters[-1], run / "adapters" / "3")
    for adapter in (run / "adapters").iterdir():
        file = adapter / "adapter_config.json"
        fields = json.loads(file.read_text()) | {"base_model_name_or_path": tiny_folder}
        file.write_text(json.dumps(fields))
    # the data that the run's recipe names
    for task, names in CLASSES.items():
        data = run.parent / "private" / "glue" / task
        data.mkdir(parents=True)
        for split, number in (("train", 96), ("validation", 24)):
            pairs(number, names).to_parquet(data / f"{split}.parquet")
    pushed = folder / "user" / "rte-adapter"
    shutil.copytree(run / "adapters" / str(search.best().number), pushed)
    shutil.copy(run / "front.json", pushed)
    return folder


@pytest.fixture
def tiny_hub(monkeypatch, tiny_folder, tiny_decoder):
    """Lets the name of a model on the Hub stand for a tiny one, from whatever folder."""
    folders = dict.fromkeys(MODELS, tiny_folder) | {DECODER: tiny_decoder}
    for name in READERS:
        reader = getattr(transformers, name)
        original = reader.from_pretrained

        def read(source, *arguments, original=original, **options):
            return original(folders.get(source, source), *arguments, **options)

        monkeypatch.setattr(reader, "from_pretrained", read)


@pytest.fixture
def stage(workplace, tiny_hub, tmp_path, monkeypatch):
    """The workplace as the present folder, with models and tasks of the Hub, and files, at hand."""
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    rows = pairs(120).to_list()
    write_lines(tmp_path / "pairs.jsonl", [premise_and_hypothesis(row) for row in rows[:90]])
    write_lines(tmp_path / "held_out.jsonl", [premise_and_hypothesis(row) for row in rows[90:]])
    stars = [f"{row['sentence1']},{row['label'] + 1}" for row in rows]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,stars", *stars]))
    write_lines(tmp_path / "sentences.jsonl", [tagged(row) for row in rows])
    write_lines(tmp_path / "capitals.jsonl", [asked(row) for row in rows])
    recipe = {"model": MODELS[0], "task": "rte"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # which is YAML
    monkeypatch.setattr(datasets, "load_dataset", lambda _, task: parts_of(task))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts_of(task: str) -> datasets.DatasetDict:
    names = CLASSES[task]
    return datasets.DatasetDict({"train": pairs(96, names), "validation": pairs(24, names)})


def pairs(number: int, names: list[str] = LABELS) -> datasets.Dataset:
    """Returns pairs of words of two classes, which the first letter tells apart."""
    draw = random.Random(number)
    rows = []
    for label in (index % len(LABELS) for index in range(number)):
        words = ["".join(draw.choices("abcdefgh", k=2)), draw.choice("abcdefgh")]
        rows.append({"sentence1": "xy"[label] + words[0], "sentence2": words[1], "label": label})
    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
        }
    )
    return datasets.Dataset.from_list(rows, features=features)


def premise_and_hypothesis(row: dict) -> dict:
    return {
        "premise": row["sentence1"],
        "hypothesis": row["sentence2"],
        "label": LABELS[row["label"]],
    }


def tagged(row: dict) -> dict:
    letters = [row["sentence2"], "xy"[row["label"]], row["sentence1"][1]]
    return {"tokens": letters, "ner_tags": ["B-PER" if c == "x" else "O" for c in letters]}


def asked(row: dict) -> dict:
    return {"prompt": row["sentence1"][::-1], "completion": " pq"[row["label"] :]}


def write_lines(file: Path, rows: list[dict]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)))
