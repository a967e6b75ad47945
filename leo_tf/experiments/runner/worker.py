"""A worker process: trains one run at a time, given on standard input.

`LocalRunner` starts it and writes a line of JSON for each `Task`, or null to stop. It
answers on standard output, a line for each `Sign`. All other output goes to the log of
the task. When standard input ends, the parent process has ended: the worker saves its
run and ends.
"""

import contextlib
import functools
import json
import os
import pathlib
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from leo_tf.console import STDERR, Console, ProgressLine
from leo_tf.environment import import_tensorflow, quick_exit
from leo_tf.errors import HeldError, LeoError, Stopped, WorkerError, quoted
from leo_tf.experiments.runner.tasks import Sign, Task, as_dict

if TYPE_CHECKING:
    from leo_tf.data_pipeline.dataset import Split

# Least time between two signs of a run.
_SIGN_SECONDS = 0.5
# Time for an earlier worker of the run, whose parent process ended, to save it.
_LOCK_SECONDS = 300.0
# While a process computes, it gives a sign of life so often.
_BEAT_SECONDS, _LEAST_CPU_SECONDS = 20.0, 1.0


def threads(count: int) -> dict[str, str]:
    """Returns the environment of a process that computes on `count` threads.

    The last digits of a run depend on it, because sums have as many parts.
    """
    names = "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
    found = dict.fromkeys((*names, "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(count))
    # One more, because threads that wait for episodes compute nothing.
    return {**found, "TF_NUM_INTEROP_THREADS": str(count + 1)}


def work(task: Task, send: Callable[[Sign], None]) -> Sign:
    """Trains or resumes a run. Returns its last sign."""
    console = _SendingConsole(task.name, send)
    error: LeoError | Stopped | None = None
    try:
        with _giving_signs(task.name, send):
            _train(task, console)
    except (LeoError, Stopped) as found:
        error = found
    except Exception as found:  # whatever it is, the error names the run
        traceback.print_exc(file=STDERR)
        received = f"{type(found).__name__}: {quoted(str(found))}"
        hint = f"{task.log or 'The log of its worker'} has the traceback."
        error = WorkerError(task.name, "no exception", received, hint)
    return Sign(task.name, has_ended=True, error=as_dict(error) if error else None)


def load() -> None:
    """Imports what every task needs, which takes seconds. Reads no configuration."""
    with contextlib.suppress(Exception):  # the task will fail, and report it
        import_tensorflow()
        import leo_tf.experiments.run_group
        import leo_tf.training.replicas  # noqa: F401


def _train(task: Task, console: Console) -> None:
    # Imported late, because TensorFlow takes seconds to load.
    import_tensorflow()
    from leo_tf.configs.schema import Config
    from leo_tf.experiments.run_group import read_fitted, test_one, train_one
    from leo_tf.training.replicas import start

    config = Config.from_dict(task.config, task.name)
    splits = _splits(task.features, task.splits, task.digest)
    replicas = start(config, console.say)
    train = functools.partial(
        train_one,
        config,
        task.workdir,
        splits,
        replicas,
        allow_changes=task.allow_changes,
        console=console,
        to_test=task.to_test,
        fitted=read_fitted(task.fitted),
        until=task.until,
    )
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            run = train()
            break
        except HeldError as error:
            if time.monotonic() > deadline:
                raise
            console.say(f"waiting until it is free: {error}")
        time.sleep(1.0)
    if task.scores:
        test_one(run, config, splits["test"], task.scores, console)


@contextlib.contextmanager
def _giving_signs(name: str, send: Callable[[Sign], None]) -> Iterator[None]:
    """Sends heartbeats while the process computes, even between progress reports."""
    has_ended = threading.Event()

    def beat() -> None:
        before = time.process_time()
        while not has_ended.wait(_BEAT_SECONDS):
            now = time.process_time()
            if now - before >= _LEAST_CPU_SECONDS:
                send(Sign(name))
            before = now

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


@functools.lru_cache(maxsize=4)
def _splits(directory: str, name: str, digest: str) -> "Mapping[str, Split]":
    """Returns splits; `digest` keeps those of changed data in the same place apart."""
    from leo_tf.experiments.runner import features

    return features.read(pathlib.Path(directory), name)


class _SendingConsole(Console):
    """Sends messages of a run to the parent process."""

    def __init__(self, name: str, send: Callable[[Sign], None]):
        super().__init__(quiet=True)
        self._name, self._send = name, send

    def say(self, text: str) -> None:
        print(f"{self._name}: {text}", file=STDERR)
        self._send(Sign(self._name, text))

    def warn(self, text: str) -> None:
        print(f"{self._name}: {text}", file=STDERR)
        self._send(Sign(self._name, text, is_warning=True))

    def progress(
        self, title: str, total: int, done: int = 0, unit: str = "steps"
    ) -> ProgressLine:
        line = _SendingLine(title, total, done, unit, quiet=True, warn=self.warn)
        line.run, line.send, line.say = self._name, self._send, self.say
        return line


class _SendingLine(ProgressLine):
    run: str
    send: Callable[[Sign], None]
    say: Callable[[str], None]
    _told = 0.0

    def advance(self, units: int, details: str = "") -> None:
        super().advance(units, details)
        now = time.monotonic()
        if now - self._told >= _SIGN_SECONDS or self.done == self.total:
            self._told = now
            if self.unit == "steps":
                found = Sign(self.run, details or self.title, self.done, self.total)
            else:  # test episodes, for example, are not counted with the steps
                found = Sign(self.run, str(self))
            self.send(found)

    def note(self, text: str) -> None:
        self.say(text)


def main() -> None:
    """Runs the tasks on standard input until it ends."""
    signal.signal(signal.SIGTERM, _end_at_once)  # before and between runs
    succeeded, loaded = quick_exit(), threading.Event()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # If the parent process has ended, closing tries in vain to write the rest.
    with contextlib.suppress(BrokenPipeError), answers:
        os.dup2(2, 1)
        tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        busy, stopping, lock = threading.Event(), threading.Event(), threading.Lock()

        def send(sign: Sign) -> None:
            # Of several threads; if the parent process has ended, nobody reads it.
            with lock, contextlib.suppress(OSError):
                print(json.dumps(sign), file=answers, flush=True)

        threading.Thread(
            target=_read, args=(tasks, loaded, busy, stopping), daemon=True
        ).start()
        load()
        loaded.set()
        while (task := tasks.get()) is not None:
            os.environ.update(task.environment or {})
            if stopping.is_set():
                error = as_dict(Stopped(signal.SIGTERM))
                ended = Sign(task.name, has_ended=True, error=error)
            else:
                ended = work(task, send)
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            busy.clear()  # first, because the next task may follow at once
            send(ended)
    succeeded.set()


def _read(
    tasks: "queue.SimpleQueue[Task | None]",
    loaded: threading.Event,
    busy: threading.Event,
    stopping: threading.Event,
) -> None:
    for line in sys.stdin:
        try:
            values = json.loads(line)
            task = values and Task(*values)
        except (ValueError, TypeError):  # the job was killed, or is of other code
            break
        if task is None:
            stopping.set()
            _stop(busy)
            continue
        busy.set()
        with contextlib.suppress(OSError), open(task.log, "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        tasks.put(task)
    if not busy.is_set() and not loaded.is_set():
        os._exit(0)
    tasks.put(None)
    _stop(busy)


def _stop(busy: threading.Event) -> None:
    """Stops the run, unless a signal has done so already: a second one would kill."""
    is_noted = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # see `StopRequest`
    if busy.is_set() and not is_noted:
        os.kill(os.getpid(), signal.SIGTERM)


def _end_at_once(number: int, unused_frame: object) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
