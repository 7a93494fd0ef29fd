"""Sharing what a search found: winners on the Hub, with a model card that tells how."""

from .push import Pushed, push

__all__ = ["Pushed", "push"]
