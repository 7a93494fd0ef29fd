"""Training of one configuration on one task."""

from .plan import TrainingPlan
from .team import Parallel
from .training import Training

__all__ = ["Parallel", "Training", "TrainingPlan"]
