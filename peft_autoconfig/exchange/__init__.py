"""Adapters from elsewhere and ours for others: AdapterHub, plain LoRA, no import needed."""

from .adapterhub import from_adapterhub

__all__ = ["from_adapterhub"]
