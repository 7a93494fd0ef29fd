"""A server for the tests of this folder, where PostgreSQL is installed."""

from collections.abc import Iterator

import pytest

from .postgres import Server, missing


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server for all tests; each has a run folder, hence a study, of another name."""
    if reason := missing():
        pytest.skip(reason)
    with Server() as running:
        yield running
