from .report_cases import (
    findings,
    hostile_page,
    hostile_run,
    parent_folder,
    whole_page,
    whole_run,
)

__all__ = [
    "findings",
    "hostile_page",
    "hostile_run",
    "parent_folder",
    "whole_page",
    "whole_run",
]
