"""README's figures are those of the benchmarks' results."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_readme_has_what_the_results_say():
    measured = runpy.run_path(str(ROOT / "benchmarks" / "measured.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert measured["block"]() in readme, "run python benchmarks/measured.py"
    figures = re.findall(r"\d", measured["block"]())
    assert len(figures) > 30
