"""Writes the report of a run: from what is known to what it says, to a page and pictures.

Imports `errors`, `run` and the rest of `report`, which needs the extra ``report``; imported by
nobody of ours but the command line.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from ..run.json_file import partial_path, unusable

__all__ = ["write_report"]

LIBRARIES = ("plotly", "matplotlib", "jinja2")


def write_report(run: str | os.PathLike[str], output: Path | None = None) -> Path:
    """Writes the report of a run and returns its page; the run's own files stay as they are.

    The page is one HTML file that needs no network. Beside it lie PNG pictures whose names begin
    with the page's. A search that is still going, or has nothing yet, has a report too; written
    again, it is up to date.

    Args:
        run: The run folder of a search.
        output: The page to write, ending in ``.html``; None for ``report/report.html`` in the run
            folder.

    Raises:
        ConfigError: ``output`` is no such name, or a library of the extra ``report`` is missing.
        RunError: The run folder is none or is damaged, or the report cannot be written.
    """
    _require_libraries()
    # Late, since they bring Plotly and Matplotlib with them.
    from .effects import choice_effects
    from .findings import read_findings
    from .page import render_page
    from .pictures import write_pictures
    from .progress import steps_of

    page = Path(run, "report", "report.html") if output is None else Path(output)
    if page.suffix != ".html":
        raise ConfigError(f"The report's page must be a file named *.html, got {page}.")
    findings = read_findings(run)
    effects = choice_effects(findings.space, findings.complete)
    steps = steps_of(findings)
    text = render_page(findings, effects, steps)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_pictures(findings, effects, steps, page)
        partial = partial_path(page)
        partial.write_text(text, encoding="utf-8")
        partial.replace(page)  # whoever reloads the page sees the old one or the new one
    except OSError as error:
        raise unusable(page.parent, error) from error
    return page


def _require_libraries() -> None:
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"A report needs {' and '.join(missing)}, not installed here: "
            f"pip install {' '.join(missing)}."
        )
