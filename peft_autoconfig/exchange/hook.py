"""Installs, on request, what makes `import peft_autoconfig` unnecessary in one environment.

    python -m peft_autoconfig.exchange.hook install | uninstall | status

PEFT looks the method of a checkpoint up before anything of ours can run, and ends in a bare
`KeyError: 'AUTOPEFT'` where nobody has imported us; it has no entry points. The remedy without a
change to the environment is the line `import peft_autoconfig`. The other is this: two small files
in site-packages, which have our package imported right after `peft` (see `peft_finder`). Nothing
but `install` writes them; an upgrade of the package leaves them as they are, and its removal
leaves them without effect.

Imports `errors`; calls nothing else of ours.
"""

import argparse
import contextlib
import logging
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

__all__ = ["HookStatus", "install", "status", "uninstall"]

logger = logging.getLogger(__name__)

MODULE = "_peft_autoconfig_hook"
FINDER, PTH = f"{MODULE}.py", "peft_autoconfig_hook.pth"
# one line, as `site` wants it; silent when someone has deleted the module alone
PTH_TEXT = (
    'import sys; exec("'
    rf"try: import {MODULE} as hook; hook.activate()\nexcept ImportError: pass"
    '")\n'
)
# what a file of ours has in it, so that nobody else's is overwritten or deleted
MARKS = {FINDER: "class PeftFinder", PTH: MODULE}


@dataclass(frozen=True)
class HookStatus:
    """Whether the hook is installed.

    Attributes:
        state: "installed", "absent", or "outdated" when a file is missing or of another version;
            `install` brings it up to date.
        folder: The site-packages in question.
    """

    state: str
    folder: Path


def install() -> HookStatus:
    """Writes the hook into the site-packages of the running Python; again if it is there.

    Raises:
        ConfigError: Its site-packages are not its own, not writable, or hold foreign files by
            those names.
    """
    folder = _site_packages()
    for name in (FINDER, PTH):
        _refuse_foreign(folder / name)
    # the `.pth` last: it is of no use without the module
    for name, text in _texts().items():
        _write(folder / name, text)
    return status()


def uninstall() -> HookStatus:
    """Deletes the hook from the site-packages of the running Python, if it is there.

    Raises:
        ConfigError: As `install`.
    """
    folder = _site_packages()
    for name in (PTH, FINDER):
        _refuse_foreign(folder / name)
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder / name} cannot be deleted: {error}.") from error
    return status()


def status() -> HookStatus:
    """Returns whether the hook is in the site-packages of the running Python."""
    folder = Path(sysconfig.get_path("purelib"))
    found = {name: _text_of(folder / name) for name in (FINDER, PTH)}
    if not any(found.values()):
        return HookStatus("absent", folder)
    return HookStatus("installed" if found == _texts() else "outdated", folder)


def _texts() -> dict[str, str]:
    finder = Path(__file__).with_name("peft_finder.py").read_text(encoding="utf-8")
    return {FINDER: finder, PTH: PTH_TEXT}


def _site_packages() -> Path:
    """Returns the folder to write to, after every reason not to."""
    folder = Path(sysconfig.get_path("purelib"))
    prefix = Path(sys.prefix).resolve()
    if not folder.resolve().is_relative_to(prefix):
        raise ConfigError(
            f"site-packages must lie in the environment {prefix}, but it is {folder.resolve()}. "
            "Use a virtual environment, or write `import peft_autoconfig` instead."
        )
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    if sys.prefix == sys.base_prefix and marker.exists():
        raise ConfigError(
            f"The Python at {prefix} belongs to the operating system ({marker}). Use a virtual "
            "environment, or write `import peft_autoconfig` instead."
        )
    return folder


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        # there is something, and it is not ours
        return "unreadable"


def _refuse_foreign(file: Path) -> None:
    text = _text_of(file)
    if file.is_symlink() or (text is not None and MARKS[file.name] not in text):
        raise ConfigError(f"{file} is not of peft_autoconfig; move it away first.")


def _write(file: Path, text: str) -> None:
    # beside it and then renamed, for a Python that starts meanwhile
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ConfigError(f"{file} cannot be written: {error}.") from error


def main() -> None:
    """Does what the command line says, and logs where the hook is and where it is not."""
    actions = {"install": install, "uninstall": uninstall, "status": status}
    parser = argparse.ArgumentParser(prog="python -m peft_autoconfig.exchange.hook")
    parser.add_argument("action", choices=actions)
    action = actions[parser.parse_args().action]
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        found = action()
    except ConfigError as error:
        parser.exit(1, f"{error}\n")
    logger.info("hook %s in %s", found.state, found.folder)


if __name__ == "__main__":
    main()
