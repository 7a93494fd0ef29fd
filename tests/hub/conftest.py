"""A run with trained adapters, and a Hub on this machine."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import disable_progress_bars
from peft import get_peft_model

from peft_autoconfig import AutoPEFTConfig, Search, SearchSpace
from peft_autoconfig.recipe import Recipe

from ..conftest import tiny_bert_classifier
from .hub_server import TOKEN, HubServer, hub_server

LABELS = ["entailment", "not_entailment"]
ABOUT = {
    "num_base_params": 40_000,
    "task": {
        "name": "rte",
        "text_columns": ["sentence1", "sentence2"],
        "kind": "classification",
        "label_names": LABELS,
        "metric": "accuracy",
        "sizes": {"train": 90, "dev": 10, "test": 20},
    },
    "plan": {"num_epochs": 3.0, "max_steps": None, "batch_size": 32},
}


def make_run(folder: Path, model: str = "google/tiny-bert") -> Search:
    """Makes a run whose front has several members, each with an adapter of random weights."""
    space = SearchSpace.from_model(tiny_bert_classifier().config, learning_rates=(1e-3,))
    search = Search(
        space,
        folder,
        about={"model": model, **ABOUT},
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    search.run(lambda config, learning_rate: 1 - math.exp(-space.num_params(config) / 4e4), 4)
    search.fail(search.ask().number, "out of memory")
    Recipe(model=model, task="rte", data_dir=str(folder.parent / "private"), trials=4).keep(folder)
    for member in search.front():
        torch.manual_seed(member.number)
        config = AutoPEFTConfig(**json.loads(json.dumps(_fields(search, member.number))))
        config.task_type, config.init_weights = "SEQ_CLS", False
        adapted = get_peft_model(tiny_bert_classifier(num_labels=2), config)
        adapted.peft_config["default"].base_model_name_or_path = str(folder.parent / "private")
        adapted.save_pretrained(search.folder.adapter_folder(member.number))
    return search


def _fields(search: Search, trial: int) -> dict:
    members = json.loads(search.folder.front_file.read_text())["front"]
    return next(member["config"] for member in members if member["trial"] == trial)


def write_comparison(search: Search) -> None:
    """Adds trainings of the best member, and of LoRA, over two new seeds."""
    best = search.best()
    method = json.dumps(best.config.to_dict() | {"peft_type": "AUTOPEFT"}, default=str)
    lora = json.dumps({"peft_type": "LORA", "r": 8})
    evaluations = [
        {
            "method": name,
            "learning_rate": 1e-3,
            "seed": seed,
            "num_params": num_params,
            "dev": 0.7,
            "loss": 0.5,
            "test": test + seed / 100,
            "seconds": 1.0,
        }
        for name, num_params, test in ((method, best.num_params, 0.71), (lora, 4096, 0.61))
        for seed in (1, 2)
    ]
    file = search.folder.path / "comparison.json"
    file.write_text(json.dumps({"format": 1, "about": {}, "evaluations": evaluations}))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Search:
    """A run with a front, adapters and a table; read only."""
    search = make_run(tmp_path_factory.mktemp("hub") / "run")
    write_comparison(search)
    return search


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as server:
        yield server


@pytest.fixture
def api(server, monkeypatch) -> HfApi:
    """The client as a user has it who is logged in, on a line without the Hub's own storage."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    disable_progress_bars()
    return HfApi(endpoint=server.url, token=TOKEN)


@pytest.fixture
def environment(server, tmp_path) -> dict[str, str]:
    """The environment of another process that talks to the server, logged in."""
    return os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
    }
