"""The figures of README and of the site are those of the benchmarks' results."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_pages_have_what_the_results_say():
    measured = runpy.run_path(str(ROOT / "benchmarks" / "measured.py"))
    assert {page.name for page in measured["PAGES"]} == {"README.md", "results.md"}
    for page, link in measured["PAGES"].items():
        block = measured["block"](link)
        assert block in page.read_text(encoding="utf-8"), "run python benchmarks/measured.py"
        assert len(re.findall(r"\d", block)) > 30
