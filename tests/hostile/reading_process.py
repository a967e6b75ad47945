"""Reads one file in a process of its own, and reports the outcome.

    python reading_process.py [tensorflow]

For each line on standard input, [job, argument, bytes, seconds], it forks a process
that may take so much more memory and time, and writes a line: how the process ended,
the error it met, the most memory it took in addition. What is to be imported, is once.
"""

import contextlib
import importlib
import io
import json
import os
import pathlib
import resource
import signal
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from leo_tf.data_pipeline.feature_files import load
from leo_tf.errors import LeoError


def read_data(path: str) -> str:
    """Reads a file as a user's data; returns the digest."""
    return load(path).digest


def run_program(arguments: list[str]) -> str:
    """Runs a command line; returns what it printed."""
    from leo_tf.cli.main import main

    # Standard output is for the answers of this process.
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as messages,
    ):
        status = main(["run_leo.py", *arguments])
    if status:
        raise SystemExit(status, messages.getvalue())
    return printed.getvalue()


JOBS = {"data": read_data, "program": run_program}


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    raise KeyError(field)


def limit(allowed: int, seconds: int) -> None:
    """Limits the memory this process may add, and its time."""
    most = memory("VmData") + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(seconds)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here


def work(job: str, argument, allowed: int, seconds: int, answer: int) -> None:
    """Does a job in the forked process; writes its answer to a descriptor."""
    limit(allowed, seconds)
    before = memory("VmRSS")
    try:
        found = ["read", JOBS[job](argument)]
    except LeoError as error:
        found = [f"refused {error.exit_code}", str(error)]
    except SystemExit as error:
        found = [f"refused {error.args[0]}", error.args[1]]
    except BaseException:
        found = ["raised", traceback.format_exc()]
    peak = memory("VmHWM") - before
    os.write(answer, json.dumps([*found, peak]).encode()[:60_000])


def read_in_child(*request) -> list:
    """Returns [how it ended, error or result, peak in bytes]."""
    if request[0] == "program":
        importlib.import_module("leo_tf.cli.jobs")
        importlib.import_module("leo_tf.model.leo")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException):
            work(*request, writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if status or not text:
        return [f"ended with {os.waitstatus_to_exitcode(status)}", text.decode(), 0]
    return json.loads(text)


def main() -> None:
    if "tensorflow" in sys.argv:
        importlib.import_module("leo_tf.data_pipeline.formats.tfrecord")
    else:
        assert "tensorflow" not in sys.modules
    for line in sys.stdin:
        print(json.dumps(read_in_child(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
