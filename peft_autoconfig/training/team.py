"""The processes that train one trial together, and what keeps them together.

The first process of a launch leads: it searches and tells the others what to train. All hold the
same model; in each step each computes the gradient of its share of the batch, and the sum over all
is what a single process would have computed. Parts are small, so one sum after the backward pass
costs less than what overlapping the two would save, and nobody waits inside it for one that failed:
before every exchange all say how they are (`Team.agree`), and where one failed, all stop.

Gradients go through the process group that Accelerate made for the device. Words go through a gloo
group of their own, which costs a device no synchronisation and bears silences of any length.

Imports `errors`; imported by all that a team has a share in.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import AutoConfigError, TrainingError, WorkerError

__all__ = ["Team"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Others may wait as long as the leader waits for trials of other workers, or for a data base.
LONGEST_SILENCE = timedelta(days=30)
SECONDS_BETWEEN_LOOKS = (0.0001, 0.01)  # at first, and after some time

# How a process is: the worst comes last.
FINE, WISHES, FAILED, INTERRUPTED = range(4)


class Team:
    """One process of those that train together; of a single one all exchanges are empty.

    Args:
        rank: Number of this process; the first one leads.
        size: Number of processes.
        divides: Whether each holds only a part of the model.

    Attributes:
        rank: As above.
        size: As above.
        divides: As above.
        is_trying: Whether all processes are at the same piece of work.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, divides: bool = False) -> None:
        self.rank = rank
        self.size = size
        self.divides = divides and size > 1
        self.is_trying = False
        self._group: Any = None
        if size > 1:
            self._group = dist.new_group(backend="gloo", timeout=LONGEST_SILENCE)
        self._all_know = False
        self._was_interrupted = False
        self._is_over = False
        self._heeded: dict[int, Callable[[int, FrameType | None], Any]] = {}

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self._group is None

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns the items of this process; each belongs to one, and all have about as many."""
        return items[self.rank :: self.size]

    def pieces(self, items: Sequence[Item], size: int) -> Iterator[tuple[Sequence[Item], bool]]:
        """Yields the items of this process piece by piece, each with whether it counts.

        To run a model that is divided takes all processes, so that then each gets as many pieces:
        who has fewer items gets the first one of all again, which does not count.

        Args:
            items: The items of all processes.
            size: Items of a piece at most.
        """
        own = self.share(items)
        for start in range(0, len(own), size):
            yield own[start : start + size], True
        if self.divides:
            most = -(-len(items) // self.size)
            for _ in range(-(-most // size) - -(-len(own) // size)):
                yield items[:1], False

    def tell(self, **words: Any) -> None:
        """Tells the others what to do now; they `hear` it.

        Raises:
            WorkerError: They are gone.
        """
        if self._is_over:
            raise WorkerError("The processes that trained together have ended; start them again.")
        if not self.is_alone:
            self.broadcast(json.dumps(words).encode())

    def dismiss(self) -> None:
        """Tells the others, if they are still there, that nothing more will come."""
        if not self._is_over:
            try:
                self.tell(do="end")
            except WorkerError as error:
                logger.warning("%s", error)
        self._is_over = not self.is_alone

    def hear(self) -> dict[str, Any]:
        """Returns what the leader tells next, however long that takes."""
        length = self._new(1)
        work = dist.broadcast(length, 0, group=self._group, async_op=True)
        # Not `wait`, in which no signal would reach us.
        seconds, longest = SECONDS_BETWEEN_LOOKS
        while not work.is_completed():
            time.sleep(seconds)
            seconds = min(2 * seconds, longest)
        self.exchange(work.wait)
        words: dict[str, Any] = json.loads(self._receive(int(length)))
        return words

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Ends for all processes in the same way: where one raises, all do.

        One in another fails for itself: it is up to the leader whether the outer one does, too.

        Raises:
            TrainingError: Another process raised an error of ours.
            RuntimeError: Another process raised another error.
            KeyboardInterrupt: A process was interrupted.
            WorkerError: Another process is gone.
        """
        outer = self.is_trying, self._all_know
        self.is_trying, self._all_know = True, False
        try:
            yield
        except BaseException as error:
            if not self._all_know:
                self.agree(error=error)
            raise
        else:
            self.agree()
        finally:
            self.is_trying, self._all_know = outer
            self._all_know |= self._is_over

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Lets the leader do something of its own, or tell the others to, within an attempt.

        They `hear` what, until it tells them to "go on".
        """
        self.is_trying, outer = False, self.is_trying
        try:
            yield
        finally:
            self.is_trying = outer
            if not self._is_over:
                self.tell(do="go on")

    def agree(self, *, wish: bool = False, error: BaseException | None = None) -> bool:
        """Hears how all processes are, before anything else is exchanged.

        Args:
            wish: A wish, which counts if this process leads.
            error: Why this process fails, if it does.

        Returns:
            Whether the leader has a wish.

        Raises:
            TrainingError: Another process failed with an error of ours.
            RuntimeError: Another process failed with another error.
            KeyboardInterrupt: A process was interrupted.
            WorkerError: Another process is gone.
        """
        if self.is_alone:
            return wish
        codes = self._new(self.size)
        codes[self.rank] = self._code(wish, error)
        self.exchange(lambda: dist.all_reduce(codes, group=self._group))
        if codes.max() >= FAILED:
            self._stop(codes, error)
        return bool(codes[0] == WISHES)

    def broadcast(self, data: bytes | None = None) -> bytes | None:
        """Returns what the leader has; nobody else's counts."""
        if self.is_alone:
            return data
        length = self._new(1)
        if self.rank == 0:
            length[0] = -1 if data is None else len(data)
        self.exchange(lambda: dist.broadcast(length, 0, group=self._group))
        return None if length < 0 else self._receive(int(length), data)

    def gather(self, data: bytes) -> list[bytes]:
        """Returns what each process has, in their order."""
        if self.is_alone:
            return [data]
        lengths = self._new(self.size)
        lengths[self.rank] = len(data)
        self.exchange(lambda: dist.all_reduce(lengths, group=self._group))
        longest = int(lengths.max())
        own = _to_tensor(data.ljust(longest, b"\0"))
        all_of_them = [torch.empty_like(own) for _ in range(self.size)]
        if longest:
            self.exchange(lambda: dist.all_gather(all_of_them, own, group=self._group))
        return [
            bytes(part[: int(length)].numpy().tobytes())
            for part, length in zip(all_of_them, lengths, strict=True)
        ]

    def gather_tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Returns the named tensors of each process, on the CPU, in their order."""
        if self.is_alone:
            return [tensors]
        data = safetensors.torch.save({n: t.to("cpu").contiguous() for n, t in tensors.items()})
        return [safetensors.torch.load(other) for other in self.gather(data)]

    def join(self, results: dict[int, Any]) -> dict[int, Any]:
        """Returns the results of all processes, if none of them failed.

        Args:
            results: Arrays, by numbers that no other process has.
        """
        if self.is_alone:
            return results
        own = {str(n): torch.from_numpy(np.array(result)) for n, result in results.items()}
        self.agree()
        return {
            int(number): tensor.numpy()
            for part in self.gather_tensors(own)
            for number, tensor in part.items()
        }

    def add_up(
        self, parameters: Sequence[nn.Parameter], loss: Tensor, *, wish: bool = False
    ) -> tuple[Tensor, bool]:
        """Replaces gradients by their sums over the processes, if none of them failed.

        Args:
            parameters: The same ones in each process; one without a gradient counts as zero.
            loss: A scalar.
            wish: As in `agree`.

        Returns:
            The sum of the losses, and what `agree` returns.
        """
        if self.is_alone:
            return loss, wish
        parts = [loss.detach().reshape(1)]
        for parameter in parameters:
            gradient = parameter.grad
            parts.append((torch.zeros_like(parameter) if gradient is None else gradient).flatten())
        total = torch.cat(parts)
        wish = self.agree(wish=wish)
        self.exchange(lambda: dist.all_reduce(total))
        pieces = torch.split(total[1:], [parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        return total[0], wish

    def exchange(self, work: Callable[[], Any]) -> Any:
        """Returns what some exchange between all processes gives.

        Raises:
            WorkerError: One of them is gone.
        """
        try:
            return work()
        except RuntimeError as error:
            self._all_know = self._is_over = True
            raise WorkerError(
                f"Expected all {self.size} processes that train together to be there, but one "
                f"is gone or out of reach ({' '.join(str(error).split())[:300]}); see what it "
                f"says, and run the same command again: what is finished is kept."
            ) from error

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Lets a first Ctrl-C or SIGTERM, where the program heeds it, reach all at their next word.

        It would else come upon one process anywhere, and leave the others waiting.
        """
        if not self.is_alone and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._heeded[number] = handler
                    signal.signal(number, self._interrupt)
        try:
            yield
        finally:
            for heeded, handler in self._heeded.items():
                if signal.getsignal(heeded) == self._interrupt:
                    signal.signal(heeded, handler)
            self._heeded.clear()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        between_trials = self.rank == 0 and not self.is_trying
        is_first = not self._was_interrupted
        if is_first and not between_trials:
            self._was_interrupted = True
        # a program that has a handler of its own looks after a second one in its own way
        elif is_first or self._heeded[number] is signal.default_int_handler:
            self._heeded[number](number, frame)

    def _code(self, wish: bool, error: BaseException | None) -> int:
        if self._was_interrupted or isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        if error is not None:
            return FAILED
        return WISHES if wish else FINE

    def _stop(self, codes: Tensor, error: BaseException | None) -> None:
        """Raises what all processes raise; that of the first that failed is raised by itself."""
        self._all_know = True
        text = "" if error is None else f"{type(error).__name__}: {error}"
        reports = self.gather(json.dumps([text, isinstance(error, AutoConfigError)]).encode())
        if codes.max() == INTERRUPTED:
            self._is_over = True
            raise KeyboardInterrupt
        first = int((codes == FAILED).nonzero()[0])
        if first == self.rank:
            return
        text, is_ours = json.loads(reports[first])
        kind = TrainingError if is_ours else RuntimeError
        raise kind(f"process {first} of {self.size} failed: {text}")

    def _receive(self, length: int, data: bytes | None = None) -> bytes:
        content = _to_tensor(data) if data is not None else self._new(length, torch.uint8)
        if length:
            self.exchange(lambda: dist.broadcast(content, 0, group=self._group))
        return content.numpy().tobytes()

    @staticmethod
    def _new(size: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(size, dtype=dtype)


def _to_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0).byte()
