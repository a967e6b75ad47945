"""Tests that a run needs no network. TensorBoard: see `cli/test_main.py`."""

import json
import pathlib
import platform
import signal
import subprocess
import sys

import no_sockets
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(__file__).with_name("no_sockets.py")
TRIES = """
import sys
sys.path.insert(0, sys.argv[1])
import no_sockets, socket
opened = socket.socket()
no_sockets.forbid(getattr(no_sockets, sys.argv[2]))
print("still here", flush=True)
opened.bind(("127.0.0.1", 0))
eval(sys.argv[3])
"""

only_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in no_sockets.OPENING,
    reason="there is no filter of system calls here",
)


def python(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@only_linux
def test_training_evaluating_and_exporting_open_no_socket(small_flags, tmp_path):
    where = f"--workdir={tmp_path / 'run'}"
    lines = [
        [*small_flags, where, "--quiet"],
        ["--mode=evaluate", where, "--quiet"],
        ["--mode=export", where, f"--export_dir={tmp_path / 'out'}"],
    ]
    done = python(PROGRAM, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/1/saved_model.pb").exists()


@only_linux
@pytest.mark.parametrize(
    ("calls", "code"),
    [
        ("OPENING", "socket.socket()"),
        ("TALKING", "opened.connect(('127.0.0.1', 9))"),
        ("TALKING", "opened.listen()"),
        ("TALKING", "opened.sendto(b'', ('127.0.0.1', 9))"),
        ("TALKING", "opened.sendmsg([b''])"),
    ],
)
def test_the_network_would_have_ended_that_process(calls, code):
    done = python("-c", TRIES, PROGRAM.parent, calls, code)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "still here\n")
