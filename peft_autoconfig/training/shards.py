"""The frozen weights of a model, divided among the processes of a team by PyTorch's FSDP2.

Each process keeps a part of every frozen weight, in place of the whole. A layer is put together
when it runs, in each process, and taken apart again. All trainings share the parts, as they share
whole weights else: each has modules of its own, which are lent the parts. New parts, heads and
buffers are small and whole everywhere, and so are their gradients, which FSDP knows nothing of.

To put a layer together all processes have to be there, so right before it all say how they are: who
ran out of memory says so instead, and leaves nobody waiting. It follows that all have to run a
model equally often (`Team.pieces`), and layers in one order.

Imports `errors`, `team` and `tuner`; imported by `pretrained`.
"""

from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from ..errors import ConfigError
from ..tuner.placement import stacks_of_layers
from .team import Team

__all__ = ["LentShards", "Shards", "take_apart"]

# the older name
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Shards:
    """The parts of the frozen weights that this process keeps.

    Args:
        model: The whole model; its frozen weights become placeholders, without memory.
        kept: Names of the parameters that stay whole.
        team: The processes that divide the model.
        device: Where this process keeps its parts.

    Raises:
        ConfigError: The model skips layers at random, or this PyTorch cannot do it.
    """

    def __init__(
        self, model: PreTrainedModel, kept: Collection[str], team: Team, device: torch.device
    ) -> None:
        _refuse_skipped_layers(model)
        if not hasattr(FSDPModule, "set_custom_all_gather"):
            raise ConfigError(
                f"Expected a PyTorch whose FSDP2 can be told how to gather weights, got "
                f"{torch.__version__}; install a newer one (2.13 does), or launch without FSDP."
            )
        self.team = team
        self.device = device
        self.mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)  # type: ignore[arg-type]
        # by placeholder, which copies of the model share
        self._parts: dict[nn.Parameter, DTensor] = {}
        whole = {p for n, p in model.named_parameters() if n in kept or p.dim() == 0}
        placeholders: dict[nn.Parameter, nn.Parameter] = {}
        for module, name, weight in _weights(model):
            if weight not in whole:
                if weight not in placeholders:  # weights may be tied
                    placeholders[weight] = _frozen(torch.empty_like(weight, device="meta"))
                    self._parts[placeholders[weight]] = self._part(weight.detach())
                setattr(module, name, placeholders[weight])

    def lend(self, model: nn.Module) -> "LentShards":
        """Lends all parts to a copy of the model, which new parts may be put into then."""
        return LentShards(self, model, self._parts)

    def _part(self, weight: Tensor) -> DTensor:
        size = -(-weight.shape[0] // self.team.size)
        start = min(self.team.rank * size, weight.shape[0])
        own = weight[start : start + size].to(self.device, copy=True).contiguous()
        shape, stride = weight.shape, torch.empty_like(weight, device="meta").contiguous().stride()
        return DTensor.from_local(
            own, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )


class LentShards:
    """The parts that one copy of a model was lent.

    Args:
        shards: Whose they are.
        model: The copy, with placeholders.
        parts: The part for each placeholder.
    """

    def __init__(
        self, shards: Shards, model: nn.Module, parts: dict[nn.Parameter, DTensor]
    ) -> None:
        self._shards = shards
        self._layers = [layer for stack in stacks_of_layers(model) for layer in stack]
        # of its own: whether a parameter is trained, which no method may change for the others
        own = {placeholder: _frozen(part.detach()) for placeholder, part in parts.items()}
        self._lent = [
            (module, name, placeholder, own[placeholder])
            for module, name, placeholder in _weights(model)
            if placeholder in own
        ]
        for module, name, _, part in self._lent:
            setattr(module, name, part)

    def divide(self, model: nn.Module) -> None:
        """Makes the model, with what it was given meanwhile, one that runs divided.

        Args:
            model: The copy, or what it lies in by now.

        Raises:
            ConfigError: Divided weights would be trained.
        """
        trained = [n for n, p in model.named_parameters() if p.requires_grad and _is_part(p)]
        if trained:
            raise ConfigError(
                f"Expected a method that trains nothing but new parts and heads, as the weights "
                f"of the model are divided among the processes (FSDP); this one trains "
                f"{trained[:3]}. Launch without FSDP (accelerate launch --multi_gpu)."
            )
        device, mesh = self._shards.device, self._shards.mesh
        whole = {p for p in model.parameters() if not _is_part(p)}
        for parameter in whole:
            parameter.data = parameter.data.to(device)
        for module, name, placeholder, _ in self._lent:
            setattr(module, name, placeholder)
        gather = _AgreedGather(self._shards.team)
        for layer in self._layers:
            fully_shard(layer, mesh=mesh, ignored_params=whole)
        fully_shard(model, mesh=mesh, ignored_params=whole)
        for divided in _divided(model):
            divided.set_custom_all_gather(gather)  # type: ignore[arg-type]
        for module, name, _, part in self._lent:
            setattr(module, name, part)


class _AgreedGather:
    """Gathers the parts of a layer, if no process failed; what FSDP2 takes for that."""

    def __init__(self, team: Team) -> None:
        self._team = team

    def allocate(self, size: tuple[int, ...], **options: Any) -> Tensor:
        """Returns an empty tensor."""
        return torch.empty(size, **options)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:
        """Fills ``output_tensor`` with the ``input_tensor`` of each process."""
        if not self._team.is_trying:
            raise ConfigError(
                "Expected all processes to run the model, whose weights are divided among them "
                "(FSDP), but only this one does; run it by Training.evaluate."
            )
        self._team.agree()
        work: dist.Work | None = self._team.exchange(
            lambda: _gather(output_tensor, input_tensor, group=group, async_op=async_op)
        )
        return work


def take_apart(model: nn.Module) -> None:
    """Lets go of all but this process's parts; some stay together after a pass without backward.

    Processes have to do this at the same point, as who has a layer together already does not take
    part in putting it together.
    """
    for module in _divided(model):
        module.reshard()


def _divided(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _weights(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield module, name, parameter


def _is_part(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, DTensor) or parameter.is_meta


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _refuse_skipped_layers(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    skips = {n: v for n, v in config.to_dict().items() if n.endswith("layerdrop") and v}
    if skips:
        raise ConfigError(
            f"Expected a model that runs all its layers, as its weights are divided among the "
            f"processes (FSDP), which would wait for each other; {config.model_type} skips some at "
            f"random ({skips}). Launch without FSDP, or set that to 0 in its config.json."
        )
