"""Being asked to stop."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from leo_tf.training.interrupts import StopRequest

ROOT = pathlib.Path(__file__).parents[3]
WAITS = """
import signal, sys, time
from leo_tf.training.interrupts import StopRequest
with StopRequest() as request:
    print("ready", flush=True)
    while request.signal is None:
        time.sleep(0.01)
    print("noted", request.signal, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_nothing_dies(number):
    with StopRequest() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(first, second):
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == b"noted %d\n" % first
        process.send_signal(second)
        assert process.wait(timeout=20) == -second


@pytest.fixture
def came():
    """The signals that reach handlers of the program's own, set before ours."""
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
