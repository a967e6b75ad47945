"""Measures time and memory of a training step against the size of its episodes.

    python benchmarks/growth.py --plot=growth.png

From 5-way 1-shot, 15 queries, 640 dimensions, 64 latents and 12 tasks, one size is
varied at a time; 20-way 20-shot is the largest the paper's kind of task gets. Every
row is a process of its own; memory is the largest it had, less what it had before the
learner was built. "examples" is how many supports and queries a step has.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from rich import box
from rich.console import Console
from rich.table import Table

_BASE = {"tasks": 12, "way": 5, "shot": 1, "size": 640}
_NUM_QUERY = 15
AXES = {
    "tasks": (1, 4, 16, 64, 256),
    "way": (2, 5, 10, 20, 50),
    "shot": (1, 2, 5, 10, 20),
    "size": (64, 256, 640, 1600, 4096),
}
_LARGEST = {"way": 20, "shot": 20}
_SECONDS = 2.0


def measure(tasks: int, way: int, shot: int, size: int) -> dict[str, float]:
    """Returns milliseconds of a step, seconds of the first one, and MiB of memory."""
    import numpy as np
    import tensorflow as tf

    from benchmarks.synthetic import peak_mebibytes
    from leo_tf.configs.schema import ModelConfig
    from leo_tf.data_pipeline.episode import Episode
    from leo_tf.model.leo import LEO
    from leo_tf.training.meta_step import adam, make_meta_step

    def examples(count):
        inputs = np.random.default_rng(count).random([tasks, way, count, size], "f4")
        labels = np.broadcast_to(np.arange(way, dtype="i4")[:, None], inputs.shape[:3])
        return tf.math.l2_normalize(inputs, axis=-1), tf.constant(labels)

    episode = Episode(*examples(shot), *examples(_NUM_QUERY))
    before = peak_mebibytes()
    leo = LEO(ModelConfig())
    leo.build([None, None, None, size])
    clipping = {"gradient_threshold": 0.1, "gradient_norm_threshold": 0.1}
    meta_step = make_meta_step(leo, adam(1e-4), **clipping, jit=True)

    def steps(count):
        start = time.perf_counter()
        for step in range(count):
            metrics = meta_step(
                episode, tf.constant(0, tf.int64), tf.constant(step, tf.int64)
            )
        float(metrics["loss"])
        return time.perf_counter() - start

    first = steps(1)
    count = max(1, round(_SECONDS / steps(1)))
    times = [steps(count) / count for _ in range(3)]
    return {
        "ms": 1e3 * float(np.median(times)),
        "first": first,
        "mebibytes": peak_mebibytes() - before,
    }


def measured_apart(sizes: dict[str, int]) -> dict[str, float]:
    """Runs `measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps(sizes)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"\n{sizes}: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def plot(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, len(AXES), sharey="row", squeeze=False)
    for column, name in enumerate(AXES):
        points = [(sizes[name], got) for axis, sizes, got in rows if axis == name]
        for row, field in enumerate(("ms", "mebibytes")):
            panel, x = axes[row][column], [size for size, _ in points]
            panel.plot(x, [got[field] for _, got in points], "o-")
            panel.set_xscale("log")
            panel.set_xticks(x, [f"{size}" for size in x])
            panel.set_xticks([], minor=True)
            panel.grid(alpha=0.3)
        axes[0][column].set_yscale("log")
        axes[0][column].yaxis.set_major_formatter("{x:g}")
        axes[1][column].set_xlabel("dimensions" if name == "size" else name)
    axes[1][0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("milliseconds a step")
    axes[1][0].set_ylabel("MiB")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--plot", help="where to write a picture")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(**json.loads(arguments.measure))))
        return
    points = [
        (axis, {**_BASE, axis: value})
        for axis, values in AXES.items()
        for value in values
    ]
    points.append(("", {**_BASE, **_LARGEST}))
    table = Table(box=box.SIMPLE)
    for name in (*_BASE, "examples", "ms a step", "us an example", "MiB", "first, s"):
        table.add_column(name, justify="right")
    rows = []
    for axis, sizes in points:
        got = measured_apart(sizes)
        rows.append((axis, sizes, got))
        examples = sizes["tasks"] * sizes["way"] * (sizes["shot"] + _NUM_QUERY)
        table.add_row(
            *map(str, sizes.values()),
            f"{examples:,}",
            f"{got['ms']:,.1f}",
            f"{1e3 * got['ms'] / examples:,.1f}",
            f"{got['mebibytes']:,.0f}",
            f"{got['first']:.1f}",
        )
        print(f"\r{len(rows)} of {len(points)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    Console(width=100).print(table)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
