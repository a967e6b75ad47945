"""Estimates how long jobs of many runs take on 1, 2, 4, 16 or 64 cores.

    python benchmarks/many_cores.py [RESULTS.json of a job of yours]

A simulation: runs are placed on free workers in the order in which jobs have them, and
what cannot be done side by side is waited for. The parts were measured on one core
(docs/performance.md); that cores do not slow each other down, as they may where memory
is the limit, is an assumption.
"""

import argparse
import heapq
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from leo_tf.configs.schema import Config
from leo_tf.experiments.search import steps_of

CORES = 1, 2, 4, 16, 64
# Seconds until a worker begins, of the first four and of others, which load TensorFlow
# for their first run; and seconds per run to trace, compile, fit and draw.
# Measured with LEO on the embedded set: 46.5 s of which 41.6 are steps, and 0.3 s until
# the next run begins.
_EARLY, _START, _LATE_START, _RUN = 4, 0.3, 4.0, 4.9
_TRIALS, _RUNGS, _FACTOR = 16, 3, 3


class Shape(NamedTuple):
    """Costs of a run of some episodes on one core."""

    name: str
    steps: int
    step: float  # seconds of a meta-step, episodes included
    validate_every: int
    validation: float  # seconds of one
    test: float  # seconds of the test of one run, on one core


# One core: 10.4 ms per step and 1.0 CPU-ms per episode of 599 queries per class at 1
# shot; 41 ms and 2.0 at 5 shots.
SHAPES = (
    Shape("glyphs 1-shot", 4_000, 0.0104, 500, 0.15, 0.5),
    Shape("mini 1-shot", 100_000, 0.0104, 1_000, 2.0, 10.0),
    Shape("mini 5-shot", 100_000, 0.0410, 1_000, 4.0, 20.0),
)


def seconds_of(shape: Shape, first: int, last: int) -> float:
    """Returns the seconds of a run from one step to another."""
    validations = last // shape.validate_every - first // shape.validate_every
    return _RUN + (last - first) * shape.step + validations * shape.validation


def makespan(durations: Sequence[float], workers: int) -> float:
    """Seconds until all runs are done, each on the first worker that is free."""
    used = min(workers, len(durations))
    free = [_START if slot < _EARLY else _LATE_START for slot in range(used)]
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def reproduction(shape: Shape, cores: int, seeds: int = 5) -> float:
    """The published protocol, if the best step is the last one."""
    run = seconds_of(shape, 0, shape.steps)
    tests = (seeds + 1) * shape.test / cores
    return makespan([run], cores) + makespan([run] * seeds, cores) + tests


def comparison(shape: Shape, cores: int, trained: int = 6) -> float:
    """Methods that are trained, tested on the same episodes."""
    run = seconds_of(shape, 0, shape.steps) + shape.test  # each worker tests its own
    return makespan([run] * trained, cores)


def rungs_of(shape: Shape, rungs: int) -> list[int]:
    """Returns the steps of the rungs of a search of this shape."""
    every = shape.validate_every
    return steps_of(
        Config().replace(num_steps=shape.steps, validate_every=every), rungs
    )


def search(shape: Shape, cores: int, rungs: int = _RUNGS) -> float:
    """A search: rungs one after the other, the trials of each side by side."""
    total, before = 0.0, 0
    for rung, until in enumerate(rungs_of(shape, rungs)):
        trials = -(-_TRIALS // _FACTOR**rung)
        total += makespan([seconds_of(shape, before, until)] * trials, cores)
        before = until
    return total


def clock(seconds: float) -> str:
    """Returns a duration in words."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min"


def measured(path: pathlib.Path) -> list[float]:
    """Seconds that the runs of a job took to train, from its results.json."""
    found = json.loads(path.read_text())
    rows = [*found.get("runs", ()), *found.get("methods", {}).values()]
    rows = [each for row in rows for each in row.get("trials", [row])]
    return [row["seconds_trained"] for row in rows if row.get("seconds_trained")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "results", nargs="?", type=pathlib.Path, help="of a job of yours"
    )
    options = parser.parse_args()
    titles = (f"{cores} core{'s' * (cores > 1)}" for cores in CORES)
    print("| | " + " | ".join(titles) + " |")
    print("|---|" + "---:|" * len(CORES))
    if options.results:
        runs = measured(options.results)
        cells = [clock(makespan([_RUN + s for s in runs], cores)) for cores in CORES]
        mean = statistics.fmean(runs)
        print(f"| {len(runs)} runs of {mean:.0f} s | " + " | ".join(cells) + " |")
        return
    for shape in SHAPES:
        for what, job in (
            ("reproduce, 5 seeds", reproduction),
            ("compare, 6 trained", comparison),
            (f"search, {_TRIALS} trials, {len(rungs_of(shape, _RUNGS))} rungs", search),
            (f"search, {_TRIALS} trials, 1 rung", lambda *a: search(*a, rungs=1)),
        ):
            cells = [clock(job(shape, cores)) for cores in CORES]
            print(f"| {shape.name}: {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
