"""The line of a model card that says what a checkpoint of ours needs: one import.

PEFT writes `README.md` when a model is saved, with a section on getting started that is left to
the author. There goes how to load the adapter; the rest of the card is kept, and so is
`library_name: peft`, by which the Hub shows PEFT's own snippet.

Imports `errors`, `tuner`.
"""

import json
from pathlib import Path

from huggingface_hub import ModelCard
from peft.utils import CONFIG_NAME

from ..errors import ConfigError
from ..tuner.registry import METHODS

__all__ = ["add_usage"]

CARD = "README.md"
HEADING = "## How to Get Started with the Model"
# PEFT's template, below that heading
PLACEHOLDERS = ("Use the code below to get started with the model.", "[More Information Needed]")
IMPORT = "import peft_autoconfig"
USAGE = """The method of this adapter comes with `pip install peft-autoconfig`; without the first
line, PEFT does not know it and raises `KeyError: '{peft_type}'`.

```python
import peft_autoconfig  # makes the method known to PEFT
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "the folder or Hub name of this adapter")
```"""


def add_usage(directory: str | Path) -> Path | None:
    """Adds how to load a saved adapter to its model card, once.

    Args:
        directory: Where `save_pretrained` put the adapter. Its card is `README.md` there, else one
            folder higher, where PEFT puts it for adapters that are not called "default".

    Returns:
        The card; None when there is none, or the adapter is of one of PEFT's own methods and
        needs no import.

    Raises:
        ConfigError: The folder holds no saved adapter, or a card that cannot be read.
    """
    folder = Path(directory)
    peft_type = _peft_type(folder)
    if peft_type not in {method.upper() for method in METHODS}:
        return None
    found = _find_card(folder)
    if found is None:
        return None
    file, card = found
    if card.data.get("library_name") is None:
        card.data["library_name"] = "peft"
    if IMPORT not in card.text:
        card.text = _with_usage(card.text, USAGE.format(peft_type=peft_type))
    card.save(file)
    return file


def _peft_type(folder: Path) -> str:
    file = folder / CONFIG_NAME
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["peft_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{file} must be the configuration of a saved PEFT adapter, and cannot be read as "
            f"such: {error!r}."
        ) from error


def _find_card(folder: Path) -> tuple[Path, ModelCard] | None:
    for file in (folder / CARD, folder.parent / CARD):
        if not file.is_file():
            continue
        try:
            card = ModelCard.load(file)
        except ValueError as error:
            raise ConfigError(f"{file} is not a model card: {error}. Move it away.") from error
        # one folder higher there may be a card of something else
        if file.parent == folder or card.data.get("library_name") == "peft":
            return file, card
    return None


def _with_usage(text: str, usage: str) -> str:
    before, heading, after = text.partition(f"{HEADING}\n")
    if not heading:
        return f"{text.rstrip()}\n\n{HEADING}\n\n{usage}\n"
    section, mark, rest = after.partition("\n## ")
    written = "\n".join(line for line in section.splitlines() if line not in PLACEHOLDERS).strip()
    section = "\n\n".join(part for part in (usage, written) if part)
    return f"{before}{heading}\n{section}\n{mark}{rest}"
