"""The state of a training between two steps: all that the rest of it depends on, as safe bytes.

Weights that are trained and buffers, the moments of the optimizer, the generators of every process
and the number of steps done. The schedule and the order of examples follow from that number.

Imports `team`; imported by `training`.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from .team import Team

__all__ = ["TrainingState", "UnfitState"]

FORMAT = 1
# generators, names and shapes; far more than they take
LARGEST_REST = 16 * 2**20


class UnfitState(ValueError):
    """Bytes that are no state of this training."""


class TrainingState:
    """The state of one training.

    Args:
        identity: What tells this training from others.
        model: The model, with some parameters trained.
        optimizer: An AdamW over those parameters, in their order.
        accelerator: Knows the device and the scaling of losses.
        team: The processes that train.
    """

    def __init__(
        self,
        identity: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        team: Team,
    ) -> None:
        self._identity = identity
        self._model = model
        self._optimizer = optimizer
        self._device = accelerator.device
        self._scaler = accelerator.scaler
        self._team = team

    @property
    def max_bytes(self) -> int:
        """More than it takes."""
        return 4 * sum(tensor.nbytes for tensor in self._weights().values()) + LARGEST_REST

    def pack(self, step: int) -> bytes:
        """Returns the state after ``step`` steps; every process has to call it."""
        self._team.agree()
        generators = self._team.gather_tensors(_generators(self._device))
        tensors = {name: tensor.detach() for name, tensor in self._weights().items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": moment for name, moment in moments.items()}
        for rank, states in enumerate(generators):
            tensors |= {f"generator.{rank}.{name}": state for name, state in states.items()}
        scaler = None if self._scaler is None else self._scaler.state_dict()
        facts = {"format": FORMAT, "training": self._identity, "step": step, "scaler": scaler}
        return safetensors.torch.save(
            {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()},
            {"state": json.dumps(facts)},
        )

    def unpack(self, data: bytes) -> int:
        """Takes on a state that was packed, in every process or in none; returns its step.

        Raises:
            UnfitState: It is none of this training; nothing was changed then.
        """
        before = _generators(self._device)
        try:
            tensors, facts = _loaded(data)
            self._check(tensors, facts)
            own = f"generator.{self._team.rank}."
            _set_generators({name: tensors[own + name] for name in before}, self._device)
            reason = ""
        except UnfitState as error:
            reason = str(error)
        reasons = [other.decode() for other in self._team.gather(reason.encode())]
        if any(reasons):
            _set_generators(before, self._device)
            raise UnfitState(next(filter(None, reasons)))
        self._take(tensors, facts)
        return int(facts["step"])

    def _weights(self) -> dict[str, Tensor]:
        trained = {f"model.{n}": p for n, p in self._model.named_parameters() if p.requires_grad}
        return trained | {f"buffer.{n}": buffer for n, buffer in self._model.named_buffers()}

    def _trained(self) -> Sequence[nn.Parameter]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _expected(self) -> dict[str, Tensor]:
        """What a state must hold: names with tensors of the right shapes and types."""
        expected: dict[str, Tensor] = self._weights()
        for index, parameter in enumerate(self._trained()):
            expected[f"optimizer.{index}.step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                expected[f"optimizer.{index}.{name}"] = parameter
        for rank in range(self._team.size):
            for name, tensor in _generators(self._device).items():
                expected[f"generator.{rank}.{name}"] = tensor
        return expected

    def _check(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if facts.get("format") != FORMAT or facts.get("training") != self._identity:
            raise UnfitState("it is of another training or version")
        step, scaler = facts.get("step"), facts.get("scaler")
        if not isinstance(step, int) or step < 1 or (scaler is None) != (self._scaler is None):
            raise UnfitState("its facts are damaged or of another precision")
        expected = self._expected()
        if tensors.keys() != expected.keys():
            strange = sorted(tensors.keys() ^ expected.keys())[:3]
            raise UnfitState(f"it has other tensors than this training, such as {strange}")
        for name, tensor in expected.items():
            found = tensors[name]
            if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                raise UnfitState(f"{name} has another shape or type")

    def _take(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self._weights().items():
                tensor.copy_(tensors[name])
        names = ("step", "exp_avg", "exp_avg_sq")
        moments = {
            index: {name: tensors[f"optimizer.{index}.{name}"] for name in names}
            for index in range(len(self._trained()))
        }
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
        if self._scaler is not None:
            self._scaler.load_state_dict(facts["scaler"])


def _loaded(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        facts = json.loads(header["__metadata__"]["state"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnfitState(f"it is damaged ({error})") from error
    if not isinstance(facts, dict):
        raise UnfitState("it is damaged (no facts)")
    return tensors, facts


def _generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of all that draws in a training."""
    _, words, gauss = random.getstate()
    numpy: Any = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        # 32-bit words, and a number that may be absent
        "python": torch.tensor(
            [*words, torch.nan if gauss is None else gauss], dtype=torch.float64
        ),
        "numpy": torch.from_numpy(np.array([*numpy[1], *numpy[2:]], dtype=np.float64)),
    }
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    *words, gauss = states["python"].tolist()
    *keys, position, has_gauss, cached = states["numpy"].tolist()
    version = random.getstate()[0]
    try:
        torch.set_rng_state(states["torch"])
        random.setstate((version, tuple(map(int, words)), None if gauss != gauss else gauss))
        np.random.set_state(
            ("MT19937", np.array(keys, dtype=np.uint32), int(position), int(has_gauss), cached)
        )
        if device.type != "cpu":
            torch.get_device_module(device).set_rng_state(states["device"])
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UnfitState(f"the state of a generator is damaged ({error})") from error
