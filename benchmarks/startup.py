"""Measures the stages from the command to the first training step.

    python benchmarks/startup.py
    python benchmarks/startup.py --data_path=features.npz --cache=/tmp/xla

Every row is the median of several fresh processes, which take turns: seconds until the
interpreter runs and everything is imported, the data is loaded, the first step is made
(traced, and with jit compiled), and what a second step takes. With --cache, compiled
programs are kept in that directory by TensorFlow itself (see docs/performance.md), and
a row more shows what that saves; the first process fills it.
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

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

STAGES = ("import", "data", "first step", "all", "second step")


def stages(started: float, jit: str, data_path: str) -> dict[str, float]:
    """Returns seconds of each stage of this process, which began at `started`."""
    from leo_tf.environment import import_tensorflow

    import_tensorflow()  # as the command line does
    from leo_tf.configs.presets import PRESETS
    from leo_tf.data_pipeline import dataset as datasets

    imported = time.time()
    config = PRESETS["mini_1shot" if data_path else "glyphs"].config()
    if data_path:
        config = config.replace(data_path=data_path, train_on_val=False)
    split = datasets.load(config, ["train"])["train"]
    loaded = time.time()
    step = _step_function(config, split, jit)
    first, second = step(), step()
    return {
        "import": imported - started,
        "data": loaded - imported,
        "first step": first - loaded,
        "all": first - started,
        "second step": second - first,
    }


def _step_function(config, split, jit):
    """A function that makes a training step and tells when it was done."""
    import tensorflow as tf

    from leo_tf.data_pipeline import dataset as datasets
    from leo_tf.methods import registry as methods
    from leo_tf.training.meta_step import adam
    from leo_tf.training.replicas import Replicas, make_steps

    learner = methods.build(config, split.embedding_size)
    optimizer = adam(config.optimizer.outer_lr)
    run_steps = make_steps(Replicas(), learner, optimizer, config, jit == "on")
    iterator = iter(datasets.training_episodes(config, split, 0))

    def step() -> float:
        one = tf.constant(1, tf.int64)
        float(run_steps(iterator, one, one)["loss"])
        return time.time()

    return step


def run_apart(jit: str, data_path: str, cache: str) -> dict[str, float]:
    """Runs `stages` in a fresh process."""
    environment = dict(os.environ)
    if cache:
        environment["TF_XLA_FLAGS"] = (
            f"--tf_xla_persistent_cache_directory={cache} "
            "--tf_xla_persistent_cache_device_types=CPU"
        )
    arguments = json.dumps([time.time(), jit, data_path])
    command = [sys.executable, __file__, "--stages", arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", help=argparse.SUPPRESS)
    parser.add_argument("--data_path", default="", help="embeddings, or the embedded")
    parser.add_argument("--cache", default="", help="directory of compiled programs")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.stages:
        print(json.dumps(stages(*json.loads(arguments.stages))))
        return
    rows = {"--jit=off": ("off", ""), "--jit=on": ("on", "")}
    if arguments.cache:
        rows["--jit=on, cached"] = ("on", arguments.cache)
        run_apart("on", arguments.data_path, arguments.cache)
    times = {name: [] for name in rows}
    for _ in range(arguments.rounds):
        for name, (jit, cache) in rows.items():
            times[name].append(run_apart(jit, arguments.data_path, cache))
    table = Table("", box=box.SIMPLE)
    for stage in STAGES:
        table.add_column(f"{stage}, s", justify="right")
    for name, runs in times.items():
        medians = (np.median([run[stage] for run in runs]) for stage in STAGES)
        table.add_row(name, *(f"{median:.2f}" for median in medians))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
