"""The report of a run: one page to read, hover and copy from, and pictures beside it."""

from .report import write_report

__all__ = ["write_report"]
