"""Training of one configuration on one task."""

from .training import Training, TrainingPlan

__all__ = ["Training", "TrainingPlan"]
