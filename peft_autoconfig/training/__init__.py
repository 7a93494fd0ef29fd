"""Training of one configuration on one task."""

from .launch import Parallel
from .plan import TrainingPlan
from .training import Training

__all__ = ["Parallel", "Training", "TrainingPlan"]
