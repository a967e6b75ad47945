"""Whole jobs in worker processes: equal to the last digit for any number of them."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[4]
SLOW, LONG = pytest.mark.slow, pytest.mark.long
# XLA is on, so that compiled programs are shared.
_STEPS = "--num_steps=40", "--validate_every=20", "--jit=on", "--quiet"


@pytest.fixture(scope="module")
def start(small_flags):
    """Returns a function that starts a job in a new process."""

    def start(workdir, *flags) -> subprocess.Popen:
        given = [*small_flags, *_STEPS, f"--workdir={workdir}", *flags]
        command = [sys.executable, str(ROOT / "run_leo.py"), *given]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    return start


def done(process: subprocess.Popen) -> tuple[int, str]:
    """Waits for a process. Returns its exit status and output."""
    said = process.communicate(timeout=600)[1]
    return process.returncode, said


def table(workdir: pathlib.Path):
    """Returns the results of a job without times."""

    def kept(value):
        if isinstance(value, dict):
            pairs = value.items()
            return {k: kept(v) for k, v in pairs if not k.startswith("seconds")}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return kept(json.loads((workdir / "results.json").read_text()))


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(flags, id=flags[0], marks=mark)
        for mark, *flags in (
            (SLOW, "--mode=compare", "--methods=ridge@lda,leo,generator,protonet"),
            (LONG, "--mode=reproduce", "--seeds=2"),  # it shares what it has mapped
            (SLOW, "--mode=search", "--methods=maml", "--trials=4", "--rungs=2"),
        )
    ],
)
def test_two_at_a_time_come_to_what_one_does(start, tmp_path, flags):
    if flags[0] == "--mode=search":
        pytest.importorskip("optuna")
    for jobs in (1, 2):
        status, said = done(start(tmp_path / str(jobs), *flags, f"--jobs={jobs}"))
        assert status == 0, said
    assert table(tmp_path / "1") == table(tmp_path / "2")
    assert not (tmp_path / "2" / "shared").exists()


@SLOW
def test_folds_are_trained_together_and_come_to_the_same(start, tmp_path):
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(12, 8)), 12, axis=0)
    features = np.float32(centres + 0.7 * random.normal(size=centres.shape))
    np.savez(tmp_path / "all.npz", X=features, y=np.repeat(range(12), 12))
    flags = "--mode=compare", "--methods=ridge@soft,leo", "--class_folds=3"
    flags += (f"--data_path={tmp_path}/all.npz",)
    for jobs in (1, 2):
        status, said = done(start(tmp_path / str(jobs), *flags, f"--jobs={jobs}"))
        assert status == 0, said
    assert table(tmp_path / "1") == table(tmp_path / "2")
    folds = [table(tmp_path / str(jobs) / "fold_2") for jobs in (1, 2)]
    assert folds[0] == folds[1]


@SLOW
def test_a_run_that_cannot_begin_is_named_and_the_others_are_trained(start, tmp_path):
    job = tmp_path / "job"
    lock = job / "leo" / ".lock"
    lock.parent.mkdir(parents=True)
    lock.symlink_to("elsewhere")
    flags = "--mode=compare", "--methods=leo,generator", "--jobs=2"
    status, said = done(start(job, *flags))
    assert status == 3 and f"error: {lock}: expected a regular file" in said
    assert (job / "generator" / "checkpoints" / "step-00000040").is_dir()
    lock.unlink()
    assert done(start(job, *flags))[0] == 0


@SLOW
def test_a_second_command_is_told_while_the_first_one_trains(start, tmp_path):
    flags = "--mode=compare", "--methods=leo,generator", "--jobs=2"
    first = start(tmp_path / "job", *flags)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "job" / "workers").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.05)
        status, said = done(start(tmp_path / "job", *flags))
        assert status == 3 and f"process {first.pid} on {os.uname().nodename}" in said
    finally:
        assert done(first)[0] == 0


@SLOW
def test_one_machine_is_a_cluster_too(start, tmp_path):
    pytest.importorskip("ray")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    node["node_ip_address"] = "127.0.0.1"
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        flags = "--mode=compare", "--methods=ridge@lda,leo"
        where = f"--cluster={cluster.address}"
        status, said = done(start(tmp_path / "ray", *flags, where))
        assert status == 0, said
        status, said = done(start(tmp_path / "none", *flags, where, "--run_cpus=99"))
        assert status == 2 and "error: --run_cpus: expected 1 or less" in said
    finally:
        cluster.shutdown()
    status, said = done(start(tmp_path / "here", *flags, "--jobs=1"))
    assert status == 0, said
    assert table(tmp_path / "ray") == table(tmp_path / "here")
