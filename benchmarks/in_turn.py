"""Measures contestants in turn, A B C A B C, each in a process of its own.

So all meet the same machine, and none finds the memory, caches or threads as another
left them. Ratios are taken within each round: what slows a whole round cancels.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

_WARM_UP_STEPS = 3


class Timing(NamedTuple):
    """Seconds per step. `cpu` counts all threads of the process."""

    wall: float
    cpu: float


class Contestant:
    """A contestant in a process of its own.

    Args:
      build: makes, in that process, the function that makes a given number of steps
        and returns when they are done; a function of a module, or a partial of one.
      arguments: of `build`.
      seconds: roughly how long each measurement takes.

    Attributes:
      first_step: seconds of the first step: tracing and compiling.
      timings: one `Timing` for each measurement.

    Raises:
      EOFError: if the process ends; it has shown why.
    """

    def __init__(self, build: Callable, arguments: tuple, seconds: float):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, build, arguments), daemon=True
        )
        self._process.start()
        theirs.close()  # else the end of the process would be silence, not EOFError
        self.first_step = self._pipe.recv().wall
        self._steps = max(1, round(seconds / self._ask(_WARM_UP_STEPS).wall))
        self.timings: list[Timing] = []

    def measure(self) -> None:
        self.timings.append(self._ask(self._steps))

    def close(self) -> None:
        self._pipe.send(0)
        self._process.join()

    def _ask(self, count: int) -> Timing:
        self._pipe.send(count)
        return self._pipe.recv()


def measure_in_turn(contestants: Iterable[Contestant], rounds: int) -> None:
    """Measures all contestants `rounds` times, then ends their processes."""
    contestants = list(contestants)
    for _ in range(rounds):
        for contestant in contestants:
            contestant.measure()
    for contestant in contestants:
        contestant.close()


def spread(values: Iterable[float], digits: int) -> str:
    """The median and, in brackets, the quartiles."""
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratios(mine: list[Timing], others: list[Timing]) -> tuple[list[float], list[float]]:
    """Returns `mine` divided by the other, round by round: wall time and CPU time."""
    pairs = list(zip(mine, others, strict=True))
    return [a.wall / b.wall for a, b in pairs], [a.cpu / b.cpu for a, b in pairs]


def timed(run: Callable[[int], None], count: int) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run(count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Timing(wall / count, cpu / count)


def _serve(pipe, build: Callable, arguments: tuple) -> None:
    run = build(*arguments)
    pipe.send(timed(run, 1))
    while count := pipe.recv():
        pipe.send(timed(run, count))
