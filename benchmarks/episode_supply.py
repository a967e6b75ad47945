"""Measures episodes per second from the data pipeline. Needs no data.

    taskset -c 0 python benchmarks/episode_supply.py

"rows/s" is the sampler alone, "episodes/s" the whole pipeline, features gathered;
both run through tf.data in batches. "CPU us" is what the whole pipeline costs for one
episode, which a busy machine changes less. The tables are random, their classes of
equal size; making the largest takes 3.5 GB for a moment.
"""

import argparse
import os
import pathlib
import sys
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import tensorflow as tf
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic import feature_table
from leo_tf.data_pipeline.pipeline import FeatureTable, episodes
from leo_tf.data_pipeline.sampler import RowSampler

_SEED = 0
_WARM_UP_BATCHES = 5


class Setup(NamedTuple):
    name: str
    classes: int
    rows_per_class: int
    way: int
    shot: int
    num_query: int
    batch_size: int
    embedding_size: int


# Sizes of the splits behind the paper's numbers (arXiv:1807.05960, section 4.2).
SETUPS = (
    Setup("mini train", 64, 600, 5, 1, 15, 12, 640),
    Setup("mini train", 64, 600, 5, 5, 15, 12, 640),
    Setup("mini test", 20, 600, 5, 1, 599, 10, 640),
    Setup("tiered train", 351, 1300, 5, 1, 15, 12, 640),
    Setup("many classes", 1000, 1300, 5, 1, 15, 12, 64),
)


def rows_only(table: FeatureTable, setup: Setup, options: dict) -> tf.data.Dataset:
    sampler = RowSampler(table.index, **options)
    size = setup.batch_size
    firsts = tf.data.Dataset.range(0, 2**40, size)
    return firsts.map(lambda first: sampler(first, size)).prefetch(2)


def time_supply(
    dataset: tf.data.Dataset, batch_size: int, seconds: float
) -> tuple[float, float]:
    """Returns episodes per second and CPU seconds per episode."""
    iterator = iter(dataset)
    for _ in range(_WARM_UP_BATCHES):
        next(iterator)
    batches, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(iterator)
        batches += 1
    supplied = batches * batch_size
    cpu_seconds = time.process_time() - cpu_start
    return supplied / (time.perf_counter() - start), cpu_seconds / supplied


def measure(setup: Setup, seconds: float) -> list[str]:
    """The three measured cells of a row."""
    table = feature_table(setup.classes, setup.rows_per_class, setup.embedding_size)
    options = dict(
        way=setup.way,
        shot=setup.shot,
        num_query=setup.num_query,
        seed=_SEED,
        split="train",
    )
    size = setup.batch_size
    rows = rows_only(table, setup, options)
    rows_speed, _ = time_supply(rows, size, seconds)
    whole = episodes(table, batch_size=size, **options)
    speed, cpu = time_supply(whole, size, seconds)
    return [f"{rows_speed:,.0f}", f"{speed:,.0f}", f"{cpu * 1e6:,.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each timing")
    args = parser.parse_args()
    table = Table(title="Episodes per second", box=box.SIMPLE)
    table.add_column("setup")
    for column in ("N", "K", "Q", "B", "D", "rows/s", "episodes/s", "CPU us"):
        table.add_column(column, justify="right")
    for setup in SETUPS:
        name = f"{setup.name}, {setup.classes} x {setup.rows_per_class}"
        shape = [str(number) for number in setup[3:]]
        table.add_row(name, *shape, *measure(setup, args.seconds))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
