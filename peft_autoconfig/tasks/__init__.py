"""Tasks: what a search trains on and is judged by.

    task = load_task("trec", data_dir="data")           # or load_task() for the embedded one
    task = load_files_task("train.csv", text_columns=["text"], label_column="label")
    examples = task.tokenize(task.train, tokenizer, max_length=64)   # list of dicts, not padded
    model = task.kind.model_class.from_pretrained(..., **task.kind.model_options)
    task.evaluate(logits, task.dev.labels)              # Evaluation(score, measures, loss, reason)
    task.about()                                        # JSON facts for the run's fingerprint

Trials use `task.train` and `task.dev`; `task.test` is opened once, to report. Everything that is
wrong with names, files, columns, labels or splits is a `TaskError` at loading.
"""

from .kind import Kind
from .kinds import KINDS
from .loading import load_files_task, load_task, task_names
from .metric import Evaluation, Metric
from .split import Split
from .task import Task

__all__ = [
    "KINDS",
    "Evaluation",
    "Kind",
    "Metric",
    "Split",
    "Task",
    "load_files_task",
    "load_task",
    "task_names",
]
