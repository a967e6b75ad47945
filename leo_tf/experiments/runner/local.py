"""Runs in worker processes of this machine.

The pool is that of `concurrent.futures`: a thread for each run at a time, which hands
tasks to a process of its own and reads what that tells. In its pool of processes, as in
loky's, one process that dies ends all others, and what they were at.
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

from leo_tf.errors import Stopped, shown
from leo_tf.experiments.runner import worker
from leo_tf.experiments.runner.tasks import (
    HUNG_SECONDS,
    STARTS,
    Sign,
    Task,
    as_dict,
    gone,
)
from leo_tf.files import make_directory

COMMAND = (sys.executable, "-m", worker.__name__)
# For a worker to save what it is at; after that it is ended.
_LAST_SECONDS = 30.0


class LocalRunner:
    """A `Runner` of so many worker processes, each with its share of the machine.

    Args:
      environment: of each worker: what it has besides this process's own.
      logs: a directory for what workers print.
    """

    def __init__(self, environment: Sequence[Mapping[str, str]], logs: pathlib.Path):
        self._environment, self._logs = environment, logs
        self._workers: dict[int, _Process] = {}
        self._signs: queue.SimpleQueue[Sign] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(len(environment)):
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(len(environment), "run")
        self._stopping = threading.Event()

    def submit(self, task: Task) -> None:
        """See `Runner`."""
        self._threads.submit(self._train, task)

    def watch(self, seconds: float) -> Sign | None:
        """See `Runner`; ends workers that hang."""
        for process in list(self._workers.values()):
            if time.monotonic() - process.seen > HUNG_SECONDS:
                process.end(f"no sign of life for {HUNG_SECONDS:.0f} s")
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
        for process in list(self._workers.values()):
            process.close()
        self._threads.shutdown()

    def _train(self, task: Task) -> None:
        slot = self._free.get()
        try:
            error = self._outcome(task, slot)
        finally:
            self._free.put(slot)
        self._signs.put(Sign(task.name, has_ended=True, error=error))

    def _outcome(self, task: Task, slot: int) -> dict | None:
        log, how = self._logs / f"{slot}.log", ""
        task = task._replace(log=str(log))
        for start in range(STARTS):
            if start:
                text = f"its worker ended ({how}); going on from its last checkpoint"
                self._signs.put(Sign(task.name, text, is_warning=True))
            try:
                ended = self._ask(task, slot, log)
            except OSError as error:  # there is no room for one more process
                return as_dict(gone(task.name, shown(str(error)), str(log)))
            if ended is not None:
                return ended.error
            how = self._workers.pop(slot).how_it_ended()
            if self._stopping.is_set():
                return as_dict(Stopped(signal.SIGTERM))
        return as_dict(gone(task.name, how, str(log)))

    def _ask(self, task: Task, slot: int, log: pathlib.Path) -> Sign | None:
        """The last sign of a task; None if the worker died."""
        if slot not in self._workers:
            self._workers[slot] = _Process(self._environment[slot], log)
        process = self._workers[slot]
        if self._stopping.is_set():  # it was asked to before it was there
            return Sign(task.name, error=as_dict(Stopped(signal.SIGTERM)))
        for sign in process.signs_of(task):
            if sign.has_ended:
                return sign
            self._signs.put(sign)
        return None


class _Process:
    """A worker process, started at once."""

    def __init__(self, environment: Mapping[str, str], log: pathlib.Path):
        make_directory(log.parent)
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with log.open("ab") as file:
            # A session of its own: Ctrl-C is for whoever started it, who asks it to
            # stop; of a user's script, as multiprocessing would, it imports nothing.
            self._process: Any = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, "PYTHONPATH": paths, **environment},
                start_new_session=True,
            )
        self.seen, self._reason = time.monotonic(), ""
        self._is_stopping, self._lock = False, threading.Lock()

    def signs_of(self, task: Task) -> Iterator[Sign]:
        """Hands it a task, and yields what it tells until that is done, or it dies."""
        self.seen = time.monotonic()
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it died while it had nothing to do
            return
        for line in self._process.stdout:
            self.seen = time.monotonic()
            if line.endswith(b"\n"):  # else it died while it wrote it
                sign = Sign(*json.loads(line))
                if sign.has_ended:
                    self.seen = float("inf")  # silence is what is wanted now
                yield sign

    def stop(self) -> None:
        """Asks it to save its run and stop; once, as a second time would end it."""
        with self._lock:
            if not self._is_stopping:
                self._is_stopping = True
                self._process.terminate()

    def end(self, reason: str) -> None:
        """Ends it now."""
        self._reason = reason
        self._process.kill()

    def close(self) -> None:
        """Lets it end: what it is at is saved first."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def how_it_ended(self) -> str:
        """Says what a dead worker died of."""
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        if status < 0:
            return self._reason or f"signal {-status}"
        return self._reason or f"exit status {status}"
