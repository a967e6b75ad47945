"""SIGINT and SIGTERM during work."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from leo_tf.training import interrupts
from leo_tf.training.interrupts import StopRequest

ROOT = pathlib.Path(__file__).parents[3]
# Forks a process that waits for signals, for each line of standard input.
WAITS = """
import importlib.util, os, sys, time
# Loaded by file, because its package would load TensorFlow.
spec = importlib.util.spec_from_file_location("interrupts", sys.argv[1])
interrupts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(interrupts)
StopRequest = interrupts.StopRequest
for line in sys.stdin:
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("ended", status, flush=True)
        continue
    with StopRequest() as request:
        print("ready", os.getpid(), flush=True)
        while request.signal is None:
            time.sleep(0.01)
        print("noted", request.signal, flush=True)
        time.sleep(20)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def waits():
    """Function that starts a waiting process, and returns its output and id."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, interrupts.__file__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def start():
        process.stdin.write("\n")
        process.stdin.flush()
        ready, number = process.stdout.readline().split()
        assert ready == "ready"
        return process.stdout, int(number)

    with process:
        yield start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_nothing_dies(number):
    with StopRequest() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(waits, first, second):
    answers, process = waits()
    os.kill(process, first)
    assert answers.readline() == f"noted {first:d}\n"
    os.kill(process, second)
    assert answers.readline() == f"ended {-second}\n"


@pytest.fixture
def came():
    """Signals that reach the program's own handlers, set before ours."""
    numbers, came = (signal.SIGINT, signal.SIGTERM), []
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, lambda number, frame: came.append(number))
    yield came
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def test_afterwards_signals_do_again_what_they_did_before(came):
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGTERM)
    assert request.signal == signal.SIGTERM and came == []
    assert signal.SIG_DFL not in map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert came == [signal.SIGINT, signal.SIGTERM]


def test_an_error_inside_gets_out_and_the_handlers_are_restored(came):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_it_does_nothing_and_does_not_fail():
    requests, handlers = [], []
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with StopRequest() as request:
            handlers.append(signal.getsignal(signal.SIGTERM))
        requests.append(request.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requests == [None] and handlers == [before]


def test_a_handler_that_is_not_pythons_stops_nothing_at_the_end():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest() as request:
            request._before[signal.SIGTERM] = None  # `signal.signal` returns it then
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
