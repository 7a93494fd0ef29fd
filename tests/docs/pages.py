"""The pages that people read, and the blocks of code in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.joinpath("docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    """Returns the blocks of a page in some languages, in order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for _, language, text in found if language in languages]


def commands(page: Path) -> list[list[str]]:
    """Returns the words of each command of a page, as a shell would run them."""
    found = []
    for text in blocks(page, "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            rest = shlex.split(line, comments=True)
            while rest:
                end = rest.index("&&") if "&&" in rest else len(rest)
                if command := plain(rest[:end]):
                    found.append(command)
                rest = rest[end + 1 :]
    return found


def plain(words: list[str]) -> list[str]:
    """Returns a command without what starts it: ``exec``, variables, launchers, ``python -m``."""
    if words[:1] == ["exec"]:
        words = words[1:]
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"]:
        words = words[2:]
        while words[0].startswith("--"):  # flags of the launcher
            words = words[1:]
    if words[:2] == ["torchrun", "--nproc_per_node"]:
        words = words[3:]
    if words[:1] == ["-m"]:
        words = ["python", *words]
    if words[:3] == ["python", "-m", "peft_autoconfig_cli"]:
        words = ["peft-autoconfig", *words[3:]]
    return words


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]
