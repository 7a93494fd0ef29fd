"""A run folder on disk: files and JSON, nothing of Optuna or torch."""
