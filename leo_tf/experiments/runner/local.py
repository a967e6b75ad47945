"""Runs in worker processes of this machine.

Each thread of a `concurrent.futures` pool hands tasks to its own process and reads the
signs that it prints. The process pools of `concurrent.futures` and loky do not fit,
because one dying process ends all others and their tasks.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from leo_tf.errors import Stopped, WorkerError, quoted
from leo_tf.experiments.runner import worker
from leo_tf.experiments.runner.tasks import (
    HUNG_SECONDS,
    LAST_SECONDS,
    STARTS,
    Sign,
    Task,
    as_dict,
    gone,
)
from leo_tf.files import AnyPath, make_directory

COMMAND = (sys.executable, "-m", worker.__name__)
# Workers that were started early; a `LocalRunner` takes them.
_waiting: "list[_Process]" = []
# Time for this process to read all signs that are still in pipes.
_READ_SECONDS = 2.0


@contextlib.contextmanager
def started_early(count: int, run_cpus: int) -> Iterator[None]:
    """Starts workers before there is a job, so that they load TensorFlow meanwhile.

    On exit, those that no job has taken are ended.
    """
    try:
        for _ in range(count):
            _waiting.append(_Process(worker.threads(run_cpus)))
        yield
    finally:
        _end_waiting()


def _end_waiting() -> None:
    while _waiting:
        _end_idle(_waiting.pop())


def _end_idle(process: "_Process") -> None:
    process.end("")
    process.how_it_ended()


class LocalRunner:
    """A `Runner` of worker processes, each with its share of the machine.

    Args:
      environment: further environment variables of each worker.
      logs: directory for the output of workers.
    """

    def __init__(self, environment: Sequence[Mapping[str, str]], logs: pathlib.Path):
        self._environment, self._logs = environment, logs
        self._workers: dict[int, _Process] = {}
        self._signs: queue.SimpleQueue[Sign] = queue.SimpleQueue()
        # The lowest first, so that a few tasks are not spread over many workers.
        self._free: queue.PriorityQueue[int] = queue.PriorityQueue()
        for slot in range(len(environment)):
            self._free.put(slot)
            if _waiting:
                self._workers[slot] = _waiting.pop()
        _end_waiting()
        self._threads = ThreadPoolExecutor(len(environment), "run")
        self._stopping = threading.Event()

    def submit(self, task: Task) -> None:
        """See `Runner`."""
        self._threads.submit(self._train, task)

    def keep_for(self, count: int) -> None:
        """See `Runner`."""
        for slot in range(count, len(self._environment)):
            # No task takes this slot while a lower one is free. Used workers stay,
            # because the next stage of a search may have more tasks.
            process = self._workers.get(slot)
            if process is not None and not process.is_used:
                _end_idle(self._workers.pop(slot))

    def watch(self, seconds: float) -> Sign | None:
        """See `Runner`. Ends workers that hang."""
        now = time.monotonic()
        for process in list(self._workers.values()):
            if now - process.seen <= HUNG_SECONDS:
                process.suspected = None
            # Not at once: after a pause of this process, signs are still to be read.
            elif now - (process.suspected or now) > _READ_SECONDS:
                process.end(f"no sign of life for {HUNG_SECONDS:.0f} s")
            else:
                process.suspected = process.suspected or now
        try:
            return self._signs.get(timeout=seconds)
        except queue.Empty:
            return None

    def cancel(self) -> None:
        """See `Runner`."""
        self._stopping.set()
        for process in list(self._workers.values()):
            process.stop()

    def close(self) -> None:
        """See `Runner`."""
        self._stopping.set()
        workers, deadline = list(self._workers.values()), time.monotonic()
        for process in workers:
            process.close()
        for process in workers:
            process.ended(deadline + LAST_SECONDS - time.monotonic())
        self._threads.shutdown()

    def _train(self, task: Task) -> None:
        slot = self._free.get()
        try:
            error = self._outcome(task, slot)
        except Exception as found:  # whatever it is, an end is reported
            received = f"{type(found).__name__}: {quoted(str(found))}"
            error = as_dict(WorkerError(task.name, "a worker to train it", received))
            if (process := self._workers.pop(slot, None)) is not None:
                _end_idle(process)
        finally:
            self._free.put(slot)
        self._signs.put(Sign(task.name, has_ended=True, error=error))

    def _outcome(self, task: Task, slot: int) -> dict | None:
        log, how = self._logs / f"{slot}.log", ""
        environment = dict(self._environment[slot])
        task = task._replace(log=str(log), environment=environment)
        make_directory(self._logs)
        for start in range(STARTS):
            if start:
                text = f"its worker ended ({how}); resuming from its last checkpoint"
                self._signs.put(Sign(task.name, text, is_warning=True))
            ended = self._ask(task, slot, log)
            if ended is not None:
                return ended.error
            process = self._workers.pop(slot)
            how = process.how_it_ended()
            # All processes of a service get a signal to end, perhaps before this one.
            if self._stopping.is_set() or process.was_told_to_end:
                return as_dict(Stopped(signal.SIGTERM))
        return as_dict(gone(task.name, how, str(log)))

    def _ask(self, task: Task, slot: int, log: pathlib.Path) -> Sign | None:
        """Returns the last sign of a task; None if the worker died."""
        stopped = Sign(task.name, error=as_dict(Stopped(signal.SIGTERM)))
        if self._stopping.is_set():
            return stopped
        if slot not in self._workers:
            self._workers[slot] = _Process(self._environment[slot], log)
        process = self._workers[slot]
        if self._stopping.is_set():  # `cancel` came before the process existed
            process.close()
            return stopped
        for sign in process.signs_of(task):
            if sign.has_ended:
                return sign
            self._signs.put(sign)
        return None


class _Process:
    """A worker process, started by the constructor.

    Without a log, its output is discarded until its first task.
    """

    def __init__(
        self, environment: Mapping[str, str], log: AnyPath = os.devnull
    ) -> None:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with open(log, "ab") as file:
            # In its own session, so that only this process receives Ctrl-C and stops
            # the worker. Unlike multiprocessing, it does not import the user's script.
            self._process: Any = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, "PYTHONPATH": paths, **environment},
                start_new_session=True,
            )
        self.seen, self._reason = float("inf"), ""  # idle, so silence is no fault
        self.suspected: float | None = None  # when it was first found silent
        self.is_used = False  # has had a task

    def signs_of(self, task: Task) -> Iterator[Sign]:
        """Hands over a task, and yields its signs until it ends or the worker dies."""
        self.seen, self.is_used = time.monotonic(), True
        if not self._write(task):  # it died while idle
            return
        for line in self._process.stdout:
            self.seen = time.monotonic()
            try:
                sign = Sign(*json.loads(line))
            except (ValueError, TypeError):  # it died while writing, or is not ours
                continue
            if sign.has_ended:
                self.seen = float("inf")
            yield sign

    def stop(self) -> None:
        """Asks the worker to save its run and stop. Repeated calls do nothing.

        Sends no signal: the worker may have received one, as all processes of a service
        do, and a second would end it unsaved.
        """
        self._write(None)

    def _write(self, value: Task | None) -> bool:
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it died
            return False
        return True

    def end(self, reason: str) -> None:
        """Kills the worker."""
        self._reason = reason
        self._process.kill()

    def close(self) -> None:
        """Lets the worker save its run and end."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def ended(self, seconds: float = LAST_SECONDS) -> int:
        """Returns the exit status. Kills the worker if it does not end in time."""
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    @property
    def was_told_to_end(self) -> bool:
        """True if a signal ended it outside training, when there is nothing to save."""
        return self.ended() == 128 + signal.SIGTERM

    def how_it_ended(self) -> str:
        """Returns why a dead worker ended."""
        status = self.ended()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        if status < 0:
            return self._reason or f"signal {-status}"
        return self._reason or f"exit status {status}"
