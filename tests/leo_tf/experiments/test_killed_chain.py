"""The chain from pictures to an export, killed in each of its stages."""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[3]
_FLAGS = (
    *("--way=2", "--shot=1", "--num_query=5", "--meta_batch_size=4"),
    *("--num_latents=4", "--num_steps=40", "--validate_every=10"),
    *("--num_val_episodes=20", "--num_test_episodes=20", "--jit=off"),
    *("--pretrain_epochs=3", "--image_size=16", "--class_split=0.6,0.2,0.2"),
)
_STAGES = ("backbone", "features", "comparison", "exported")
_SECONDS = 300


@pytest.mark.slow
def test_kills_at_random_in_every_stage_change_no_digit(tmp_path):
    pictures, draws = _pictures(tmp_path / "pictures"), random.Random(0)
    whole = _outcome(_ended(_start(pictures, tmp_path / "whole"), 0))
    kills = 0
    for stage in _STAGES:
        for _ in range(2):
            process = _start(pictures, tmp_path / "killed")
            kills += _killed_in(tmp_path / "killed" / stage, process, draws)
    assert kills >= len(_STAGES)  # a stage may end before its second kill
    assert _outcome(_ended(_start(pictures, tmp_path / "killed"), 0)) == whole


def _pictures(root: pathlib.Path) -> pathlib.Path:
    draws = np.random.default_rng(0)
    for name in range(10):
        colour = draws.integers(40, 215, 3)
        for i in range(20):
            path = root / f"class{name}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = draws.integers(-40, 40, (40, 40, 3))
            Image.fromarray(np.uint8(colour + noise)).save(path)
    return root


def _start(pictures, workdir):
    command = [sys.executable, ROOT / "run_leo.py", f"--images={pictures}", *_FLAGS]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.workdir = workdir
    return process


def _ended(process, status) -> pathlib.Path:
    _, printed = process.communicate(timeout=_SECONDS)
    assert process.returncode == status, printed
    return process.workdir


def _killed_in(directory, process, draws) -> bool:
    """Kills a moment after the stage writes something. Returns whether it ran still."""
    before, deadline = _written(directory), time.monotonic() + _SECONDS
    while _written(directory) <= before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(draws.uniform(0, 1.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def _written(directory: pathlib.Path) -> int:
    """Returns when something was last written there, in nanoseconds; 0 for never."""
    times = [0]
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            times.append(path.stat().st_mtime_ns)
    return max(times)


def _outcome(run: pathlib.Path) -> dict:
    """Returns all results of the chain except times."""
    pretrained = json.loads((run / "backbone" / "pretraining.json").read_text())
    features = {}
    for split in ("train", "val", "test"):
        with np.load(run / "features" / f"{split}.npz") as arrays:
            features |= {(split, n): arrays[n].tolist() for n in sorted(arrays)}
    table = json.loads((run / "comparison" / "results.json").read_text())
    exported = json.loads((run / "exported" / "1" / "export.json").read_text())
    told = {name: exported[name] for name in ("method", "step", "files")}
    del told["files"]["saved_model.pb"]  # graphs are not written alike twice
    assert len(list((run / "exported").iterdir())) == 1, "versions, or what a kill left"
    return {
        "pretrained": pretrained["results"],
        "features": features,
        "table": _timeless(table),
        "exported": told,
        "sources": (run / "features" / "sources.sha256").read_text(),
    }


def _timeless(value):
    if isinstance(value, dict):
        timed = re.compile("seconds|_ms|directory|workdir|path|source")
        return {k: _timeless(v) for k, v in value.items() if not timed.search(k)}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
