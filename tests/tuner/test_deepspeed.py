"""A step under DeepSpeed's ZeRO stages 2 and 3, on a CPU, against one without it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .configurations import METHODS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
)

# In a process of its own: DeepSpeed chooses its device for good when it is imported.
SCRIPT = """
import json, sys
import deepspeed, torch
from peft.utils import get_peft_model_state_dict
from tests.tuner.architectures import ARCHITECTURES
from tests.tuner.configurations import METHODS, adapted

def ready(method):
    model = adapted("BERT", method)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.SGD(trained, lr=1e-4)

torch.distributed.init_process_group("gloo", rank=0, world_size=1)
batch = ARCHITECTURES["BERT"].batch()
found = {}
for stage in (2, 3):
    config = {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    for method in METHODS:
        model, optimizer = ready(method)
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
        engine.eval()  # no dropout
        engine.backward(engine(**batch)[0].pow(3).sum())
        engine.step()
        with deepspeed.zero.GatheredParameters(list(model.parameters()), enabled=stage == 3):
            actual = {k: v.clone() for k, v in get_peft_model_state_dict(model).items()}
        twin, optimizer = ready(method)
        before = {k: v.clone() for k, v in get_peft_model_state_dict(twin).items()}
        twin.eval()(**batch)[0].pow(3).sum().backward()
        optimizer.step()
        expected = get_peft_model_state_dict(twin)
        assert list(actual) == list(expected)
        error = max((actual[k] - expected[k]).abs().max().item() for k in expected)
        moved = max((before[k] - expected[k]).abs().max().item() for k in expected)
        found[f"{method} {stage}"] = [error, moved]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        **{"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_without_deepspeed(method, stage, found):
    error, moved = found[f"{method} {stage}"]
    assert error < 1e-6
    assert moved > 1e-4
