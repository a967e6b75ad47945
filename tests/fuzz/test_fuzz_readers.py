"""The fuzz target at work for a moment, and that it would tell of a mistake."""

import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).with_name("fuzz_readers.py")
PLANTED = """
import runpy, sys
from leo_tf.data_pipeline.release_pickle import reader as release_pickle
def loads(data, path=""):
    if b"cbuiltins" in data and len(data) % 7 == 3:
        raise KeyError("planted")
release_pickle.loads = loads
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fuzz(*arguments, code=None, **options) -> subprocess.CompletedProcess:
    start = ["-c", code] if code else []
    command = [sys.executable, *start, PROGRAM, "--engine=mutator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.parametrize("reader", ["pickle", "lengths", "config"])
def test_a_moment_of_fuzzing_finds_nothing_but_our_error(reader, tmp_path):
    done = fuzz(f"--reader={reader}", "--seconds=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " refused" in done.stdout and " read" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_another_error_ends_it_and_the_input_is_kept(tmp_path):
    root = str(PROGRAM.parents[2])
    done = fuzz(
        "--reader=pickle",
        "--seconds=60",
        code=PLANTED,
        cwd=tmp_path,
        env={"PYTHONPATH": root},
    )
    assert done.returncode == 1 and "KeyError: 'planted'" in done.stderr
    [kept] = tmp_path.iterdir()
    content = kept.read_bytes()
    assert b"cbuiltins" in content and len(content) % 7 == 3
