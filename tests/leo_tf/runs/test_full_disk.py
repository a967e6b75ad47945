"""Checkpoints on a full or failing disk: an error, and no partial files."""

import errno
import itertools
import os
import pathlib
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from saved_runs import listing

from leo_tf.errors import DiskError
from leo_tf.runs.checkpoints import Checkpoints, write_file
from leo_tf.runs.variables import save_variables

VARIABLES = {"leo/kernel": tf.Variable([1.0, 2.0]), "adam/iteration": tf.Variable(3)}


def unexpected(message):
    pytest.fail(f"nothing should be skipped, yet: {message}")


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    """Checkpoints with steps 10 and 20."""
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, VARIABLES, {})
    return checkpoints


class FailingDisk:
    """Fails file operation number `first`, and if `forever` all later ones."""

    def __init__(self, monkeypatch, first: int, forever: bool):
        self.calls, self.first, self.forever = itertools.count(), first, forever
        self.failed = []
        for module, name in [
            (os, "mkdir"),
            (os, "fsync"),
            (os, "rename"),
            (os, "replace"),
            (pathlib.Path, "open"),
        ]:
            failing = self.wrapped(name, getattr(module, name))
            monkeypatch.setattr(module, name, failing)
            # Python 3.10's paths have kept the functions of os.
            if module is os and (kept := getattr(pathlib, "_normal_accessor", None)):
                monkeypatch.setattr(kept, name, failing, raising=False)

    def wrapped(self, name, operation):
        def fails_or_not(*arguments, **options):
            call = next(self.calls)
            if call == self.first or (self.forever and call > self.first):
                self.failed.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")
            return operation(*arguments, **options)

        return fails_or_not


def attempts(action, forever):
    """Runs `action` with a later failing operation each time, until none fails."""
    for first in range(100):
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FailingDisk(monkeypatch, first, forever)
            error = None
            try:
                action()
            except DiskError as raised:
                error = raised
        yield disk.failed, error
        if not disk.failed:
            return


@pytest.mark.parametrize("forever", [False, True])
def test_a_full_disk_is_a_disk_error_and_leaves_only_whole_checkpoints(
    checkpoints, forever
):
    before = listing(checkpoints.directory)
    new = checkpoints.directory / "step-00000030"
    failed = set()
    for failures, error in attempts(
        lambda: checkpoints.save(30, VARIABLES, {}), forever
    ):
        assert bool(error) == bool(failures)
        if failures:
            failed.add(failures[0])
            assert str(error).startswith(f"{new}: ") and "No space" in str(error)
        if new.exists():  # a failure after renaming must leave it whole
            assert checkpoints.newest(unexpected).step == 30
            shutil.rmtree(new)
        assert listing(checkpoints.directory) == before
    assert failed == {"mkdir", "open", "fsync", "rename"}


def test_tensorflow_failing_to_write_is_a_disk_error(checkpoints):
    before = listing(checkpoints.directory)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"large": tf.Variable(np.ones(100_000, np.float32))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DiskError, match="step-00000030"):
            checkpoints.save(30, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert listing(checkpoints.directory) == before


def test_what_tensorflow_fails_to_remove_is_a_disk_error_and_goes(
    checkpoints, monkeypatch
):
    before = listing(checkpoints.directory)

    def save_and_leave(directory, variables):
        save_variables(directory, variables)
        (directory / "variables_temp").mkdir()  # TensorFlow ignores a failed removal

    with monkeypatch.context() as patched:
        patched.setattr("leo_tf.runs.checkpoints.save_variables", save_and_leave)
        with pytest.raises(DiskError, match=r"step-00000030: .* not a regular file"):
            checkpoints.save(30, VARIABLES, {})
    assert listing(checkpoints.directory) == before
    checkpoints.save(30, VARIABLES, {})
    assert checkpoints.newest(unexpected).step == 30


@pytest.mark.parametrize("forever", [False, True])
def test_a_file_is_replaced_whole_or_keeps_its_old_content(tmp_path, forever):
    path = tmp_path / "best" / "checkpoint.json"
    write_file(path, b"old")
    failed = set()
    for failures, error in attempts(lambda: write_file(path, b"new"), forever):
        failed.update(failures[:1])
        if error:
            assert str(error).startswith(f"{path}: ") and "No space" in str(error)
        # The last flush, of the directory, fails after the file is in place.
        assert path.read_bytes() in ((b"old", b"new") if error else (b"new",))
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        write_file(path, b"old")
    assert failed == {"mkdir", "open", "fsync", "replace"}


def test_the_best_pointer_names_the_old_best_until_it_is_replaced(checkpoints):
    checkpoints.mark_best(10)
    with pytest.MonkeyPatch.context() as monkeypatch:

        def replace(*unused):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(pathlib.Path, "replace", replace)
        with pytest.raises(DiskError):
            checkpoints.mark_best(20)
    assert checkpoints.best().step == 10
    checkpoints.mark_best(20)
    assert checkpoints.best().step == 20
