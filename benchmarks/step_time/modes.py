"""What is measured: methods, placements, the environment each lives in, and what is compared.

Plain data, read by the parent and by both workers, so nothing but the standard library is imported.

The floor is the frozen model plus the backward that a placement cannot do without: a leaf that
requires a gradient is put where the lowest adapted layer's parts are, so autograd runs from the
loss down to that place and no further. Parts after the feed-forward sub-layer need the backward to
the sum that its norm takes ("feed_forward"); a prefix or LoRA needs the one through the attention
of the lowest layer to its keys and values ("attention").
"""

from dataclasses import dataclass

MAIN, OTHER = "main", "adapters"
PLACEMENTS = ("all", "top")
BOTTLENECK, PREFIX, PROJECTION, RANK = 48, 10, 512, 8

# name -> num_layers, hidden_size, heads, feed-forward size
SIZES = {"minilm": (6, 384, 12, 1536), "base": (12, 768, 12, 3072)}

# method -> fields of AutoPEFTConfig
OURS = {
    "serial": {"serial_bottleneck_size": BOTTLENECK},
    "parallel": {"parallel_bottleneck_size": BOTTLENECK},
    "prefix": {"prefix_length": PREFIX},
    "projected_prefix": {"prefix_length": PREFIX, "prefix_projection_size": PROJECTION},
    "low_rank": {"lora_rank": RANK, "lora_modules": ["query", "value"]},
    "joined": {
        "serial_bottleneck_size": BOTTLENECK,
        "parallel_bottleneck_size": BOTTLENECK,
        "prefix_length": PREFIX,
    },
}
PLACE = {"serial": "feed_forward", "parallel": "feed_forward"}


@dataclass(frozen=True)
class Mode:
    """One way of training the model.

    Attributes:
        library: "frozen", "floor", "ours", "peft" or "adapters".
        method: What the library adds; for the floor, the place of the leaf.
        placement: "all" layers or the "top" half; "" where nothing is added.
        environment: The worker that holds it.
    """

    library: str
    method: str = "head"
    placement: str = ""
    environment: str = MAIN

    @property
    def key(self) -> str:
        parts = [self.library, self.method, self.placement]
        if self.library == "frozen":
            parts = [self.library, self.environment]
        return "/".join(part for part in parts if part)


def _modes() -> list[Mode]:
    modes = [Mode("frozen"), Mode("frozen", environment=OTHER)]
    for placement in PLACEMENTS:
        modes += [Mode("floor", place, placement) for place in ("feed_forward", "attention")]
        modes += [Mode("ours", method, placement) for method in OURS]
        modes.append(Mode("peft", "lora", placement))
        for method in ("serial", "parallel", "prefix"):
            modes.append(Mode("adapters", method, placement, OTHER))
    return modes


MODES = {mode.key: mode for mode in _modes()}


def floor_of(mode: Mode) -> str:
    """Returns the key of the floor under one of our modes or a peer's."""
    return f"floor/{PLACE.get(mode.method, 'attention')}/{mode.placement}"


def comparisons() -> dict[str, tuple[str, str]]:
    """Returns name -> (ours, theirs), the names as in `results/summary.json`."""
    found = {}
    for placement in PLACEMENTS:
        start = "top_half_" if placement == "top" else ""
        for method in ("serial", "parallel", "prefix"):
            key = f"ours/{method}/{placement}"
            found[f"{start}{method}_vs_adapters"] = (key, f"adapters/{method}/{placement}")
        for method in ("serial", "parallel", "prefix", "low_rank"):
            found[f"{start}{method}_vs_lora"] = (
                f"ours/{method}/{placement}",
                f"peft/lora/{placement}",
            )
        projected, flat = (f"ours/{m}/{placement}" for m in ("projected_prefix", "prefix"))
        found[f"{start}projected_vs_flat_prefix"] = (projected, flat)
        for method in OURS:
            mode = MODES[f"ours/{method}/{placement}"]
            found[f"{start}{method}_vs_floor"] = (mode.key, floor_of(mode))
    # the figure that issues and the acceptance of a release name
    found["top_half_vs_floor"] = found["top_half_serial_vs_floor"]
    return found
