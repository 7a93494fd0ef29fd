"""One model that several threads run at once, as a server does, and copies of its modules."""

import copy
import sys
import threading

import pytest
import torch

from .architectures import ARCHITECTURES
from .configurations import METHODS, adapted, output


@pytest.fixture
def _eager_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["BERT", "OPT"])
@pytest.mark.usefixtures("_eager_switching")
def test_threads_do_not_take_each_others_inputs(architecture, method):
    model = adapted(architecture, method).eval()
    batch = ARCHITECTURES[architecture].batch()
    parts = [{name: tensor[row : row + 1] for name, tensor in batch.items()} for row in range(3)]
    with torch.no_grad():
        expected = [output(model, part) for part in parts]
    faults = []

    def work(row):
        try:
            with torch.no_grad():
                for _ in range(25):
                    torch.testing.assert_close(output(model, parts[row]), expected[row])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_low_rank_updates_refuse_the_copies_of_data_parallel():
    model = adapted("BERT", "low-rank").eval()
    hook = next(hook for m in model.modules() for hook in getattr(m, "hooks", {}).values())
    replica = copy.copy(hook.module)
    with pytest.raises(RuntimeError, match="accelerate launch"):
        replica(torch.zeros(1, hook.module.in_features))
