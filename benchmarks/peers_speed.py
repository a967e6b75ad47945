"""Measures meta-steps per second of leo_tf, plain JAX and PyTorch on the CPU.

    python benchmarks/peers_speed.py

The peers in `benchmarks/peers/` come with `pip install ".[peers]"`; the tests hold them
to the numbers of leo_tf. All train LEO at its published size on random features, with
the settings of the presets mini_1shot and mini_5shot, and are measured in turn. Cells
are medians over the rounds, with quartiles. "CPU ms" is of all threads. "First step" is
tracing and compiling; what PyTorch compiles is kept on disk for the next time.

On a busy machine PyTorch's threads wait for each other at full speed, which costs it
wall and CPU time that it does not need: `taskset -c 0` compares all on one core.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.in_turn import Contestant, Timing, measure_in_turn, ratios, spread
from benchmarks.peers.contestants import CONTESTANTS, lack_of
from leo_tf.configs.presets import PRESETS

_COLUMNS = "steps/s", "CPU ms", "wall, x leo_tf", "CPU, x leo_tf", "first step, s"


def cells(timings: list[Timing], reference: list[Timing]) -> list[str]:
    """Returns steps per second, CPU ms per step, and both relative to the reference."""
    wall, cpu = ratios(timings, reference)
    return [
        spread((1 / timing.wall for timing in timings), 1),
        spread((timing.cpu * 1e3 for timing in timings), 1),
        spread(wall, 2),
        spread(cpu, 2),
    ]


def compare(names: list[str], shot: int, rounds: int, seconds: float) -> list[list]:
    """The rows of one shot."""
    config = PRESETS[f"mini_{shot}shot"].config()
    contestants = {
        name: Contestant(CONTESTANTS[name], (config,), seconds) for name in names
    }
    measure_in_turn(contestants.values(), rounds)
    reference = contestants["leo_tf"].timings
    return [
        [str(shot), name, *cells(c.timings, reference), f"{c.first_step:.1f}"]
        for name, c in contestants.items()
    ]


def versions() -> str:
    packages = [
        p for p in ("tensorflow", "jax", "torch") if importlib.util.find_spec(p)
    ]
    known = [f"{p} {importlib.metadata.version(p)}" for p in packages]
    return f"{', '.join(known)}; {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each timing")
    parser.add_argument("--shots", type=int, nargs="+", choices=(1, 5), default=(1, 5))
    args = parser.parse_args()
    # The contestants' processes inherit both; nothing is imported here that reads them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    console = Console(width=132)
    lacks = {name: lack_of(name) for name in CONTESTANTS}
    table = Table(title="LEO's meta-step", box=box.SIMPLE, caption=versions())
    table.add_column("shot", justify="right")
    table.add_column("", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    names = [name for name, lack in lacks.items() if lack is None]
    for shot in args.shots:
        for row in compare(names, shot, args.rounds, args.seconds):
            table.add_row(*row)
    console.print(table)
    for name, lack in lacks.items():
        if lack is not None:
            console.print(f"{name} is left out: {lack}")


if __name__ == "__main__":
    main()
