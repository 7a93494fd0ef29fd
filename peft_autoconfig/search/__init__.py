"""The search: a study in a run folder, whose trials any objective may evaluate."""

from .search import Callback, Objective, Search

__all__ = ["Callback", "Objective", "Search"]
