"""Tests that a full disk ends embedding and pre-training with an error, not a signal.

Linux ends a process that writes to a mapped file for which the disk has no room, and
HDF5 crashes. So the disk is a real one: a small file system in memory.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
MOUNTED = 'mount -t tmpfs -o size=$0k none "$1" && cd "$1" && shift && exec "$@"'
CLASSES, PICTURES = 30, 10


def on_a_disk(kilobytes, directory, *command) -> subprocess.CompletedProcess:
    """Runs a command in `directory`, with a file system of that size mounted there."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mounted = [*namespace, "sh", "-c", MOUNTED, str(kilobytes), str(directory)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [*mounted, *command], env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> pathlib.Path:
    there = tmp_path_factory.mktemp("disk")
    if not shutil.which("unshare") or on_a_disk(100, there, "true").returncode:
        pytest.skip("no file system can be mounted here")
    found = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(CLASSES):
        (found / f"class{number:02d}").mkdir()
        pixels = random.integers(0, 256, [PICTURES, 16, 16, 3]).astype(np.uint8)
        for index, picture in enumerate(pixels):
            Image.fromarray(picture).save(found / f"class{number:02d}/{index}.png")
    return found


EMBED = "--mode=embed", "--backbone=hog", "--features_dir=f"
PRETRAIN = (
    *("--mode=pretrain", "--backbone=wrn_10_1", "--image_size=32"),
    *("--pretrain_epochs=2", "--workdir=run"),
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "kilobytes", "file"),
    [
        (EMBED, 1000, "f/.part/train.npy"),  # after 770 kB of features
        (PRETRAIN, 300, "run/pictures.npy"),
        (PRETRAIN, 1000, "run/state.1.npz"),  # after 750 kB of pictures
    ],
)
def test_a_full_disk_is_an_error_that_names_the_file(
    pictures, tmp_path, flags, kilobytes, file
):
    run = ROOT / "run_leo.py"
    given = f"--images={pictures}", "--class_split=0.6,0.2,0.2", *flags
    done = on_a_disk(kilobytes, tmp_path, sys.executable, run, *given)
    said = f"error: {file}: expected to write a file, received [Errno 28]"
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[-1].startswith(said)
