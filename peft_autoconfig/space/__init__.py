"""The search space: what may vary, as vectors and as configurations, with exact sizes."""

from .space import SIZE_NAMES, SearchSpace

__all__ = ["SIZE_NAMES", "SearchSpace"]
