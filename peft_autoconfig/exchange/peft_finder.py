"""Has `peft_autoconfig` imported right after `peft`, so that PEFT knows its methods.

`peft_autoconfig.exchange.hook` copies this file into the site-packages of an environment, as
`_peft_autoconfig_hook.py` beside a `.pth` file that activates it when Python starts. It stands
alone and imports nothing but `sys`, for every start of Python pays for it; and it goes on in
silence when `peft_autoconfig` has been uninstalled. To take it off by hand, delete both files.
"""

import sys

# not from `typing`, which takes longer to import than the rest
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["PeftFinder", "activate"]

FOLLOWED, FOLLOWER = "peft", "peft_autoconfig"


class PeftFinder:
    """Finds `peft` as the other finders would, with a loader that does one thing more."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != FOLLOWED:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, PeftFinder):
                continue
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Loads `peft`, then imports `peft_autoconfig`."""

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        # whoever asks the spec for sources or resources
        return getattr(self.loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        # from here on, nobody sees that there was a hook
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _import_follower()


def _import_follower() -> None:
    # already there, or being imported and the one that imports peft
    if FOLLOWER in sys.modules:
        return
    try:
        __import__(FOLLOWER)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == FOLLOWER:
            return
        import warnings

        # peft has to work even so
        warnings.warn(
            f"The import hook of {FOLLOWER} could not import it after {FOLLOWED}: {error!r}. "
            f"`python -m {FOLLOWER}.exchange.hook uninstall`, or deleting {__file__} and the "
            ".pth file beside it, takes the hook off.",
            stacklevel=2,
        )


def activate() -> None:
    """Puts the finder before the others, once."""
    if not any(isinstance(finder, PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PeftFinder())
