"""Every block of Python is run, and links lead somewhere; `test_commands` has the commands."""

import re

import pytest

from .pages import PAGES, blocks, names

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=names(WITH_PYTHON))
def test_python_runs(page, stage):
    """The blocks of a page run one after the other, in one name space."""
    if any("import ray" in text for text in blocks(page, "python")):
        pytest.skip("it starts a cluster of Ray, with a GPU for each worker")
    space = {"__name__": "docs"}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), space)


def test_links_to_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), (page.name, target)
