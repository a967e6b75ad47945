"""Trains, is killed at random and resumes, again and again; and trains undisturbed.

    python killed_runs.py DIRECTORY SEED KILLS FLAG...

TensorFlow is imported once, before it has done anything; every run is in a process
forked from there. Prints JSON: how the runs ended and at which steps, then the step to
which both runs were trained in the end: `killed` and `whole` in the directory.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Callable

from leo_tf.cli.main import main
from leo_tf.runs.checkpoints import Checkpoints

_ENDLESS, _SECONDS = 1_000_000, 120
_LONGEST_DELAY = 1.5


def start(workdir: pathlib.Path, num_steps: int, flags: list[str]) -> int:
    """Trains in a new process; returns its id."""
    child = os.fork()
    if not child:
        status = 99
        try:
            signal.alarm(_SECONDS)
            steps = f"--num_steps={num_steps}"
            where = f"--workdir={workdir}"
            status = main(["run_leo.py", *flags, steps, where, "--quiet"])
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """Waits for a process; its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def newest_step(workdir: pathlib.Path) -> int:
    """Returns the step of the newest checkpoint, all of which must be whole."""

    def refuse(reason):
        raise AssertionError(reason)

    newest = Checkpoints(workdir).newest(refuse)
    return newest.step if newest else 0


def names(directory: pathlib.Path) -> set[str]:
    return {path.name for path in directory.glob("*")}


def moments(workdir: pathlib.Path) -> dict[str, Callable]:
    """Name -> whether the moment to kill has come, seen from outside."""
    checkpoints, pointer = workdir / "checkpoints", workdir / "best/checkpoint.json"
    before, best = names(checkpoints), pointer.exists() and pointer.read_bytes()

    def unfinished():
        return any(n.startswith("unfinished-") for n in names(checkpoints) - before)

    def saved():
        return any(n.startswith("step-") for n in names(checkpoints) - before)

    return {
        "while a checkpoint is written": unfinished,
        "when a checkpoint is saved": saved,
        "when there is a new best one": lambda: (
            pointer.exists() and pointer.read_bytes() != best
        ),
        "at any time": lambda: True,
    }


def kill_once(workdir: pathlib.Path, rng: random.Random, flags: list[str]) -> dict:
    """One start and its end."""
    before = newest_step(workdir)
    moment, has_come = rng.choice(sorted(moments(workdir).items()))
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    delay = rng.uniform(0, _LONGEST_DELAY) if rng.random() < 0.5 else 0.0
    child, deadline = start(workdir, _ENDLESS, flags), time.monotonic() + 20
    while not has_come() and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(delay + (rng.uniform(0, 4) if moment == "at any time" else 0))
    os.kill(child, number)
    status, after = ended(child), newest_step(workdir)
    assert after >= before, f"step {before} was lost: {after}"
    return {"moment": moment, "signal": number, "status": status, "step": after}


def run_chain(directory: pathlib.Path, seed: int, kills: int, flags: list[str]) -> dict:
    rng, killed, whole = random.Random(seed), directory / "killed", directory / "whole"
    chain = [kill_once(killed, rng, flags) for _ in range(kills)]
    goal = newest_step(killed) + 3
    statuses = [ended(start(workdir, goal, flags)) for workdir in (killed, whole)]
    return {"chain": chain, "goal": goal, "statuses": statuses}


if __name__ == "__main__":
    place, seed, kills, *flags = sys.argv[1:]
    print(json.dumps(run_chain(pathlib.Path(place), int(seed), int(kills), flags)))
