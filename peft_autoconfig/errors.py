"""The errors of `peft_autoconfig`; each says what was expected, what came and what to do.

    AutoConfigError
    ├── ConfigError (ValueError)        a configuration, space or option that cannot be
    ├── PlacementError (ValueError)     a model without the place that a configuration asks for
    ├── TaskError (ValueError)          data, columns, labels or splits that do not fit the task
    ├── RunError (RuntimeError)         a run folder that is unusable, foreign or of another search
    ├── SearchError (RuntimeError)      a search that cannot start, go on or give what was asked
    ├── TrainingError (RuntimeError)    a training that came to nothing; in a search, a failed trial
    ├── WorkerError (RuntimeError)      a process that can train no more; no fault of its trial
    └── HubError (RuntimeError)         the Hub refuses, or cannot be reached after several attempts

Imports nothing; imported by everything.
"""

__all__ = [
    "AutoConfigError",
    "ConfigError",
    "HubError",
    "PlacementError",
    "RunError",
    "SearchError",
    "TaskError",
    "TrainingError",
    "WorkerError",
]


class AutoConfigError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(AutoConfigError, ValueError):
    """A configuration, search space or option is impossible."""


class HubError(AutoConfigError, RuntimeError):
    """The Hub refuses an upload, or cannot be reached after several attempts."""


class PlacementError(AutoConfigError, ValueError):
    """A model has no place for what a configuration asks for."""


class TaskError(AutoConfigError, ValueError):
    """A data set, column, label or split does not fit the task."""


class RunError(AutoConfigError, RuntimeError):
    """A run folder is unusable, damaged, or belongs to another search."""


class SearchError(AutoConfigError, RuntimeError):
    """A search cannot start, go on, or give what was asked of it."""


class TrainingError(AutoConfigError, RuntimeError):
    """A training came to nothing; in a search it is a failed trial, not the end."""


class WorkerError(AutoConfigError, RuntimeError):
    """A process can train no more; its trial is handed back, as it is not at fault."""
