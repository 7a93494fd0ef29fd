"""The bridge from Optuna to search: samplers that read trials and answer with parameters.

They keep nothing between trials: what is proposed follows from the study, the seed and the trial's
number. So a search that was killed goes on as if nothing had happened, and any number of processes
may share one study.
"""

from .bayesian import BayesianSampler
from .believed import BelievedTrial, believed_front
from .design import NUM_STARTUP, startup_design
from .earlier import EarlierRun
from .mutation import ParetoMutationSampler
from .published import PublishedSampler
from .transfer import TransferSampler

__all__ = [
    "NUM_STARTUP",
    "BayesianSampler",
    "BelievedTrial",
    "EarlierRun",
    "ParetoMutationSampler",
    "PublishedSampler",
    "TransferSampler",
    "believed_front",
    "startup_design",
]
