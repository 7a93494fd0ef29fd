"""Training of one configuration on one task."""

from .plan import TrainingPlan
from .training import Training

__all__ = ["Training", "TrainingPlan"]
