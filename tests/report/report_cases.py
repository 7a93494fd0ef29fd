"""Runs to report on: a known objective, failures, new seeds and baselines, names that bite."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from peft import LoraConfig, PeftConfig

from peft_autoconfig.outcome import Outcome
from peft_autoconfig.report import write_report
from peft_autoconfig.report.findings import Findings, read_findings
from peft_autoconfig.search import Search
from peft_autoconfig.space import SearchSpace
from peft_autoconfig.tuner.config import AutoPEFTConfig

SPACE = SearchSpace(
    num_layers=4,
    hidden_size=32,
    serial_bottleneck_sizes=(0, 1, 8, 32),
    parallel_bottleneck_sizes=(0, 1, 8, 32),
    prefix_lengths=(0, 1, 8),
    learning_rates=(1e-3, 1e-2),
)
HOSTILE = (
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'>"
    '{{7*7}}%{x}$x_$&amp;\u2028"'
)
ABOUT = {
    "model": "some/model",
    "num_base_params": 1_000_000,
    "task": {
        "name": "letters",
        "kind": "classification",
        "label_names": ["a", "b", "c"],
        "num_choices": 1,
        "metric": "accuracy",
    },
    "plan": {"num_epochs": 2.0, "max_steps": 50, "batch_size": 8, "max_length": 64},
    "seed": 0,
    "mixed_precision": "no",
}
NUM_TRIALS = 24
FAILURE = "the loss became infinite"


def scored(config: AutoPEFTConfig, learning_rate: float) -> Outcome:
    """Layer 2 helps most, a wide serial adapter a little; the rate is without effect."""
    sizes = config.layer_sizes(SPACE.num_layers)
    score = 0.5 + 0.3 * any(sizes[2]) + 0.002 * max(size.serial for size in sizes)
    return Outcome(score=score, loss=1 - score, seconds=2.0)


def fails_on_prefix_8(config: AutoPEFTConfig, learning_rate: float) -> Outcome:
    if config.prefix_length == 8:
        raise ValueError(FAILURE)
    return scored(config, learning_rate)


def make_run(folder: Path, objective=fails_on_prefix_8, about=ABOUT, n=NUM_TRIALS) -> Search:
    sampler = optuna.samplers.RandomSampler(seed=1)
    search = Search(SPACE, folder, seed=3, about=about, sampler=sampler)
    search.run(objective, n)
    return search


def method_text(method: PeftConfig | str) -> str:
    """What a comparison stores for a method."""
    if isinstance(method, str):
        return method
    fields = {k: sorted(v) if isinstance(v, set) else v for k, v in method.to_dict().items()}
    return json.dumps(fields, sort_keys=True, default=str)


def evaluations(method, rate: float, num_params: int, scores: list[float]) -> list[dict]:
    """One training that chose a rate, then one for each score, three points better on test."""
    entry = {
        "method": method_text(method),
        "learning_rate": rate,
        "num_params": num_params,
        "loss": None,
        "seconds": 2.0,
    }
    chosen = entry | {"seed": 0, "dev": 0.9, "test": None}
    return [chosen] + [
        entry | {"seed": seed, "dev": score, "test": score + 0.03}
        for seed, score in enumerate(scores, start=1)
    ]


def write_comparison(search: Search) -> None:
    """Members keep their scores but the best, whose search score was luck."""
    front = search.front()
    stored = []
    for member in front:
        drop = 0.2 if member is front[-1] else 0.0
        scores = [member.score - drop + step for step in (-0.01, 0.0, 0.01)]
        stored += evaluations(member.config, member.learning_rate, member.num_params, scores)
    for method, num_params, scores in BASELINES:
        stored += evaluations(method, 1e-3, num_params, scores)
    content = {"format": 1, "about": {}, "evaluations": stored}
    (search.folder.path / "comparison.json").write_text(json.dumps(content))


BASELINES = [
    ("linear probe", 0, [0.4, 0.41, 0.42]),
    (LoraConfig(r=8), 40_000, [0.7, 0.72, 0.74]),
    ("full fine-tuning", 1_000_000, [0.9, 0.9, 0.91]),
]


@pytest.fixture(scope="session", name="parent")
def parent_folder() -> Iterator[Path]:
    """A folder for runs; in memory if it can be, since SQLite waits for the disk at each step."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def whole_run(parent: Path) -> Path:
    """A finished run with failures and a comparison; not to be changed."""
    search = make_run(parent / "whole")
    write_comparison(search)
    folder = search.folder.adapter_folder(search.front()[0].number)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
    return search.folder.path


@pytest.fixture(scope="session")
def hostile_run(parent: Path) -> Path:
    """A run whose every name, reason and method tries to be more than text."""
    about = json.loads(json.dumps(ABOUT).replace("some/model", "some"))
    about |= {"model": HOSTILE, HOSTILE: HOSTILE}
    about["task"] |= {"name": HOSTILE, "metric": HOSTILE, "label_names": [HOSTILE]}

    def objective(config: AutoPEFTConfig, learning_rate: float) -> Outcome:
        if config.prefix_length == 8:
            raise ValueError(HOSTILE)
        return scored(config, learning_rate)

    search = make_run(parent / "host'ile\"<b>&", objective, about)
    write_comparison(search)
    file = search.folder.path / "comparison.json"
    stored = json.loads(file.read_text())
    stored["evaluations"] += evaluations(HOSTILE, 1e-3, 50_000, [0.5, 0.6])
    file.write_text(json.dumps(stored))
    return search.folder.path


@pytest.fixture(scope="session")
def whole_page(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the finished run."""
    return write_report(whole_run, tmp_path_factory.mktemp("whole") / "new" / "page.html")


@pytest.fixture(scope="session")
def hostile_page(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run with hostile names."""
    return write_report(hostile_run, tmp_path_factory.mktemp("hostile") / "page.html")


@pytest.fixture(scope="session")
def findings(whole_run: Path) -> Findings:
    return read_findings(whole_run)
