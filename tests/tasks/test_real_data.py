"""Named tasks on the real data, in the folder that PEFT_AUTOCONFIG_DATA_DIR names."""

import os
from pathlib import Path

import pytest

from peft_autoconfig.tasks import load_task

# Sizes of the official splits; training is smaller by texts that are also reported on.
SIZES = {
    "cola": (8551, 1043),
    "copa": (400, 100),
    "cr": (1775, 2000),
    "mrpc": (3668, 408),
    "rte": (2490, 277),
    "stsb": (5749, 1500),
    "trec": (5452, 500),
    "wnli": (635, 71),
}


@pytest.fixture
def data_dir():
    folder = os.environ.get("PEFT_AUTOCONFIG_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PEFT_AUTOCONFIG_DATA_DIR names no folder with glue/, super_glue/ and other/")
    return folder


@pytest.mark.parametrize("name", SIZES)
def test_splits_are_whole_and_share_no_text(data_dir, name):
    task = load_task(name, data_dir=data_dir)
    num_train, num_test = SIZES[name]
    assert len(task.test) == num_test
    assert num_train - 60 < len(task.train) + len(task.dev) <= num_train
    assert len(task.dev) <= min(1000, num_train * 0.2 + 1)
    parts = [set(split.texts) for split in (task.train, task.dev, task.test)]
    assert not parts[0] & parts[1]
    assert not parts[2] & (parts[0] | parts[1])
    assert task.about() == load_task(name, data_dir=data_dir).about()


@pytest.mark.parametrize("name", ["cola", "mrpc", "rte", "trec", "wnli"])
def test_class_shares_agree_between_train_and_dev(data_dir, name):
    task = load_task(name, data_dir=data_dir)
    for label in range(len(task.label_names)):
        shares = [split.labels.count(label) / len(split) for split in (task.train, task.dev)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)
