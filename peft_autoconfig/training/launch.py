"""The launch that processes come from, and the team that they are by it.

Imports `errors` and `team`; imported by `training`.
"""

import os
from typing import Literal, get_args

from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env, patch_environment

from ..errors import ConfigError
from .team import Team

__all__ = ["Parallel", "accelerator_of_launch", "team_of"]

Parallel = Literal["trials", "data"]

FOREIGN = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def accelerator_of_launch() -> Accelerator:
    """Returns what knows the device, the precision and the other processes.

    To Accelerate a launch with FSDP is one without: what is divided here is none of its models.
    """
    with patch_environment(accelerate_use_fsdp="false"):
        return Accelerator()


def team_of(accelerator: Accelerator, parallel: Parallel) -> Team:
    """Returns the team that this process is in.

    Args:
        accelerator: Knows the processes of the launch.
        parallel: "data" joins them; with "trials" each is alone.

    Raises:
        ConfigError: ``parallel`` is neither, or the launch divides the model in a way that does
            not go with it.
    """
    if parallel not in get_args(Parallel):
        raise ConfigError(f"parallel must be 'trials' or 'data', got {parallel!r}.")
    divides = _divides(accelerator, parallel)
    if parallel == "data":
        _refuse_strangers(accelerator)
    if parallel == "trials" or accelerator.num_processes == 1:
        return Team()
    return Team(accelerator.process_index, accelerator.num_processes, divides=divides)


def _divides(accelerator: Accelerator, parallel: Parallel) -> bool:
    """Returns whether the launch wants the model divided by FSDP, which we do ourselves.

    Raises:
        ConfigError: It wants what we cannot do.
    """
    if accelerator.distributed_type in FOREIGN:
        raise ConfigError(
            f"Expected a launch that divides the model by FSDP or not at all, got "
            f"{accelerator.distributed_type.value}: all trials share one frozen base model, which "
            f"that would rebuild for one of them. Use accelerate launch --use_fsdp, --multi_gpu "
            f"or --cpu."
        )
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if parallel != "data":
        raise ConfigError(
            "Expected parallel='data' (--parallel data) in a launch with FSDP, whose processes "
            "hold one model together; got 'trials', where each trains one of its own."
        )
    if parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError(
            "Expected a launch with FSDP that keeps weights on the devices, got "
            "fsdp_offload_params; launch without it: more processes make the parts smaller."
        )
    return True


def _refuse_strangers(accelerator: Accelerator) -> None:
    """Makes sure that Accelerate knows all processes of the launch; on CPUs it has to be told."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > accelerator.num_processes:
        raise ConfigError(
            f"Expected {launched} processes that know each other, as launched, but Accelerate "
            f"finds {accelerator.num_processes}; on CPUs set ACCELERATE_USE_CPU=true."
        )
