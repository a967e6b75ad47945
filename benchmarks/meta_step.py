"""Measures a training step, and compares it with the limits of the machine.

    python benchmarks/meta_step.py

5-way, 15 queries, 640 dimensions, 64 latents, 12 tasks, the published settings. Every
figure is the median over rounds, in which all measurements take turns, with the
smallest and the largest. CPU-ms is the CPU time of the process per step.

- "step, data": many steps in one call, episodes from the pipeline, as training runs.
- "step, bare": the same on one episode that never changes.
- "draws": the noise and the masks alone, which are part of both.
- "Gflop": floating-point operations of all matrix products of the compiled step,
  forward and second-order backward, as counted in the compiled program.
- "floor": what these take at the rate at which this machine multiplies two matrices of
  1,024 x 1,024. No step can be faster; "ratio" is the bare step's CPU time over it.
"""

import argparse
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic import feature_table
from leo_tf.configs.presets import PRESETS
from leo_tf.data_pipeline.pipeline import FeatureTable, episodes
from leo_tf.model.leo import LEO
from leo_tf.training.meta_step import adam, meta_gradients
from leo_tf.training.replicas import Replicas, make_steps

_CLASSES, _ROWS, _SIZE = 64, 600, 640
_MATRIX = 1024
MULTIPLY_FLOPS = 2 * _MATRIX**3
_DOT = re.compile(
    r"= \w+\[([\d,]*)\]\S* dot\(%?([\w.\-]+), .*lhs_contracting_dims=\{(\d+)\}"
)
_SHAPE = re.compile(r"%?([\w.\-]+) = \w+\[([\d,]*)\]")


class Contest:
    """Measured functions of a number of steps, at one number of shots."""

    def __init__(self, shot: int, table: FeatureTable, jit: bool):
        config = PRESETS["mini_1shot" if shot < 5 else "mini_5shot"].config()
        self.leo = LEO(config.model)
        self.leo.build([None, None, None, _SIZE])
        shape = {"way": 5, "shot": shot, "num_query": 15, "batch_size": 12}
        self.supply = episodes(table, **shape, seed=0, split="train")
        self.episode = next(iter(self.supply))
        optimizer = adam(config.optimizer.outer_lr)
        self.run_steps = make_steps(Replicas(), self.leo, optimizer, config, jit)
        self.iterators = {
            "step, data": iter(self.supply),
            "step, bare": iter(tf.data.Dataset.from_tensors(self.episode).repeat()),
        }

    def steps(self, name: str) -> Callable[[int], None]:
        def run(count):
            first, count = tf.constant(0, tf.int64), tf.constant(count, tf.int64)
            self.run_steps(self.iterators[name], first, count)["loss"].numpy()

        return run

    def draws(self) -> Callable[[int], None]:
        @tf.function(autograph=False)
        def draw(step):
            return self.leo.draw_noise(self.episode, tf.constant(0, tf.int64), step)

        def run(count):
            for step in range(count):
                drawn = draw(tf.constant(step, tf.int64))
            drawn.latents.numpy()

        return run

    def flops(self) -> float:
        """Returns the operations of a step's matrix products, forward and backward."""

        def gradients(episode, noise):
            return meta_gradients(self.leo, episode, noise)

        return product_flops(
            gradients, self.episode, self.leo.draw_noise(self.episode, 0, 0)
        )


def product_flops(function: Callable, *inputs) -> float:
    """Returns the operations of all matrix products of a compiled function."""
    compiled = tf.function(function, jit_compile=True, autograph=False)
    text = compiled.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
    shapes = {name: _sizes(sizes) for name, sizes in _SHAPE.findall(text)}
    total = 0
    for output, left, axis in _DOT.findall(text):
        total += 2 * np.prod(_sizes(output)) * shapes[left][int(axis)]
    return float(total)


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]


def multiply() -> Callable[[int], None]:
    matrix = tf.random.normal([_MATRIX, _MATRIX])
    product = tf.function(lambda: tf.matmul(matrix, matrix))

    def run(count):
        for _ in range(count):
            result = product()
        result[0, 0].numpy()

    return run


def measured(contestants: dict[str, Callable], rounds: int, seconds: float) -> dict:
    """Returns name -> [rounds, 2] CPU ms and ms of one step, measured in turn."""
    counts = {}
    for name, run in contestants.items():
        run(2)
        start = time.perf_counter()
        run(10)
        counts[name] = max(1, int(seconds * 10 / (time.perf_counter() - start)))
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run(counts[name])
            spent = time.process_time() - cpu, time.perf_counter() - wall
            times[name].append([1e3 * x / counts[name] for x in spent])
    return {name: np.array(values) for name, values in times.items()}


def _figure(values) -> str:
    return f"{np.median(values):.1f} ({values.min():.1f}-{values.max():.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measurement")
    parser.add_argument("--nojit", action="store_true")
    arguments = parser.parse_args()
    features = feature_table(_CLASSES, _ROWS, _SIZE)
    table = Table(box=box.SIMPLE)
    for column in ("shot", "", "CPU-ms", "ms", "steps/s", "Gflop", "floor", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for shot in arguments.shots:
        contest = Contest(shot, features, jit=not arguments.nojit)
        contestants = {name: contest.steps(name) for name in contest.iterators}
        contestants |= {"draws": contest.draws(), "multiply": multiply()}
        times = measured(contestants, arguments.rounds, arguments.seconds)
        rate = MULTIPLY_FLOPS / times.pop("multiply")[:, 0]  # flops a CPU-ms
        flops = 0 if arguments.nojit else contest.flops()
        for name, values in times.items():
            row = [str(shot), name, _figure(values[:, 0]), _figure(values[:, 1])]
            row.append(f"{1e3 / np.median(values[:, 1]):.0f}")
            if flops and name == "step, bare":
                floors = flops / rate
                ratio = _figure(values[:, 0] / floors)
                row += [f"{flops / 1e9:.2f}", _figure(floors), ratio]
            table.add_row(*row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
