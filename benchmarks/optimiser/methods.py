"""The samplers that are compared, and one search by one of them.

Every search starts with the design of ours, gives the same noise to the same number of evaluation,
and tells Optuna's samplers log10 of the parameters; a point that they draw outside the space is
pruned and costs them nothing; after ten in a row, which `GPSampler` can go on proposing, a random
point stands in.
"""

import ast
import hashlib
import time
from itertools import count
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
from problem import Problem

import peft_autoconfig
from peft_autoconfig.sampler import (
    NUM_STARTUP,
    BayesianSampler,
    ParetoMutationSampler,
    PublishedSampler,
    startup_design,
)

EVERY = 5  # evaluations between two points of a curve
MAX_OUTSIDE = 10  # points in a row that may lie outside the space
# of the package's samplers and models of the score, the files that each method does without
WITHOUT = {
    "ours": ("believed", "earlier", "mutation", "published", "saas", "transfer"),
    "published": ("bayesian", "believed", "earlier", "mutation", "transfer"),
    "mutation": (
        *("bayesian", "believed", "earlier", "published", "saas", "transfer"),
        *("acquisition", "gaussian_process", "proposal", "surrogate", "trend"),
    ),
}


class StratifiedSampler(optuna.samplers.RandomSampler):
    """Random search from cheap to dear: `SearchSpace.sample_stratified`."""

    def __init__(self, space, seed):
        super().__init__(seed)
        self._space, self._generator = space, np.random.default_rng([seed, 1])

    def infer_relative_search_space(self, study, trial):
        return self._space.distributions

    def sample_relative(self, study, trial, search_space):
        return self._space.decode_params(self._space.sample_stratified(1, self._generator)[0])


SAMPLERS = {
    "ours": BayesianSampler,
    "published": PublishedSampler,
    "mutation": ParetoMutationSampler,
    "random": StratifiedSampler,
    "uniform": lambda space, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda space, seed: optuna.samplers.TPESampler(
        n_startup_trials=NUM_STARTUP, multivariate=True, seed=seed
    ),
    "nsga2": lambda space, seed: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
    "nsga3": lambda space, seed: optuna.samplers.NSGAIIISampler(population_size=20, seed=seed),
    "gp": lambda space, seed: optuna.samplers.GPSampler(n_startup_trials=NUM_STARTUP, seed=seed),
}


def code_of(method: str) -> str:
    """Returns a short text that changes with the code that a result of the method depends on."""
    package = Path(peft_autoconfig.__file__).parent
    files = [Path(__file__).with_name("problem.py"), package / "sampler" / "design.py"]
    files += [package / "space" / "grid.py"]
    if method in WITHOUT:
        own = sorted([*(package / "sampler").glob("*.py"), *(package / "bayes").glob("*.py")])
        files += [file for file in own if file.stem not in ("__init__", *WITHOUT[method])]
    digest = hashlib.sha256("".join(map(_without_words, files)).encode()).hexdigest()[:12]
    return digest if method in WITHOUT else f"{digest}, optuna {optuna.__version__}"


def _without_words(file: Path) -> str:
    """Returns the code of a file without its comments and docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


class Search:
    """One search on one problem; `advance` evaluates a batch.

    Attributes:
        scores: True scores of what was evaluated.
        costs: Parameters.
        seconds: CPU seconds of each proposal.
    """

    def __init__(self, problem: Problem, method: str, seed: int) -> None:
        self.problem = problem
        self.study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=SAMPLERS[method](problem.space, seed)
        )
        self.scores: list[float] = []
        self.costs: list[int] = []
        self.seconds: list[float] = []
        self._noise = np.random.default_rng([seed, 2])
        self._stand_in = np.random.default_rng([seed, 3])
        if method not in WITHOUT:  # they begin with the design by themselves
            for x in startup_design(problem.space, NUM_STARTUP, seed):
                self.study.enqueue_trial(problem.space.decode_params(x))

    def advance(self, q: int) -> None:
        """Asks for ``q`` points, evaluates them all, and only then tells."""
        batch = [self._ask() for _ in range(q)]
        for trial, config in batch:
            score = self.problem.score(config, trial.params.get("learning_rate"))
            num_params = self.problem.space.num_params(config)
            self.study.tell(trial, (score + self._error(), float(np.log10(num_params))))
            self.scores.append(score)
            self.costs.append(num_params)

    def curve(self) -> list[float]:
        """Returns the share of the exact hypervolume after every `EVERY` evaluations."""
        best = self.problem.hypervolume(*self.problem.front())
        counts = range(EVERY, len(self.scores) + 1, EVERY)
        scores, costs = np.array(self.scores), np.array(self.costs)
        return [round(self.problem.hypervolume(scores[:n], costs[:n]) / best, 4) for n in counts]

    def _error(self) -> float:
        """Returns what is drawn for the noise of the next score."""
        return self.problem.noise * self._noise.standard_normal()

    def _ask(self):
        started = time.process_time()
        for number in count(1):
            if number > MAX_OUTSIDE:
                x = self.problem.space.sample_stratified(1, self._stand_in)[0]
                self.study.enqueue_trial(self.problem.space.decode_params(x))
            trial = self.study.ask()
            try:
                config = self.problem.space.suggest(trial)
            except optuna.TrialPruned:
                self.study.tell(trial, state=TrialState.PRUNED)
                continue
            self.seconds.append(time.process_time() - started)
            return trial, config
