from .report_cases import findings, hostile_run, parent_folder, whole_run

__all__ = ["findings", "hostile_run", "parent_folder", "whole_run"]
