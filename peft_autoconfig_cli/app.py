"""The commands: what they are told, what their help teaches, which function does the work.

Importing this module imports typer and nothing heavy; each command imports its work when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from .interruption import heed_interruptions
from .options import DATA, RECIPE, TRAINING, Given, takes
from .output import AsJson, reports_errors

__all__ = ["app", "main"]

app = typer.Typer(
    name="peft-autoconfig",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
    Finds small, good PEFT configurations for a model and a task: which parts, sizes and layers.

    A search trains some dozens of configurations, keeps everything in a run folder, and ends with
    a front: for each budget of parameters, the configuration that scores best.

    **A quarter of an hour, no network:**  peft-autoconfig search

    **Your model and task:**  peft-autoconfig search --model bert-base-uncased --task rte

    **Then:**  status RUN while it runs; front RUN, report RUN to see what it found; train,
    evaluate, push to use and share a configuration; compare RUN RUN to set searches side by side.
    """,
    epilog="Exit codes: 0 done, 1 refused with a reason on stderr, 2 wrong usage, 130 interrupted.",
)

Run = Annotated[str, typer.Argument(help="Run folder of a search.", metavar="RUN")]
Source = Annotated[
    str, typer.Argument(help="Run folder of a search, or a Hub repository.", metavar="RUN")
]
Trial = Annotated[
    int | None, typer.Option(help="Number of a member of the front.", min=0, metavar="NUMBER")
]
AnyTrial = Annotated[
    int | None,
    typer.Option(
        help="Number of a member of the front, or of any complete trial of a run folder.",
        min=0,
        metavar="NUMBER",
    ),
]
Select = Annotated[
    str,
    typer.Option(
        help="Which member: score (the best), knee (where more parameters stop paying) or params "
        "(the smallest).",
        metavar="score|knee|params",
    ),
]
Budget = Annotated[
    int | None, typer.Option("--max-params", help="Members with at most so many.", min=1)
]


@app.command()
@takes(RECIPE)
@reports_errors
def search(
    given: Given,
    config: Path | None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Run folder. (Default: runs/MODEL-TASK.)", show_default=False
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            help="Log trials to Accelerate trackers, with commas between: tensorboard, wandb, "
            "trackio, mlflow...",
            metavar="NAME[,NAME]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search configurations for a model and a task.

    First a pilot sees whether the task can be learned at all at this training budget; then trials
    are proposed by Bayesian optimisation; at the end the front and hand-made choices (LoRA,
    adapters, full fine-tuning) are trained with new seeds and scored on unseen data.

    Interrupt it as you like: the same command goes on. Several processes may share one run folder:
    start the same command again, or use

        accelerate launch -m peft_autoconfig_cli search --model bert-base-uncased --task rte

    A model that is large for one device is trained by all processes together with --parallel data.

    Of a run folder that exists, the settings need not be repeated:

        peft-autoconfig search --output runs/bert-base-uncased-rte --trials 80
    """
    from .searching import search as work

    work(given, config, output=output, track=track, as_json=as_json)


@app.command()
@reports_errors
def status(
    run: Run,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and draw it anew every second.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a search is: trials, workers, time left, front, last failures.

    Changes nothing, so it may be asked at any time, from any machine that shares the run folder.
    """
    from .runs import status as work

    work(run, watch=watch, as_json=as_json)


@app.command()
@reports_errors
def front(
    source: Source,
    max_params: Budget = None,
    as_json: AsJson = False,
) -> None:
    """List the front: the best configuration for each budget of parameters.

    Best is what a model of all scores believes to be it: of many single scores, the best are
    mostly those that luck has lifted.

    The configurations of --json are arguments of AutoPEFTConfig:

        peft-autoconfig front RUN --json | jq '.front[0].config'
    """
    from .runs import front as work

    work(source, max_params=max_params, as_json=as_json)


@app.command()
@takes(DATA | TRAINING)
@reports_errors
def train(
    given: Given,
    config: Path | None,
    source: Source,
    trial: AnyTrial = None,
    select: Select = "score",
    max_params: Budget = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate. (Default: the trial's.)", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Adapter folder. (Default: RUN/adapters/TRIAL.)",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an adapter that is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train one configuration of a front and save it as a PEFT adapter.

    Model, task and training are those of the search unless you say otherwise:

        peft-autoconfig train runs/bert-base-uncased-rte --select knee --epochs 10

        peft-autoconfig train user/repo --model roberta-base --task mrpc --output adapter
    """  # fmt: skip
    from .training import train as work

    work(
        given,
        config,
        source,
        trial=trial,
        select=select,
        max_params=max_params,
        learning_rate=learning_rate,
        output=output,
        overwrite=overwrite,
        as_json=as_json,
    )


@app.command()
@takes(DATA | TRAINING)
@reports_errors
def evaluate(
    given: Given,
    config: Path | None,
    adapter: Annotated[
        str, typer.Argument(help="Adapter folder, or a Hub repository.", metavar="ADAPTER")
    ],
    split: Annotated[
        str,
        typer.Option(
            help="test: the data set's own validation split; dev: what trials were compared on.",
            metavar="test|dev",
        ),
    ] = "test",
    as_json: AsJson = False,
) -> None:
    """Score an adapter on data of its task.

    Inside a run folder the task is known; elsewhere it has to be told:

        peft-autoconfig evaluate runs/bert-base-uncased-rte/adapters/12

        peft-autoconfig evaluate user/repo --model bert-base-uncased --task rte
    """
    from .training import evaluate as work

    work(given, config, adapter, split=split, as_json=as_json)


@app.command()
@reports_errors
def report(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file. (Default: in RUN.)", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a search: front, baselines, layers, what matters, cost."""
    from .runs import report as work

    work(run, output=output, as_json=as_json)


@app.command()
@reports_errors
def push(
    run: Run,
    repo_id: Annotated[str, typer.Argument(help="Repository: user/name.", metavar="REPO")],
    trial: Trial = None,
    select: Select = "score",
    max_params: Budget = None,
    whole_front: Annotated[
        bool, typer.Option("--whole-front", help="All members, not only the one.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Hub id of the base model, where the search used a folder.", metavar="MODEL"
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a winner, or the whole front, to the Hub with a model card.

    Log in once with `hf auth login`, or set HF_TOKEN; the token is written nowhere. A push that
    breaks off is repeated with the same command. What was pushed is read back by

        AutoPEFTConfig.from_search("user/name")

        PeftModel.from_pretrained(base_model, "user/name")
    """
    from .sharing import push as work

    work(
        run,
        repo_id,
        trial=trial,
        select=select,
        max_params=max_params,
        whole_front=whole_front,
        base_model=base_model,
        private=private,
        as_json=as_json,
    )


@app.command()
@reports_errors
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders.", metavar="RUN...")],
    as_json: AsJson = False,
) -> None:
    """Set searches side by side: trials, best score, front, hypervolume, cost.

    The hypervolume is the area of score x log10(parameters) that a front covers, from the worst
    score and the dearest configuration of all these runs; it compares runs of one task.
    """
    from .runs import compare as work

    work(runs, as_json=as_json)


def main() -> None:
    """Runs the command line; a request to terminate interrupts as Ctrl-C does."""
    heed_interruptions()
    app()
