"""One process that runs trials in one mode: an order a line in, an answer a line out."""

import json
import os
import sys
import time

import torch
from modes import PRECISION, TRIALS, mode_of

from peft_autoconfig import AutoPEFTConfig
from peft_autoconfig.tasks import load_task


def main() -> None:
    name, task_name, steps, data_dir = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    # what libraries print must not come between the answers
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    task = load_task(task_name, data_dir=data_dir or None, max_dev_examples=400)
    train = mode_of(name, task, steps)
    for line in sys.stdin:
        order = json.loads(line)
        label, fields, rate = TRIALS[order["trial"]]
        began, cpu = time.perf_counter(), time.process_time()
        score, loss = train(AutoPEFTConfig(**fields), rate, order["seed"])
        answer = {
            "mode": name,
            "task": task_name,
            "steps": steps,
            "trial": label,
            "seed": order["seed"],
            "score": score,
            "loss": loss if loss == loss else None,
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "seconds": round(time.perf_counter() - began, 2),
            "precision": PRECISION,
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
