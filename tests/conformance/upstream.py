"""Brings the tests of the installed PEFT version onto this machine, as a package of their own.

They come with PEFT's source distribution, which pip downloads; should a version ship without
them, the archive of its git tag is taken instead. Nothing is downloaded twice. The folder has
another name than PEFT's own (`tests`), which is that of our package of tests as well.
"""

import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

__all__ = ["PACKAGE", "UpstreamError", "fetch_tests"]

PACKAGE = "peft_own_tests"
ARCHIVE = "https://github.com/huggingface/peft/archive/refs/tags/v{}.tar.gz"
SECONDS_TO_WAIT = 60


class UpstreamError(RuntimeError):
    """PEFT's tests could not be had; the message says what was tried."""


def fetch_tests(cache: Path) -> Path:
    """Returns the folder whose sub-folder `PACKAGE` holds the tests of the installed PEFT.

    Args:
        cache: Where downloads are kept; made if it is not there.

    Raises:
        UpstreamError: Neither the source distribution nor the git tag could be downloaded, or
            neither has tests.
    """
    number = version("peft")
    folder = cache / f"peft-{number}"
    if (folder / PACKAGE / "__init__.py").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for name, download in (("source distribution", _from_pip), ("git tag", _from_tag)):
        try:
            if _unpack(download(number, folder), folder / PACKAGE):
                # last, since it marks the folder as complete
                (folder / PACKAGE / "__init__.py").touch()
                return folder
            failures.append(f"the {name} has no tests")
        except (OSError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", None) or error
            failures.append(f"the {name} could not be downloaded: {str(detail).strip()[-500:]}")
    raise UpstreamError(
        f"The tests of PEFT {number} could not be had: {'; '.join(failures)}. "
        f"Check the network, or put them into {folder / PACKAGE} by hand, with an __init__.py."
    )


def _from_pip(number: str, folder: Path) -> Path:
    options = "--quiet --no-binary :all: --no-deps --no-build-isolation --disable-pip-version-check"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options.split(), f"peft=={number}"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / f"peft-{number}.tar.gz"


def _from_tag(number: str, folder: Path) -> Path:
    target = folder / f"peft-{number}-tag.tar.gz"
    try:
        with urllib.request.urlopen(ARCHIVE.format(number), timeout=SECONDS_TO_WAIT) as answer:
            target.write_bytes(answer.read())
    except urllib.error.URLError as error:
        raise OSError(f"{ARCHIVE.format(number)}: {error}") from error
    return target


def _unpack(archive: Path, target: Path) -> int:
    """Writes the Python files of the archive's top-level `tests`; returns how many."""
    target.mkdir(exist_ok=True)
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = Path(member.name).parts
            content = tar.extractfile(member)
            if len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py") and content:
                (target / parts[2]).write_bytes(content.read())
                count += 1
    return count
