"""A run killed again and again ends bit for bit where an uninterrupted one ends."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import saved_runs

ROOT = pathlib.Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "tools" / "killed_runs.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "seed", "kills"),
    [
        ("generator", 1, 3),  # draws like LEO, and compiles faster
        ("leo", 2, 40),
    ],
)
def test_a_chain_of_kills_changes_nothing(small_flags, tmp_path, method, seed, kills):
    flags = [flag for flag in small_flags if not flag.startswith("--num_steps")]
    flags.append(f"--method={method}")
    command = [sys.executable, PROGRAM, tmp_path, str(seed), str(kills), *flags]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    chain, goal = found["chain"], found["goal"]
    print(collections.Counter((end["moment"], end["status"]) for end in chain), goal)
    # A signal before training has begun ends the process at once.
    stopped = {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}
    assert {end["status"] for end in chain} <= stopped
    assert found["statuses"] == [0, 0] and chain[-1]["step"] > 0
    assert results(tmp_path / "killed", goal) == results(tmp_path / "whole", goal)


def results(workdir, step) -> dict:
    """Returns all results of training and test."""
    tested = saved_runs.results_of(workdir)["accuracy"]
    return {**saved_runs.outcome(workdir, step), "test": tested}
