"""Trainings on two replicas, for processes of their own: devices and workers must be
set up before TensorFlow starts. Tests look at what these leave in a directory.

    python replica_jobs.py steps|devices|worker DIRECTORY FLAG...
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import tensorflow as tf
from tiny_cases import D, K, N, make_episode, make_leo

from leo_tf.cli import main as command_line
from leo_tf.configs.schema import Config
from leo_tf.embedding import pretraining
from leo_tf.methods.inductive.maml import MAML
from leo_tf.training.meta_step import adam
from leo_tf.training.replicas import Replicas, make_meta_step, mirrored, start

ROOT = pathlib.Path(__file__).parents[2]
TIME_LIMIT = 480.0  # on a loaded machine; seconds
STEPS, SPOILED_STEP, SPOILED_TASK = 5, 3, 4  # the second replica's
CASES = {  # type, method, whether compiled
    "float32": ("float32", "leo", False),
    "quick": ("float64", "leo_without_inner_loop", False),
    "compiled": ("float64", "leo", True),
    "maml": ("float64", "maml", False),
}
RECIPE = pretraining.Recipe(
    10, 1, 8, epochs=2, batch_size=24, learning_rate=0.05, dropout_rate=0.0
)
# What sums and zeros could spoil.
NUMBERS = np.array([[0.0, -0.0, np.nan], [1e-300, -np.inf, 0.1]])


def train_steps(replicas: Replicas, dtype, method, jit) -> dict[str, np.ndarray]:
    """All variables and metrics after five steps; one is non-finite for one task."""
    with replicas.scope():
        learner = make_leo(dtype, inner_unroll_length=int(method == "leo"))
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
        for copy in getattr(variable.value, "values", ()):  # one per replica
            np.testing.assert_array_equal(copy.numpy(), variable.numpy())
    return values


def use_two_devices() -> None:
    [cpu] = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)


def few_steps(directory: pathlib.Path, flags: list[str], cases=("quick",)):
    """Two logical CPUs make single steps."""
    use_two_devices()
    replicas = start(Config().replace(strategy="mirrored"), say=print)
    for case in cases:
        np.savez(directory / f"{case}.npz", **train_steps(replicas, *CASES[case]))


def on_two_devices(directory: pathlib.Path, flags: list[str]):
    """Two logical CPUs: other kinds of steps, and the whole program."""
    few_steps(directory, flags, cases=("maml", "float32", "compiled"))
    flags = [*flags, "--strategy=mirrored"]
    train(directory, "whole", flags)
    train(directory, "parts", [*flags, "--num_steps=7"])
    train(directory, "parts", flags)
    train(directory, "odd", [*flags, "--meta_batch_size=3"], expected=2)


def pretrain_on_two_devices(directory: pathlib.Path, flags: list[str]):
    """Two logical CPUs pre-train a backbone, at once and in two parts."""
    use_two_devices()
    strategy = mirrored(say=print).strategy
    pretraining.pretrain(*pictures(46), RECIPE, directory / "whole", strategy=strategy)
    pretraining.pretrain(*pictures(53), RECIPE, directory / "odd", strategy=strategy)
    save = pretraining._Follow.on_epoch_end

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    for function in save_and_stop, save:
        pretraining._Follow.on_epoch_end = function
        with contextlib.suppress(KeyboardInterrupt):
            parts = *pictures(46), RECIPE, directory / "parts"
            pretraining.pretrain(*parts, strategy=strategy)


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures of two classes, bright at the top or at the bottom."""
    random, labels = np.random.default_rng(0), np.arange(count) % 2
    drawn = random.integers(0, 80, (count, 8, 8, 3))
    drawn[labels == 0, :4] += 120
    drawn[labels == 1, 4:] += 120
    return drawn.astype(np.uint8), labels


def as_worker(directory: pathlib.Path, flags: list[str]):
    """One of two workers; the second one is stopped, and at last dies."""
    number = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    chief = directory / "worker 0"
    directory /= f"worker {number}"  # its own: only the chief's is to be used
    directory.mkdir()

    def second(action, run):
        if number == 1:
            threading.Thread(target=when_saved, args=(chief / run, action)).start()

    workers = start(Config().replace(strategy="multi_worker"), say=print).workers
    given = NUMBERS if workers.is_chief else np.ones_like(NUMBERS)
    np.save(directory / "numbers.npy", workers.from_chief(given))
    if os.path.exists("/proc/self/status"):
        shutil.copy("/proc/self/status", directory / "process")
    flags = [*flags, "--strategy=multi_worker"]
    train(directory, "whole", flags)
    train(directory, "parts", [*flags, "--num_steps=7"])
    train(directory, "parts", flags)
    train(directory, "other flags", [*flags, f"--seed={number}"], expected=2)
    endless = [*flags, "--num_steps=1000000"]
    second(lambda: os.kill(os.getpid(), signal.SIGTERM), "stopped")
    train(directory, "stopped", endless, expected=143)
    second(lambda: os._exit(9), "left")
    train(directory, "left", endless, expected=7)


def train(directory: pathlib.Path, run: str, flags: list[str], expected: int = 0):
    """Runs the program and notes its status.

    An unexpected status ends the job, so that the other worker does not wait.
    """
    where = f"--workdir={directory / run}"
    status = command_line.main(["run_leo.py", *flags, where, "--quiet"])
    notes = directory / "statuses.json"
    statuses = json.loads(notes.read_text()) if notes.exists() else {}
    notes.write_text(json.dumps({**statuses, run: status}))
    if status != expected:
        sys.exit(f"{run}: {status}")


def when_saved(workdir: pathlib.Path, action):
    """Does something soon after the checkpoint of step 5."""
    while not (workdir / "checkpoints" / "step-00000005").exists():
        time.sleep(0.02)
    action()


def start_job(job: str, directory: pathlib.Path, flags, **environment):
    """Starts `replica_jobs.py` in a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    with (directory / f"errors{len(list(directory.iterdir()))}").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, __file__, job, str(directory), *flags],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def finished(directory: pathlib.Path, processes) -> pathlib.Path:
    """Returns the directory of a job's results once its processes have ended."""
    try:
        for process in processes:
            process.wait(TIME_LIMIT)
    finally:
        for process in processes:
            process.kill()
    return directory


def assert_steps_equal(directory: pathlib.Path, case: str, tolerance: float):
    """Compares what two devices left of a case with what one device computes."""
    dtype, method, _ = CASES[case]
    mine = train_steps(Replicas(), dtype, method, jit=False)
    theirs = np.load(directory / f"{case}.npz")
    assert set(theirs.files) == set(mine) and len(mine) > 20
    spoiled = [n for n in mine if n.startswith("non_finite of") and mine[n]]
    assert spoiled == ["non_finite of step 3"]
    for name, value in mine.items():
        scale = np.max(np.abs(value))
        limit = tolerance * scale if np.isfinite(scale) else 0.0
        np.testing.assert_allclose(
            theirs[name], value, rtol=tolerance, atol=limit, err_msg=name
        )


if __name__ == "__main__":
    jobs = {"steps": few_steps, "devices": on_two_devices, "worker": as_worker}
    jobs["pretrain"] = pretrain_on_two_devices
    jobs[sys.argv[1]](pathlib.Path(sys.argv[2]), sys.argv[3:])
