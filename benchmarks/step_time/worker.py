"""One of the two processes that compute: obeys one line of JSON at a time, answers with another.

Started by `run.py` with the Python of an environment. It computes only when told to, so that two
workers never disturb each other:

    {"do": "open", ...}                     builds the base and a batch; answers with versions
    {"do": "load", "mode": key}             builds a mode; answers with its trainable parameters
    {"do": "step", "mode": key}             one training step; wall and CPU seconds up to each mark
    {"do": "memory", "mode": key}           peak growth and bytes kept for the backward, in MB

Seconds are cumulative at three marks: forward, backward, optimizer step.
"""

import gc
import importlib.metadata
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from models import build, build_base, build_batch
from modes import MODES
from torch import nn

LIBRARIES = ("torch", "transformers", "peft", "adapters")
MB = 1e6


class Worker:
    """The base model, the batch and all loaded modes."""

    def __init__(self) -> None:
        self.models: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def open(self, *, size: str, batch: int, sequence: int, threads: int, **options: Any) -> Any:
        """Forgets what was loaded and builds another base model and batch."""
        torch.set_num_threads(threads)
        self.models.clear()
        self.device, self.compile = options["device"], options["compile"]
        if self.compile:
            # all modes share the code of one forward; past the usual limit they would run eagerly
            torch._dynamo.config.recompile_limit = 2 * len(MODES)
        self.base = build_base(size, self.device, getattr(torch, options["dtype"]))
        self.batch = build_batch(batch, sequence, self.device)
        versions = {}
        for library in LIBRARIES:
            try:
                versions[library] = importlib.metadata.version(library)
            except importlib.metadata.PackageNotFoundError:
                continue
        if self.device == "cuda":
            versions["device"] = torch.cuda.get_device_name()
        return versions

    def load(self, *, mode: str) -> Any:
        """Builds the model of a mode and its optimizer."""
        model = build(MODES[mode], self.base, compiled=self.compile)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-4)
        self.models[mode] = (torch.compile(model) if self.compile else model, optimizer)
        gc.collect()
        gc.freeze()
        return {"trainable": sum(weight.numel() for weight in weights)}

    def step(self, *, mode: str) -> Any:
        """Runs one training step, with the garbage collector kept out of it."""
        model, optimizer = self.models[mode]
        gc.collect()
        gc.disable()
        marks = [self._now()]
        loss = model(**self.batch).loss
        marks.append(self._now())
        loss.backward()
        marks.append(self._now())
        optimizer.step()
        optimizer.zero_grad()
        marks.append(self._now())
        gc.enable()
        wall, cpu = ([round(m[i] - marks[0][i], 5) for m in marks[1:]] for i in (0, 1))
        return {"wall": wall, "cpu": cpu}

    def memory(self, *, mode: str) -> Any:
        """Measures a step after a tiny one that lets libraries and optimizer set themselves up."""
        model, _ = self.models[mode]
        whole = self.batch
        self.batch = {name: values[:1, ...] for name, values in whole.items()}
        self.step(mode=mode)
        self.batch = whole
        before = self._reset_peak()
        self.step(mode=mode)
        peak = self._peak()
        growth = None if peak is None or before is None else round((peak - before) / MB, 1)
        return {"peak": growth, "saved": round(self._saved_bytes(model) / MB, 1)}

    def _saved_bytes(self, model: nn.Module) -> int:
        """Bytes of the tensors kept for the backward, without the model's own and the batch."""
        tensors = [*model.parameters(), *model.buffers(), *self.batch.values()]
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**self.batch).loss
        # storages are told apart by address, which holds while the graph keeps all of them alive
        loss.backward()
        return sum(kept.values())

    def _now(self) -> tuple[float, float]:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def _reset_peak(self) -> float | None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return float(torch.cuda.memory_allocated())
        if not Path("/proc/self/clear_refs").exists():
            return None
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")

    def _peak(self) -> float | None:
        if self.device == "cuda":
            return float(torch.cuda.max_memory_allocated())
        return _status("VmHWM") if Path("/proc/self/status").exists() else None


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    raise KeyError(field)


def main() -> None:
    # libraries print what they like; the answers go out by the descriptor that stdout had
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:  # whatever a library raises belongs in the results
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
