"""The search: a study in a run folder, whose trials any objective may evaluate."""

from .search import Objective, Search

__all__ = ["Objective", "Search"]
