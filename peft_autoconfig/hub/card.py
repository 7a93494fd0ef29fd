"""The model card of a pushed winner: what it is, how to use it, how it was found, its limits.

The metadata follow PEFT's and the Hub's conventions (``library_name``, ``base_model``, scores as a
model-index); the text is for whoever finds the repository. It says what is in the run folder and
nothing else: no paths, no names of machines.

Imports `report`, `search`, `space` and `tasks`; imported by `push`.
"""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..report.commands import AUTO_CLASSES, head_options
from ..report.findings import Findings
from ..report.repeats import Repeat, Scores
from ..search.live import describe, duration
from ..search.trial import TrialRecord
from ..space import SearchSpace
from ..tasks.catalogue import CATALOGUE, Entry

__all__ = ["model_card"]

PIPELINES = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
}
# Our names of measures that the Hub calls otherwise.
METRICS = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "span_f1": "seqeval",
    "token_accuracy": "accuracy",
}


def model_card(
    findings: Findings,
    chosen: TrialRecord,
    members: Sequence[TrialRecord],
    *,
    repo_id: str,
    base_model: str,
    task_type: str | None,
) -> ModelCard:
    """Returns the card of a repository.

    Args:
        findings: What is known of the run.
        chosen: The member whose adapter is at the root of the repository.
        members: All members whose adapters are in it, fewest parameters first.
        repo_id: Name of the repository, ``user/name``.
        base_model: Hub id of the base model.
        task_type: PEFT's type of the task, such as ``SEQ_CLS``.
    """
    data = ModelCardData(
        base_model=base_model,
        library_name="peft",
        tags=["peft", "adapters", "peft-autoconfig", f"base_model:adapter:{base_model}"],
        pipeline_tag=PIPELINES.get(task_type or ""),
        datasets=_datasets(findings),
        metrics=[_metric(name) for name in findings.metric.split("+")],
        model_name=repo_id.rpartition("/")[2],
        eval_results=_results(findings, chosen, task_type),
    )
    parts = [
        f"# {repo_id.rpartition('/')[2]}",
        _summary(findings, chosen, base_model),
        _use(findings, chosen, members, repo_id=repo_id, task_type=task_type),
        _front(findings, chosen, members),
        _comparison(findings),
        _how(findings),
        _limits(findings),
    ]
    text = "\n\n".join(part for part in parts if part)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _summary(findings: Findings, chosen: TrialRecord, base_model: str) -> str:
    count = f"{chosen.num_params:,}"
    share = ""
    if findings.num_base_params and chosen.num_params:
        share = f", {100 * chosen.num_params / findings.num_base_params:.2f} % of the model"
    task = f" on {findings.task}" if findings.task else ""
    return (
        f"A PEFT adapter for `{base_model}`{task}: {describe(chosen.config)}. It has {count} "
        f"parameters{share}, its task head not counted. The configuration was searched with "
        "[peft_autoconfig](https://pypi.org/project/peft-autoconfig/), after "
        "[AutoPEFT](https://arxiv.org/abs/2301.12132)."
    )


def _use(
    findings: Findings,
    chosen: TrialRecord,
    members: Sequence[TrialRecord],
    *,
    repo_id: str,
    task_type: str | None,
) -> str:
    task: Any = findings.about.get("task")
    labels = task.get("label_names") if isinstance(task, dict) else None
    given = head_options(findings) if task_type in AUTO_CLASSES else ""
    # of the whole front, `from_search` takes the best score within a budget
    is_best = chosen.number == members[-1].number
    budget = "" if is_best else f", max_params={chosen.num_params}"
    name = AUTO_CLASSES.get(task_type or "", "AutoPeftModel")
    lines = [
        "## Use\n\n```bash\npip install peft-autoconfig\n```\n\n```python",
        "import peft_autoconfig  # registers the methods with PEFT",
        f"from peft import {name}",
        "",
        f'model = {name}.from_pretrained("{repo_id}"{given})',
    ]
    other = next((member for member in members if member.number != chosen.number), None)
    if other is not None:
        more = f'{given}, subfolder="adapters/{other.number}"'
        lines += [
            f"# another member of the front, with {other.num_params:,} parameters",
            f'model = {name}.from_pretrained("{repo_id}"{more})',
        ]
    lines += [
        "```\n\nOr train the configuration on data of your own:\n\n```python",
        "from peft import get_peft_model",
        "from peft_autoconfig import AutoPEFTConfig",
        "",
        f'config = AutoPEFTConfig.from_search("{repo_id}"{budget})',
        "model = get_peft_model(base_model, config)",
        "```",
    ]
    if isinstance(labels, list) and labels and task.get("num_choices", 1) == 1:
        classes = ", ".join(f"{i} {label}" for i, label in enumerate(labels))
        lines.append(f"\nClasses: {classes}.")
    return "\n".join(lines)


def _front(findings: Findings, chosen: TrialRecord, members: Sequence[TrialRecord]) -> str:
    where = {member.number: f"`adapters/{member.number}`" for member in members}
    if len(members) == 1:
        where = {}
    where[chosen.number] = "here" if len(members) == 1 else f"here, {where[chosen.number]}"
    lines = [
        f"## The front\n\nBy {findings.metric} on data held out of the training set, which the "
        "search saw: what a model of all scores believes it to be without noise, and what the one "
        "training had.\n",
        f"| {findings.metric} | scored | parameters | learning rate | configuration | adapter |",
        "|---:|---:|---:|---:|---|---|",
    ]
    for member in findings.front:
        rate = "" if member.learning_rate is None else f"{member.learning_rate:g}"
        lines.append(
            f"| {member.mean:.4f} | {member.score:.4f} | {member.num_params:,} | {rate} "
            f"| {describe(member.config)} "
            f"| {where.get(member.number, '')} |"
        )
    return "\n".join(lines)


def _comparison(findings: Findings) -> str:
    if not findings.repeats:
        return ""
    lines = [
        "## Against hand-made choices\n\nTrained with seeds that the search did not use, scored on "
        "data that it did not see.\n",
        f"| method | parameters | {findings.metric} | sd | seeds |",
        "|---|---:|---:|---:|---:|",
    ]
    for repeat in findings.repeats:
        deviation = repeat.test.deviation
        spread = "" if deviation is None else f"{deviation:.4f}"
        lines.append(
            f"| {repeat.name} | {repeat.num_params:,} | {repeat.test.mean:.4f} | {spread} "
            f"| {len(repeat.test.values)} |"
        )
    lines.append(
        "\nAn adapter here is that of the seed which was best on the held-out part of the training "
        "set; the score in the metadata is the mean over the seeds."
    )
    return "\n".join(lines)


def _how(findings: Findings) -> str:
    space = findings.space
    failed = len(findings.records("FAIL"))
    seconds = sum(record.seconds or 0.0 for record in findings.complete)
    lines = [
        "## How it was searched\n",
        f"- {len(findings.complete)} trials by multi-objective Bayesian optimisation (score "
        f"against parameters), {failed} failed, {duration(seconds)} of training, seed "
        f"{findings.seed}",
        f"- a space of {space.num_points:,} points: {space.num_layers} layers, on or off; "
        f"{_sizes(space)}",
    ]
    if space.learning_rates:
        rates = ", ".join(f"{rate:g}" for rate in space.learning_rates)
        lines.append(f"- learning rates to choose from: {rates}")
    plan, task = findings.about.get("plan"), findings.about.get("task")
    if isinstance(plan, dict):
        lines.append(f"- each trial trained by: {_listed(plan)}")
    if isinstance(task, dict) and isinstance(task.get("sizes"), dict):
        lines.append(f"- examples: {_listed(task['sizes'])}")
    lines.append("\n`search.json` and `front.json` hold the facts.")
    return "\n".join(lines)


def _sizes(space: SearchSpace) -> str:
    """Returns from where to where the size of each part was searched."""
    choices = {
        "serial adapter": space.serial_bottleneck_sizes,
        "parallel adapter": space.parallel_bottleneck_sizes,
        "prefix": space.prefix_lengths,
        "LoRA rank": space.lora_ranks or (0,),
    }
    return ", ".join(
        f"{name} {min(sizes)} to {max(sizes)}" for name, sizes in choices.items() if max(sizes)
    )


def _limits(findings: Findings) -> str:
    return (
        "## Limits\n\n"
        f"The front was chosen among {len(findings.complete)} trials of one seed each, so its "
        "scores may still be optimistic; where the table above has scores over new seeds, believe "
        "those. All of it holds for this model, this data and this training; a configuration may "
        "be worth less elsewhere. The adapter has the biases of its base model and of its training "
        "data, and was tested on nothing else."
    )


def _results(findings: Findings, chosen: TrialRecord, task_type: str | None) -> list[EvalResult]:
    """The score of the chosen member for the model-index: on unseen data if it has one."""
    repeat: Repeat | None = findings.repeat_of(chosen)
    scores: Scores | None = repeat.test if repeat else None
    facts = _entry(findings)
    name = findings.task or "data of the search"
    split = "held out of train, seen by the search"
    if scores is not None:
        split = facts.hub_test if facts else "held out, not seen by the search"
    return [
        EvalResult(
            task_type=PIPELINES.get(task_type or "", "other"),
            dataset_type=facts.hub if facts else "custom",
            dataset_name=name,
            dataset_config=facts.hub_config if facts else None,
            dataset_split=split,
            metric_type=_metric(findings.metric),
            metric_name=findings.metric,
            metric_value=round(scores.mean if scores else float(chosen.score or 0.0), 6),
        )
    ]


def _datasets(findings: Findings) -> list[str] | None:
    facts = _entry(findings)
    return [facts.hub] if facts else None


def _entry(findings: Findings) -> Entry | None:
    """The data set's facts, if it is one that has a name, and not a file called like one."""
    facts = CATALOGUE.get(findings.task or "")
    task: Any = findings.about.get("task")
    if facts is None or findings.recipe.get("train_file") or not isinstance(task, dict):
        return None
    return facts if task.get("text_columns") == list(facts.text_columns) else None


def _metric(name: str) -> str:
    return METRICS.get(name, name)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
