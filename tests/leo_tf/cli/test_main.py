"""The command line as a user sees it: exit codes, one-line errors, signals."""

import csv
import errno
import os
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import fake_worker
import numpy as np
import pytest
import tensorflow as tf
from saved_runs import values_of

from leo_tf.cli import jobs, streams
from leo_tf.cli import main as command_line
from leo_tf.errors import CheckpointError, DiskError, FlagError, InputError
from leo_tf.experiments.runner import local
from leo_tf.monitoring.validation import ValidationMonitor

ROOT = pathlib.Path(__file__).parents[3]


def program(*arguments, **options) -> subprocess.Popen:
    """Starts run_leo.py like a shell."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    process = subprocess.Popen(
        [sys.executable, ROOT / "run_leo.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **options,
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _end_what_was_started():
    """Ends runs that a failed test has left behind."""
    yield
    while _started:
        _started.pop().kill()  # no effect if it has ended


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--way=1"], 2, "error: --way: expected an integer of 2 or more"),
        (["--unheard_of"], 2, "error: --unheard_of: expected a known flag"),
        (["--mode=evaluate"], 2, "error: --workdir: expected"),
        (["--data_path=/no/such"], 3, "error: /no/such: expected"),
        (["--mode=evaluate", "--workdir=/no/such"], 3, "error: /no/such: expected"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(
    arguments, status, error, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run_leo.py", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(error)


def test_a_directory_without_a_best_checkpoint_is_status_4(
    trained_copy, evaluate, capsys
):
    (trained_copy / "best" / "checkpoint.json").unlink()
    assert evaluate(trained_copy) == 4
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert captured.startswith(f"error: {trained_copy / 'best' / 'checkpoint.json'}")


def test_a_workdir_below_a_file_is_status_3(train, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file" / "run") == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file' / 'run'}: expected a directory")


@pytest.mark.usefixtures("quick_job")
def test_data_that_do_not_fit_are_refused_before_anything_is_made(
    train, tmp_path, tiny_data, capsys
):
    assert train(tmp_path / "run", "--test_way=7", "--quiet") == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tiny_data / 'tiny' / 'val.npz'}: classes")
    assert list(tmp_path.iterdir()) == []
    assert train(tmp_path / "run", "--num_steps=1", "--quiet") == 0, "mended flags"


@pytest.mark.parametrize(
    ("flags", "early"),
    [
        (("--jobs=2",), 2),
        (("--jobs=99",), 4),
        ((), 3),
        (("--run_cpus=2",), 1),
        (("--run_cpus=9",), 1),
        (("--jobs=0",), 0),
        (("--cluster=auto",), 0),
    ],
)
def test_workers_start_before_tensorflow_is_loaded_and_none_outlives_a_refusal(
    flags, early, tmp_path, monkeypatch, capsys, children
):
    def load(*unused):
        found.append(len(children()))
        return jobs.JOBS["compare"]

    found: list[int] = []
    monkeypatch.setattr(command_line, "_job", load)
    monkeypatch.setattr(local, "COMMAND", (sys.executable, fake_worker.__file__))
    monkeypatch.setattr(command_line, "cores", lambda: 3)
    # More ways than there are classes: the data are loaded before it is refused.
    given = "--mode=compare", f"--workdir={tmp_path}/job", "--way=600", *flags
    assert command_line.main(["run_leo.py", *given]) in (2, 3)
    assert "error: " in capsys.readouterr().err
    assert found == [early] and children() == []


@pytest.mark.parametrize(
    "error",
    [FlagError, InputError, CheckpointError, DiskError],
    ids=lambda e: e.__name__,
)
def test_every_error_of_ours_has_a_status_of_its_own(monkeypatch, capsys, error):
    def fails(options, console):
        raise error("here", "this", "that", "Do it.")

    monkeypatch.setitem(jobs.JOBS, "train", fails)
    status = {FlagError: 2, InputError: 3, CheckpointError: 4, DiskError: 5}[error]
    assert command_line.main(["run_leo.py"]) == status
    message = "error: here: expected this, received that. Do it.\n"
    assert capsys.readouterr().err == message


OOM = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\na tensor")
FULL = OSError(errno.ENOSPC, "No space left on device")
# Of a file, TensorFlow has the same error as of memory.
FULL_EVENTS = tf.errors.ResourceExhaustedError(
    None, None, "{{function_node _/job:x}} /a/events.v2; No space left on device"
)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError("Unable to allocate 9 TiB"), 3, "memory: expected enough"),
        (OOM, 3, r"memory: expected enough for this run, received 'OOM when alloc"),
        (FULL, 5, "standard output, or a file: expected to write here"),
        (OSError(errno.EIO, "bad", "/a/b"), 5, "/a/b: expected to write here"),
        (OSError(errno.EROFS, "bad", "/a/b"), 5, "/a/b: expected to write here"),
        (FULL_EVENTS, 5, "a file of TensorFlow: expected to write here, received /a/"),
    ],
)
def test_too_little_memory_or_disk_is_one_line(
    monkeypatch, capsys, error, status, said
):
    def fails(options, console):
        raise error

    monkeypatch.setitem(jobs.JOBS, "train", fails)
    assert command_line.main(["run_leo.py"]) == status
    captured = capsys.readouterr().err
    assert captured.startswith(f"error: {said}") and captured.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--way=x 2> /dev/full", 2),
        ("--way=x 2>&-", 2),
        ("--way=x --debug 2> /dev/full", 2),
        ("--help > /dev/full", 5),
        ("--help > /dev/full 2> /dev/full", 5),
        ("--help >&-", 0),
    ],
)
def test_streams_that_take_nothing_do_not_change_the_exit_status(arguments, status):
    command = f"{sys.executable} {ROOT / 'run_leo.py'} {arguments}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr == "" or (status == 5 and done.stderr.count("\n") == 1)


SMALL_RUN = "--method=generator", "--num_steps=4", "--log_every=1"


@pytest.fixture(scope="module")
def small_run(train, trained, tmp_path_factory):
    """A run of a generator, which is tested quickly. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("small") / "run"
    tf.config.run_functions_eagerly(True)
    try:
        assert train(workdir, *SMALL_RUN, "--quiet") == 0
    finally:
        tf.config.run_functions_eagerly(False)
    return workdir


def test_results_that_cannot_be_printed_are_status_5(
    small_run, evaluate, monkeypatch, capsys
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert evaluate(small_run, "--quiet") == 5
        monkeypatch.undo()
    captured = capsys.readouterr().err
    assert captured.startswith("error: standard output, or a file: expected")
    assert captured.count("\n") == 1


def test_where_messages_cannot_be_kept_they_are_shown(monkeypatch, capfd):
    def fails(name):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "memfd_create", fails)
    with streams.without_start_up_messages():
        os.write(2, b"a library's banner\n")
    assert capfd.readouterr().err == "a library's banner\n"


def test_debug_shows_the_traceback_before_the_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run_leo.py", "--debug", "--data_path=/no/such"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: /no/such: expected")
    assert command_line.main(["run_leo.py", "--way=1", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert command_line.main(["run_leo.py", "--nodebug", "--way=1"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_of_ours_is_not_dressed_up_as_the_users(monkeypatch):
    monkeypatch.setitem(jobs.JOBS, "train", lambda options, console: [][0])
    with pytest.raises(IndexError):
        command_line.main(["run_leo.py"])


def test_an_interrupt_outside_of_training_is_status_130(monkeypatch, capsys):
    def interrupted(options, console):
        raise KeyboardInterrupt

    monkeypatch.setitem(jobs.JOBS, "train", interrupted)
    assert command_line.main(["run_leo.py"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_without_arguments_it_reads_those_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leo-tf", "--way=1"])
    assert command_line.main() == 2
    assert capsys.readouterr().err.startswith("error: --way")


def test_the_script_and_the_console_command_are_the_same_main(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_leo.py", "--way=1"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "run_leo.py"), run_name="__main__")
    assert caught.value.code == 2
    assert '"leo-tf = leo_tf.cli.main:command"' in (ROOT / "setup.py").read_text()


def test_a_command_ends_after_its_exit_handlers_without_unloading_tensorflow():
    code = """
import atexit, sys, types
from leo_tf.cli import main
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
class Slow:
    def __del__(self, print=print): print("unloaded", flush=True)
main.slow = Slow()
def job():
    atexit.register(print, "handled")
    print("done")
    return int(sys.argv[1])
main.main = job
main.command()
"""
    for status, printed in ((0, "done handled"), (3, "done handled unloaded")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(status)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == status and done.stdout.split() == printed.split()


def test_a_command_ends_the_processes_of_scikit_learn():
    code = """
import sys, types
from joblib import Parallel, delayed
from leo_tf.cli import main
def compute():
    print(*Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(4)))
    return 0
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
main.main = compute
main.command()
"""
    # Waiting for them would take five minutes.
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "0 1 2 3\n"


def test_what_libraries_print_while_loading_is_hidden_unless_loading_fails(capfd):
    with streams.without_start_up_messages():
        os.write(2, b"a library's banner\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError), streams.without_start_up_messages():
        os.write(2, b"why it cannot be loaded\n")
        raise ImportError
    assert capfd.readouterr().err == "why it cannot be loaded\n"
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"


HELP = """
import runpy, sys
sys.argv = ["run_leo.py", sys.argv[1]]
try:
    runpy.run_path("run_leo.py", run_name="__main__")
finally:
    slow = ("tensorflow", "keras", "tensorflow_probability", "matplotlib", "numpy")
    print([name for name in slow if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--way=1", 2)])
def test_help_and_flag_errors_do_not_wait_for_tensorflow(flag, status):
    command = [sys.executable, "-c", HELP, flag]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == "[]"
    assert ("--data_path" in done.stdout) == (status == 0)


def wait_for(path: pathlib.Path, process):
    deadline = time.monotonic() + 180  # for a loaded machine
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        pytest.param(signal.SIGTERM, 128 + signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_from_the_shell_quiet_is_silent_and_an_ended_run_saved_what_another_comes_to(
    small_flags, tmp_path, monkeypatch, end, status
):
    monkeypatch.setattr(ValidationMonitor, "_show", lambda self, step: None)
    endless = [*small_flags, "--num_steps=1000000", "--keep_checkpoints=1000"]
    endless += ["--method=generator", "--quiet"]  # draws like LEO, compiles faster
    ended, earlier = tmp_path / "ended", tmp_path / "earlier"
    process = program(*endless, f"--workdir={ended}", cwd=tmp_path)
    wait_for(ended / "checkpoints" / "step-00000010", process)
    process.send_signal(end)
    out, errors = process.communicate()
    if tf.__version__ < "2.19":  # prints notes of XLA, whatever it is told
        errors = re.sub(r"(?m)^(WARNING: All log messages|I0000 ).*\n", "", errors)
    assert (out, errors, process.returncode) == ("", "", status)
    step = newest_step(ended)
    if end is signal.SIGTERM:
        assert events_reach(ended) >= step - 1, "a stop loses no event"
    shutil.copytree(ended, earlier)
    for path in (earlier / "checkpoints").iterdir():
        if path.name != "step-00000005":
            shutil.rmtree(path)
    # Resumed from an early step, the run reaches the same values.
    flags = [*endless, f"--num_steps={step}", f"--workdir={earlier}"]
    assert command_line.main(["run_leo.py", *flags]) == 0
    values = [values_of(workdir, step) for workdir in (ended, earlier)]
    assert len(values[0]) > 7
    for name in values[0]:
        np.testing.assert_array_equal(values[0][name], values[1][name], strict=True)


def newest_step(workdir) -> int:
    return max(int(path.name[5:]) for path in (workdir / "checkpoints").glob("step-*"))


def events_reach(workdir) -> int:
    """Returns the last step with an event."""
    [path] = (workdir / "events" / "train").iterdir()
    return max(event.step for event in tf.compat.v1.train.summary_iterator(str(path)))


# Starting a process takes seconds, so one tests all: it trains without TensorBoard and
# without a temporary directory (which TensorFlow's AutoGraph would need), and then
# evaluates without permission to write any file.
BARE = """
import os, resource, sys, tempfile
sys.modules["tensorboard"] = None
def none(): raise FileNotFoundError("no usable temporary directory")
tempfile._get_default_tempdir = none
from leo_tf.cli.main import main
workdir, *flags = sys.argv[1:]
assert main(["run_leo.py", f"--workdir={workdir}", *flags]) == 0
os.chdir(workdir)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print("evaluated:", flush=True)
sys.exit(main(["run_leo.py", "--mode=evaluate", "--workdir=.", "--quiet"]))
"""


@pytest.fixture(scope="module")
def bare(small_flags, tmp_path_factory):
    """Run directory and outcome of a process in hostile surroundings."""
    place = tmp_path_factory.mktemp("bare")
    (place / "matplotlibrc").write_bytes(b"\xff text.usetex: True")
    theirs = {
        "KERAS_BACKEND": "jax",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # from a notebook
        "MATPLOTLIBRC": str(place / "matplotlibrc"),
        "KERAS_HOME": str(place / "keras"),
        "KERAS_NNX_ENABLED": "1",
    }
    (place / "keras").mkdir()
    (place / "keras" / "keras.json").write_text('{"floatx": "float64"}')
    command = [sys.executable, "-c", BARE, place / "run", *small_flags, *SMALL_RUN]
    environment = {**os.environ, **theirs}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return place / "run", done


def test_neither_settings_of_others_nor_the_lack_of_a_temporary_directory_do_harm(
    bare, small_run
):
    workdir, done = bare
    assert done.returncode == 0, done.stderr
    assert (workdir / "learning_curve.png").exists()
    [loss, ours] = (history(run)["val_loss"] for run in (workdir, small_run))
    np.testing.assert_allclose(loss, ours, rtol=1e-4)


def test_without_tensorboard_a_run_warns_once_and_shows_nothing(bare):
    workdir, done = bare
    warnings = [line for line in done.stderr.splitlines() if "TensorBoard" in line]
    assert len(warnings) == 1 and "no more data from this run" in warnings[0]
    assert not list((workdir / "events").rglob("*tfevents*"))
    assert (workdir / "results.json").exists()
    assert (workdir / "checkpoints/step-00000004/manifest.json").exists()


def test_where_nothing_can_be_written_it_tests(bare):
    workdir, done = bare
    assert done.returncode == 0, done.stderr
    trained, _, evaluated = done.stdout.partition("evaluated:\n")
    assert "nearest centroid" in trained and "nearest centroid" in evaluated
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(workdir.glob("*.py")), "TensorFlow's, for want of a place"


def history(workdir) -> dict[str, list[float]]:
    """Returns the columns of history.csv without empty cells."""
    with (workdir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0]}


def test_where_tensorflow_cannot_be_loaded_the_reason_is_a_line(tmp_path):
    program = [sys.executable, ROOT / "run_leo.py", f"--workdir={tmp_path}"]
    theirs = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "nonsense"}
    environment = {**os.environ, **theirs}
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert last.startswith("error: tensorflow: expected to be loaded, received ")
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION nonsense is not supported" in last


@pytest.mark.slow
def test_a_flag_of_xla_s_that_is_unknown_is_named(tmp_path):
    program = [sys.executable, ROOT / "run_leo.py", f"--workdir={tmp_path}"]
    environment = {**os.environ, "TF_XLA_FLAGS": "--no_such_flag"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "no_such_flag" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} {ROOT / 'run_leo.py'} --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage") and done.stderr == ""


def test_fewer_steps_than_are_done_are_refused(trained_copy, train, capsys):
    assert train(trained_copy, "--num_steps=11", "--quiet") == 2
    assert "--num_steps: expected 12 or more" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_job")
def test_a_damaged_checkpoint_is_told_of_even_if_quiet(trained_copy, train, capsys):
    (trained_copy / "checkpoints/step-00000012/manifest.json").unlink()
    assert train(trained_copy, "--quiet") == 0
    assert "skipped: " in capsys.readouterr().err


def test_data_that_are_not_there_are_told_of_before_tensorflow_is_loaded(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command_line, "_job", None)
    flags = [f"--data_path={tmp_path}/none", f"--workdir={tmp_path}/run"]
    assert command_line.main(["run_leo.py", *flags]) == InputError.exit_code
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/none: expected a dir")
