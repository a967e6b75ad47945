"""Measures test episodes evaluated per second. Needs no data.

    python benchmarks/evaluation_speed.py

The published protocol: 5-way, all 600 - K other examples of a class as queries, 640
dimensions, 20 classes. "episodes/s" is a whole evaluation, from rows to accuracies;
"supply only" makes the same batches and drops them. "floor" is the CPU time that an
episode's matrix products (its inner loops and its queries' scores) would take at the
rate at which this machine multiplies two matrices of 1,024 x 1,024, measured in the
same run. Memory is the most that the process held, less what it held before the first
episode: it must not grow with the number of episodes.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tensorflow as tf
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.meta_step import MULTIPLY_FLOPS, multiply, product_flops
from benchmarks.synthetic import feature_table, peak_mebibytes
from leo_tf.configs.presets import PRESETS
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.evaluation.evaluate import collect, make_scorer
from leo_tf.model.leo import LEO

_CLASSES, _ROWS, _SIZE = 20, 600, 640
_MULTIPLICATIONS = 20


def synthetic_split() -> Split:
    features = feature_table(_CLASSES, _ROWS, _SIZE)
    return Split("test", features, features.index.class_names, None, "", "synthetic")


def floor_of(leo, config) -> float:
    """Returns the CPU ms that an episode's matrix products take at least."""
    way, shot = config.episodes.evaluation_way, config.episodes.evaluation_shot
    labels = tf.repeat(tf.range(way)[None, :, None], shot, axis=2)
    support = tf.random.normal([1, way, shot, _SIZE])
    flops = product_flops(lambda *given: leo.adapt(*given).classifier, support, labels)
    flops += 2 * way * (_ROWS - shot) * way * _SIZE  # queries' scores
    run = multiply()
    run(2)
    start = time.process_time()
    run(_MULTIPLICATIONS)
    spent = time.process_time() - start
    return 1e3 * spent * flops / (MULTIPLY_FLOPS * _MULTIPLICATIONS)


def measured(config, split, count) -> dict[str, float]:
    """Returns seconds of an evaluation, of its supply alone, and CPU ms per episode."""
    leo = LEO(config.model)
    leo.build([None, None, None, split.embedding_size])
    scorer = make_scorer({"LEO": leo}, split.table)
    warm = datasets.evaluation_episodes(config, split, count).rows.take(1)
    collect(scorer, warm)
    before, cpu, start = peak_mebibytes(), time.process_time(), time.perf_counter()
    collect(scorer, datasets.evaluation_episodes(config, split, count).rows)
    whole = time.perf_counter() - start
    cpu = time.process_time() - cpu
    grown = peak_mebibytes() - before
    start = time.perf_counter()
    for _ in datasets.evaluation_episodes(config, split, count).rows:
        pass
    supply = time.perf_counter() - start
    each, least = 1e3 * cpu / count, floor_of(leo, config)
    return {
        "episodes/s": count / whole,
        "supply only": count / supply,
        "CPU-ms an episode": each,
        "floor": least,
        "ratio": each / least,
        "memory grown, MiB": grown,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    split, table = synthetic_split(), Table(box=box.SIMPLE)
    for column in ("shot", "episodes"):
        table.add_column(column, justify="right")
    rows = []
    for _ in range(arguments.rounds):
        for shot, preset in ((1, "mini_1shot"), (5, "mini_5shot")):
            config = PRESETS[preset].config()
            for count in arguments.episodes:
                rows.append((shot, count, measured(config, split, count)))
    for name in rows[0][2]:
        table.add_column(name, justify="right")
    for shot, count, figures in rows:
        table.add_row(str(shot), str(count), *(f"{x:,.2f}" for x in figures.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
