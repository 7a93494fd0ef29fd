"""The work of `push`: a winner, or the whole front, to the Hub."""

from dataclasses import asdict
from typing import Any

from peft_autoconfig.hub import push as upload
from peft_autoconfig.search.live import quieten

from .output import write

__all__ = ["push"]


def push(run: str, repo_id: str, *, as_json: bool, **how: Any) -> None:
    """Uploads, and writes where it is."""
    quieten()
    pushed = upload(run, repo_id, **how)
    trials = ", ".join(map(str, pushed.trials))
    text = (
        f"Pushed {'trial' if len(pushed.trials) == 1 else 'trials'} {trials} to {pushed.url}\n"
        f'Use it:  AutoPEFTConfig.from_search("{repo_id}")'
    )
    write(asdict(pushed), text, as_json=as_json)
