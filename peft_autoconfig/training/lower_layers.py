"""What the layers below a model's first part give in evaluations, kept for the next model.

Those layers are frozen and have no dropout then, so that for the same batch they give the same
bits, epoch after epoch and trial after trial. They are run once; the first layer that a trial has
changed is handed what they gave.

This is done only where it is exact. A model qualifies by whose its parameters are and by the order
in which its layers run; and for each number of layers the first batch is computed both ways, since
a model may carry something past its layers (Gemma 3n's later ones use keys of earlier ones).

Imports `tuner` and `pretrained`; imported by `evaluator` and `trainer`.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..tuner.placement import stacks_of_layers
from .pretrained import Pretrained

__all__ = ["LowerLayers", "Shortcut"]

logger = logging.getLogger(__name__)

MAX_BYTES = 2**29

Results = list[Any]


class LowerLayers:
    """Keeps what lower layers gave, for all models that share the weights of one.

    Args:
        pretrained: The one, which is not divided among processes.
        max_bytes: How much is kept. What is of other numbers of layers makes room; what is of the
            same does not, as an evaluation that meets its batches in one order would miss it all.

    Attributes:
        checked: The numbers of layers that are known to be skipped without a trace.
        is_exact: Whether none is known to leave one.
    """

    def __init__(self, pretrained: Pretrained, max_bytes: int = MAX_BYTES) -> None:
        self.checked: set[int] = set()
        self.is_exact = True
        self._pretrained = pretrained
        self._max_bytes = max_bytes
        self._shared = {id(parameter) for parameter in pretrained.model.parameters()}
        self._kept: OrderedDict[tuple[int, Hashable], Any] = OrderedDict()
        self._num_bytes = 0

    def under(self, model: nn.Module) -> "Shortcut":
        """Returns the way through ``model`` that runs no layer of which is known what it gives."""
        stacks = stacks_of_layers(model)
        layers = [layer for stack in stacks for layer in stack]
        heads = [m for name, m in model.named_modules() if self._pretrained.in_head(name)]
        unchanged = stacks[0][: self._num_unchanged(model, stacks)] if stacks else []
        return Shortcut(self, unchanged, [*layers, *heads])

    def most(self, batch: Hashable, num_layers: int) -> int:
        """Returns for how many layers, so many at most, is kept what they gave; 0 for none."""
        return next((n for n in range(num_layers, 0, -1) if (n, batch) in self._kept), 0)

    def recall(self, batch: Hashable, num_layers: int) -> Any:
        """Returns what so many layers gave, which is kept."""
        self._kept.move_to_end((num_layers, batch))
        return self._kept[num_layers, batch]

    def keep(self, batch: Hashable, num_layers: int, given: Any) -> None:
        """Keeps what so many layers gave, if there is room."""
        size = _num_bytes(given)
        while self._num_bytes + size > self._max_bytes and self._kept:
            oldest = next(iter(self._kept))
            if oldest[0] == num_layers:
                return
            self._num_bytes -= _num_bytes(self._kept.pop(oldest))
        if self._num_bytes + size <= self._max_bytes:
            self._kept[num_layers, batch] = given
            self._num_bytes += size

    def forget(self) -> None:
        """Lets go of all that is kept."""
        self._kept.clear()
        self._num_bytes = 0

    def give_up(self) -> None:
        """Has every evaluation from now on run all layers."""
        logger.info(
            "%s carries something past its layers; none is left out.", self._pretrained.name
        )
        self.is_exact = False
        self.forget()

    def _num_unchanged(self, model: nn.Module, stacks: Sequence[Sequence[nn.Module]]) -> int:
        """Returns how many layers of the first stack, from the first on, are the pretrained ones.

        None, if something that may come before them is not, or changes by being run.
        """
        if not self.is_exact or any(hasattr(module, "running_mean") for module in model.modules()):
            return 0
        layered = {id(p) for stack in stacks for layer in stack for p in layer.parameters()}
        harmless = layered | self._shared
        for name, parameter in model.named_parameters():
            if id(parameter) not in harmless and not self._pretrained.in_head(name):
                return 0
        changed = (
            number
            for number, layer in enumerate(stacks[0])
            if any(id(parameter) not in self._shared for parameter in layer.parameters())
        )
        return next(changed, len(stacks[0]))


@dataclass(frozen=True)
class Shortcut:
    """Runs one model, its unchanged lower layers only where it is not known what they give.

    Attributes:
        store: Where it is known.
        unchanged: The layers, from the model's first on.
        ordered: All layers and what belongs to a head, which have to run behind those.
    """

    store: LowerLayers
    unchanged: Sequence[nn.Module]
    ordered: Sequence[nn.Module]

    def __call__(self, batch: Hashable, compute: Callable[[], Results]) -> Results:
        """Returns what ``compute`` gives.

        Args:
            batch: What tells the batch from all others.
            compute: Runs the model on it, once.
        """
        if not self.unchanged or not self.store.is_exact:
            return compute()
        known = self.store.most(batch, len(self.unchanged))
        if known and known not in self.store.checked:
            return self._compare(known, batch, compute)
        with self._recorded(batch, known), self._skipped(batch, known):
            return compute()

    def _compare(self, known: int, batch: Hashable, compute: Callable[[], Results]) -> Results:
        """Returns the results of all layers, and learns whether fewer give the same."""
        results = compute()
        try:
            with self._skipped(batch, known):
                same = all(map(_is_equal, results, compute()))
        except Exception as error:  # whatever a model says when layers did not run
            logger.debug("Without its lower layers: %s", error)
            same = False
        if same:
            self.store.checked.add(known)
        else:
            self.store.give_up()
        return results

    @contextmanager
    def _skipped(self, batch: Hashable, known: int) -> Iterator[None]:
        """Has so many layers give what is kept, without running."""
        given = self.store.recall(batch, known) if known else None
        with ExitStack() as restored:
            for layer in self.unchanged[:known]:
                own = vars(layer).get("forward")
                restored.callback(_set_forward, layer, own)
                _set_forward(layer, lambda *args, **kwargs: _copy(given))
            yield

    @contextmanager
    def _recorded(self, batch: Hashable, known: int) -> Iterator[None]:
        """Keeps what all unchanged layers give, if each runs once and before all else."""
        if known == len(self.unchanged):
            yield
            return
        order: list[nn.Module] = []
        given: list[Any] = []
        with ExitStack() as hooks:
            for module in self.ordered:
                hook = module.register_forward_pre_hook(lambda module, _: order.append(module))
                hooks.callback(hook.remove)
            last = self.unchanged[-1].register_forward_hook(
                lambda module, args, output: given.append(_copy(output))
            )
            hooks.callback(last.remove)
            yield
        first, rest = order[: len(self.unchanged)], order[len(self.unchanged) :]
        if first == list(self.unchanged) and not {*first} & {*rest} and given[0] is not None:
            self.store.keep(batch, len(first), given[0])


def _set_forward(layer: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Gives a layer a forward of its own; None, that of its class."""
    if forward is None:
        vars(layer).pop("forward", None)
    else:
        vars(layer)["forward"] = forward


def _copy(output: Any) -> Any:
    """Returns a copy of what a layer gave, as it may change in place; None for other types."""
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, tuple):
        return tuple(None if part is None else _copy(part) for part in output)
    return None


def _num_bytes(output: Any) -> int:
    if isinstance(output, Tensor):
        return output.nbytes
    return sum(map(_num_bytes, output)) if isinstance(output, tuple) else 0


def _is_equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other, equal_nan=True)
