"""Adapters from elsewhere and ours for others: AdapterHub, plain LoRA, no import needed."""

from .adapterhub import from_adapterhub
from .lora import save_as_lora
from .model_card import add_usage

__all__ = ["add_usage", "from_adapterhub", "save_as_lora"]
