"""Small file systems that fill up or are read-only, and unusual paths."""

import contextlib
import os
import pathlib
import shutil
import subprocess

import pytest
import saved_runs
from toy_training import Line, run

from leo_tf.errors import DiskError


@pytest.fixture
def mounted(tmp_path):
    """Function from a size to a directory that is a file system of its own."""
    mounts = []

    def mount(size: str) -> pathlib.Path:
        directory = tmp_path / f"mounted {len(mounts)}"
        directory.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        done = subprocess.run(
            ["mount", *options, directory], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is for root: {done.stderr.strip()}")
        mounts.append(directory)
        return directory

    if not shutil.which("mount"):
        pytest.skip("there is no `mount`")
    yield mount
    for directory in mounts:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: pathlib.Path) -> pathlib.Path:
    """Fills the file system to the last byte."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(directory).free == 0
    return filler


def outcome(trainer) -> dict:
    workdir = trainer.checkpoints.directory.parent
    return saved_runs.outcome(workdir, trainer.state.step)


def test_a_disk_that_fills_up_costs_checkpoints_and_then_ends_the_run(
    make_trainer, mounted
):
    disk = mounted("4m")

    def full_from_10_on(step):
        if step == 10:
            fill(disk)

    line = Line()
    trainer = make_trainer(disk / "run", validating=full_from_10_on)
    with pytest.raises(DiskError, match=r"No space left on device.*; 0 MiB free"):
        run(trainer, line)
    assert trainer.state.step == 12, "training went on after the first"
    [note] = [note for note in line.notes if note.startswith("not saved")]
    assert "step-00000010" in note and "0 MiB free" in note
    names = {path.name for path in trainer.checkpoints.directory.iterdir()}
    assert names == {"step-00000005"}, "nothing half-written is left"
    (disk / "filler").unlink()
    resumed = make_trainer(disk / "run")
    assert resumed.state.step == 5
    assert outcome(run(resumed)) == outcome(run(make_trainer("whole")))


def test_space_that_is_free_again_is_used_at_the_next_validation(make_trainer, mounted):
    disk = mounted("4m")

    def full_at_10(step):
        if step == 10:
            fill(disk)
        if step == 12:
            (disk / "filler").unlink()

    trainer = run(make_trainer(disk / "run", validating=full_at_10))
    assert trainer.checkpoints.newest(pytest.fail).step == 12
    assert not trainer.checkpoints.has(10)
    # Step 10 may have been better, but it is lost.
    assert trainer.checkpoints.best().step in (5, 12)


def test_a_full_disk_is_one_line_and_status_5(train, mounted, capsys):
    disk = mounted("1m")
    fill(disk)
    assert train(disk / "run", "--quiet") == 5
    error = capsys.readouterr().err
    assert error.startswith(f"error: {disk / 'run'}") and error.count("\n") == 1
    assert "No space left on device" in error


def test_what_cannot_be_written_can_be_evaluated_and_not_trained(
    trained, train, evaluate, mounted, capsys
):
    disk = mounted("8m")
    workdir = pathlib.Path(shutil.copytree(trained, disk / "run"))
    before = saved_runs.listing(workdir)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert evaluate(workdir, "--quiet") == 0
    assert "accuracy" in capsys.readouterr().out
    assert train(workdir, "--quiet") == 5
    error = capsys.readouterr().err
    assert error.startswith(f"error: {workdir}") and error.count("\n") == 1
    assert "Read-only file system" in error
    assert saved_runs.listing(workdir) == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_directory_of_another_user_is_one_line_and_status_5(make_trainer, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    with pytest.raises(DiskError, match="Permission denied"):
        run(make_trainer(closed / "run"))


PATHS = {
    "unicode": "Läufe 試行 🎉 \u202e",
    "patterns": "a[b]*?{c,d}%20 %s",
    "a shell's": " '\"$(x)`;&|<>#~!\\ ",
    "a line's end": "a\nb\tc",
    "dashes": "--mode=evaluate",
    "long": "x" * 255,
    "deep": "/".join(["y" * 200] * 16),
}


@pytest.mark.parametrize("name", PATHS.values(), ids=PATHS)
def test_any_path_will_do(make_trainer, name):
    trainer = run(make_trainer(name, num_steps=6, validate_every=3))
    again = make_trainer(name, num_steps=6, validate_every=3)
    assert again.state == trainer.state and again.state.step == 6
    kernel = trainer.learner.kernel.numpy()
    assert again.learner.kernel.numpy().tobytes() == kernel.tobytes()
    assert trainer.checkpoints.best().step in (3, 6)


def test_a_path_too_long_for_the_system_is_status_3(train, tmp_path, capsys):
    assert train(tmp_path / ("z" * 256), "--quiet") == 3
    assert "File name too long" in capsys.readouterr().err


def test_a_path_of_bytes_that_are_no_characters_is_status_2(train, tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    assert train(path, "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: --workdir: expected a path on this machine, in UTF-8"
    )
    assert not path.exists()
