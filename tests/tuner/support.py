"""Writes `docs/support.md`: what works on which architecture, found by trying it.

    python -m tests.tuner.support

Every cell is one model that was built, injected, run forwards and backwards, and freed of its
adapter again; `test_support.py` compares the file with what it finds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import get_peft_model
from torch import Tensor

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.errors import AutoConfigError
from peft_autoconfig.tuner.placement import find_layers

from .architectures import ARCHITECTURES, Architecture

FILE = Path(__file__).parents[2] / "docs" / "support.md"

METHODS: dict[str, dict[str, Any]] = {
    "serial": {"serial_bottleneck_size": 3},
    "parallel": {"parallel_bottleneck_size": 3},
    "prefix": {"prefix_length": 2},
    "projected prefix": {"prefix_length": 2, "prefix_projection_size": 3},
    "low-rank, attention": {"lora_rank": 2, "lora_modules": "attention"},
    "low-rank, feed-forward": {"lora_rank": 2, "lora_modules": "feed_forward"},
    "all at once": {
        "serial_bottleneck_size": 3,
        "parallel_bottleneck_size": 3,
        "prefix_length": 2,
        "lora_rank": 2,
        "lora_modules": "all",
    },
    "layer by layer": {"serial_bottleneck_size": 3, "layers_to_transform": [0]},
}

HEAD = """\
# Supported architectures

Written by `python -m tests.tuner.support`, which builds a tiny model of each architecture, injects
each method, and checks that

- the output changes, and every parameter of the adapter gets a gradient,
- with the adapter disabled, and with it unloaded, the output is the base model's, bit by bit.

Other models work as well when they are built alike: places are found by the structure of a model,
not by its name. A number is that of a reason below the table.
"""

PLACES_HEAD = """\
## Where the parts go

The names are those in the last layer. *x* is the input and *h* the output of the feed-forward
sub-layer. Low-rank updates go to the linear modules of the attention (a cross-attention's too) or
of the feed-forward sub-layer. A prefix goes to self-attention alone.
"""

NOTES = """\
## Prefixes

- A prefix needs the attention implementation `eager` or `sdpa`. Another one
  (`flex_attention`, `flash_attention_2`, ...) is refused at injection with a `PlacementError`,
  and the model is left as it was.
- Real tokens keep their positions, the key/value cache never holds the prefix, and a sliding window
  always shows it.
- Prefix positions have no relative position: no bias in T5, none in DeBERTa. In Bloom and in a
  Falcon with linear biases they have the bias of the first token.
- An attention that is neither on transformers' attention interface nor of DeBERTa's, Bloom's or
  Falcon's kind is refused; the other methods work without it. The interface grew over the versions
  of transformers: in 5.3, those of T5 and GPT-J are not on it yet.

## Layers

`layers_to_transform` and per-layer sizes count the layers of several stacks through, in the order
in which the model holds them: an encoder's before its decoder's, CLIP's text layers before its
vision layers. The layers of ALBERT share their weights, so there is one place for all of them.

In hybrid models such as Qwen3-Next, some layers mix their tokens by another module than an
attention. They take every part but a prefix: name the others for it, as in
`layers_to_transform={"prefix": [3, 7]}`.

## What is refused

A model without a stack of layers that hold an attention each (convolutions, Mamba, MLP mixers), and
layers with another feed-forward sub-layer than those above (the two of a Conformer, those with
hyper-connections) raise a `PlacementError` that names what was found. With `target_modules`, the
linear modules of any model take bottlenecks and low-rank updates.
"""


def try_method(architecture: Architecture, method: Mapping[str, Any]) -> str | None:
    """Returns None if the method works on the architecture, else the reason why not."""
    # some kernels are chosen by whether a gradient is asked for, so nothing asks for one here
    model, batch = architecture.build().requires_grad_(False), architecture.batch()
    before = _output(model, batch)
    try:
        peft_model = get_peft_model(
            model, AutoPEFTConfig(**method, init_weights=False, activation="gelu")
        )
    except AutoConfigError as error:
        return str(error)
    output = _output(peft_model.eval(), batch)
    output.pow(3).sum().backward()
    trained = [p for p in peft_model.parameters() if p.requires_grad]
    if not trained or any(p.grad is None or not p.grad.any() for p in trained):
        return "a parameter of the adapter got no gradient"
    with peft_model.disable_adapter(), torch.no_grad():
        disabled = _output(peft_model, batch)
    unloaded = _output(peft_model.unload(), batch)
    if torch.equal(output, before):
        return "the adapter did not change the output"
    if not torch.equal(disabled, before) or not torch.equal(unloaded, before):
        return "the base model's output did not come back"
    return None


def support_table() -> str:
    """Returns the table of methods and architectures, with reasons below it."""
    reasons: list[str] = []
    rows = [["", *METHODS]]
    for name, architecture in ARCHITECTURES.items():
        row = [name]
        for method in METHODS.values():
            reason = try_method(architecture, method)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            row.append("yes" if reason is None else f"no ({1 + reasons.index(reason)})")
        rows.append(row)
    numbered = "\n".join(f"{i}. {reason}" for i, reason in enumerate(reasons, 1))
    return f"{_table(rows)}\n{numbered}\n"


def places_table() -> str:
    """Returns the table of the modules that take the parts."""
    rows = [["", "wrapped for serial and parallel", "serial and parallel give", "prefix at"]]
    for name, architecture in ARCHITECTURES.items():
        places = find_layers(architecture.build())[-1]
        formula = "h + s(h) + p(x)"
        if places.ends_in_norm:
            formula = "LN(x + h + s(LN(x + h)) + p(x))"
        short = [_in_layer(n) for n in (places.feed_forward, places.attention)]
        rows.append([name, f"`{short[0]}`", formula, f"`{short[1]}`"])
    return _table(rows)


def document() -> str:
    """Returns the text of the file."""
    versions = (
        f"Found with transformers {transformers.__version__}, PEFT {peft.__version__} and torch "
        f"{torch.__version__.split('+')[0]}.\n"
    )
    parts = (HEAD, versions, support_table(), PLACES_HEAD, places_table(), NOTES)
    return "\n".join(parts)


def _output(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    outputs = model(**batch).values()
    return next(v for v in outputs if torch.is_tensor(v) and v.is_floating_point())


def _in_layer(name: str) -> str:
    steps = name.split(".")
    # T5 numbers the parts of a layer as well
    stack = next(i for i, step in enumerate(steps) if step.isdigit())
    if "albert" in name:
        stack = max(i for i, step in enumerate(steps) if step.isdigit())
    return ".".join(steps[stack + 1 :])


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(document(), encoding="utf-8")
