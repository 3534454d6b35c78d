"""Watches `rayclean.training.loop.fit` from outside: its blocks of steps, what it does for state, where its time goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rayclean.methods.base import Method
from rayclean.training import steps
from rayclean.training.collectives import Collectives
from rayclean.training.state import ExampleState, StateRows

WATCHED = 2
"""The epoch whose steps are watched."""
SHOWN = 15
"""Operators in a profile."""


@dataclass(frozen=True)
class Pair:
    """A block of steps and the same batches in the other loop, seconds."""

    ours: float
    theirs: float
    state: float
    """Part of `ours` that went into per-example state."""


class Stopwatch:
    """Time of every block of steps of `fit`, of what it does for per-example state in it, and of what lies between epochs.

    Args:
        device: where the networks are.
        block: steps per block.
        other: trains on the batches of a block, right after it; None: nothing is paired.
        on_step: called at the beginning of every step of the watched epoch.
    """

    def __init__(
        self,
        device: str,
        block: int,
        other: Callable[[list[Any]], None] | None,
        on_step: Callable[[], None] = lambda: None,
    ):
        self.device, self.block, self.other, self.on_step = device, block, other, on_step
        self.pairs: list[Pair] = []
        self.between: dict[str, dict[int, float]] = {}
        """Name -> epoch -> seconds."""
        self.rows = 0
        self._batches: list[Any] = []
        self._started = self._state_seconds = 0.0
        self._undo: list[Any] = []
        self._copies = False

    @contextmanager
    def installed(self, method: type[Method]) -> Iterator[None]:
        """Wraps what a step begins with, what handles state and what lies between epochs, for the time of a block."""
        self._replace(steps, "step_batch", self._begin)
        for owner, name in (
            (method, "observe"),
            (StateRows, "on_host"),
            (ExampleState, "rows"),
            (Collectives, "gather"),
        ):
            self._replace(owner, name, self._state)
        self._replace(method, "seen", self._seen)
        self._replace(method, "partition", lambda function: self._apart("partition", 2, function))
        self._replace(steps, "review_examples", lambda function: self._apart("review", 3, function))
        self._replace(method, "review", lambda function: self._apart("review_columns", 4, function))
        try:
            yield
        finally:
            for put_back in reversed(self._undo):
                put_back()

    def between_epochs(self) -> dict[str, dict[str, float]]:
        """Seconds before and after the steps of the watched epoch."""
        return {
            name: {"seconds_per_epoch": seconds[WATCHED], "seconds_per_example": seconds[WATCHED] / self.rows}
            for name, seconds in self.between.items()
        }

    def _replace(self, owner: Any, name: str, wrap: Any) -> None:
        own, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, wrap(before))
        self._undo.append(lambda: setattr(owner, name, before) if own else delattr(owner, name))

    def _begin(self, function: Any) -> Any:
        """Of `step_batch(worker, host, rows, moment)`."""

        def call(*arguments: Any, **named: Any) -> Any:
            worker, host, _, moment = arguments
            if WATCHED - 1 <= moment.progress < WATCHED:
                self.rows = len(worker.data.train.ids)
                self.on_step()
                if self.other is not None:
                    self._step(host.own)
            return function(*arguments, **named)

        return call

    def _step(self, positions: Any) -> None:
        assert self.other is not None
        if len(self._batches) == self.block:
            self._wait()
            middle = time.perf_counter()
            self.other(self._batches)
            self._wait()
            end = time.perf_counter()
            self.pairs.append(Pair(middle - self._started, end - middle, self._state_seconds))
            self._batches = []
        if not self._batches:
            self._state_seconds, self._started = 0.0, time.perf_counter()
        self._batches.append(positions)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def _state(self, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            self._state_seconds += time.perf_counter() - start
            return result

        return call

    def _seen(self, function: Any) -> Any:
        """With the copies, which the loop makes right after and then finds done."""

        def noted(*arguments: Any) -> Any:
            found = {name: value.cpu() for name, value in function(*arguments).items()}
            self._copies = bool(found)
            return found

        timed = self._state(noted)

        def call(*arguments: Any) -> Any:
            if self._copies:
                self._wait()  # a copy waits for the forward passes, which are no part of the state
            return timed(*arguments)

        return call

    def _apart(self, name: str, place: int, function: Any) -> Any:
        """`place` of the epoch among the arguments."""

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            seconds = self.between.setdefault(name, {})
            epoch = arguments[place]
            seconds[epoch] = seconds.get(epoch, 0.0) + time.perf_counter() - start
            return result

        return call


class Profile:
    """`torch.profiler` around some steps: starts with the second one, ends with the beginning of the last but one."""

    def __init__(self, device: str, count: int):
        self.cuda, self.count, self.seen, self.seconds = device.startswith("cuda"), count, 0, 0.0
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(activities=activities)

    def step(self) -> None:
        """A step begins."""
        self.seen += 1
        if self.seen == 2:
            self._wait()
            self.profiler.start()
            self.start = time.perf_counter()
        elif self.seen == 2 + self.count - 1:
            self._wait()
            self.seconds = time.perf_counter() - self.start
            self.profiler.stop()

    def figures(self) -> dict[str, Any]:
        """Operators by their own time, and on a GPU how much of the time it computes."""
        key = "self_device_time_total" if self.cuda else "self_cpu_time_total"
        events = [event for event in self.profiler.key_averages() if getattr(event, key) > 0]
        total = sum(getattr(event, key) for event in events)
        events.sort(key=lambda event: -getattr(event, key))
        found: dict[str, Any] = {
            "steps": self.count - 1,
            "steps_per_second": (self.count - 1) / self.seconds,
            "operators": [
                {"name": event.key[:80], "calls": event.count, "share": round(getattr(event, key) / total, 4)}
                for event in events[:SHOWN]
            ],
        }
        if self.cuda:
            found["utilisation"] = self._busy() / self.seconds
        return found

    def _busy(self) -> float:
        """Seconds in which at least one kernel or copy ran."""
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in self.profiler.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
            and not getattr(event, "is_user_annotation", False)
        )
        busy, until = 0.0, float("-inf")
        for start, end in spans:
            busy += max(0.0, end - max(start, until))
            until = max(until, end)
        return busy / 1e6

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
