"""Trainings on two replicas, for processes of their own: devices and workers must be
set up before TensorFlow starts. Tests look at what these leave in a directory.

    python replica_jobs.py devices|worker DIRECTORY FLAG...
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import numpy as np
import tensorflow as tf
from tiny_cases import D, K, N, make_episode, make_leo

from configs.schema import Config
from leo_tf import command_line
from leo_tf.baselines.maml import MAML
from leo_tf.distribute import Replicas, make_meta_step, start
from leo_tf.meta_step import adam

STEPS, SPOILED_STEP, SPOILED_TASK = 5, 3, 4  # the second replica's
CASES = {  # type, method, whether compiled
    "float32": ("float32", "leo", False),
    "float64": ("float64", "leo", False),
    "compiled": ("float64", "leo", True),
    "maml": ("float64", "maml", False),
}
# What sums and zeros could spoil.
NUMBERS = np.array([[0.0, -0.0, np.nan], [1e-300, -np.inf, 0.1]])


def train_steps(replicas: Replicas, dtype, method, jit) -> dict[str, np.ndarray]:
    """All variables and metrics after five steps; one is not finite for one task."""
    with replicas.scope():
        learner = make_leo(dtype, inner_unroll_length=1)
        if method == "maml":
            learner = MAML(N, dtype=dtype)
            learner.build([None, N, K, D])
        optimizer = adam(0.01)
    thresholds = {"gradient_threshold": 0.1, "gradient_norm_threshold": 0.1}
    meta_step = make_meta_step(replicas, learner, optimizer, jit=jit, **thresholds)
    values = {}
    for step in range(STEPS):
        episode = make_episode(step, dtype=dtype)
        if step == SPOILED_STEP:
            support = episode.support_inputs.numpy()
            support[SPOILED_TASK, 2, 0, 3] = np.nan
            episode = episode._replace(support_inputs=tf.constant(support))
        numbers = (tf.constant(number, tf.int64) for number in (7, step))
        for name, metric in meta_step(episode, *numbers).items():
            values[f"{name} of step {step}"] = metric.numpy()
    for variable in [*learner.trainable_variables, *optimizer.variables]:
        values[variable.path] = variable.numpy()
        for copy in getattr(variable.value, "values", ()):  # one a replica
            np.testing.assert_array_equal(copy.numpy(), variable.numpy())
    return values


def on_two_devices(directory: pathlib.Path, flags: list[str]):
    """Two logical CPUs: single steps, and the whole program."""
    [cpu] = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    replicas = start(Config().replace(strategy="mirrored"), tell=print)
    for name, case in CASES.items():
        np.savez(directory / f"{name}.npz", **train_steps(replicas, *case))
    flags = [*flags, "--strategy=mirrored"]
    statuses = {
        "whole": train(directory / "whole", flags),
        "first part": train(directory / "parts", [*flags, "--num_steps=7"]),
        "second part": train(directory / "parts", flags),
        "odd": train(directory / "odd", [*flags, "--meta_batch_size=3"]),
    }
    (directory / "statuses.json").write_text(json.dumps(statuses))


def as_worker(directory: pathlib.Path, flags: list[str]):
    """One of two workers; the second one is stopped, and at last dies."""
    flags = [*flags, "--strategy=multi_worker"]
    endless = [*flags, "--num_steps=1000000"]
    number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    # A directory of its own, which only the chief is to make.
    directory = directory / f"worker {number}"
    directory.mkdir()
    chief = directory.parent / "worker 0"
    workers = start(Config().replace(strategy="multi_worker"), tell=print).workers
    given = NUMBERS if number == 0 else np.ones_like(NUMBERS)
    np.save(directory / "numbers.npy", workers.from_chief(given))

    def second(action, workdir):
        if number == 1:
            threading.Thread(target=when_saved, args=(chief / workdir, action)).start()

    statuses = {
        "whole": train(directory / "whole", flags),
        "first part": train(directory / "parts", [*flags, "--num_steps=7"]),
        "second part": train(directory / "parts", flags),
    }
    seed = f"--seed={number}"  # not the same on both
    statuses["other flags"] = train(directory / "other", [*flags, seed])
    second(lambda: os.kill(os.getpid(), signal.SIGTERM), "stopped")
    statuses["stopped"] = train(directory / "stopped", endless)
    (directory / "statuses.json").write_text(json.dumps(statuses))
    second(lambda: os._exit(9), "left")
    statuses["left"] = train(directory / "left", endless)
    (directory / "statuses.json").write_text(json.dumps(statuses))


def train(workdir: pathlib.Path, flags: list[str]) -> int:
    return command_line.main(["run_leo.py", *flags, f"--workdir={workdir}", "--quiet"])


def when_saved(workdir: pathlib.Path, action):
    """Does something soon after the checkpoint of step 5."""
    while not (workdir / "checkpoints" / "step-00000005").exists():
        time.sleep(0.02)
    action()


if __name__ == "__main__":
    jobs = {"devices": on_two_devices, "worker": as_worker}
    jobs[sys.argv[1]](pathlib.Path(sys.argv[2]), sys.argv[3:])
