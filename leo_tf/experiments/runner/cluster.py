"""Runs on the machines of a Ray cluster, which share the job's directory.

Ray (the extra `cluster`) places runs. Runs that lost their machine or worker are
restarted by this process, like those of `LocalRunner`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import sys
import time
from typing import Any

from leo_tf.errors import InputError, LeoError, Stopped, one_line, quoted
from leo_tf.experiments.runner import machines, worker
from leo_tf.experiments.runner.tasks import (
    HUNG_SECONDS,
    LAST_SECONDS,
    STARTS,
    Sign,
    Task,
    as_dict,
    gone,
)

_POLL_SECONDS = 0.2
# Further environment variables that a run depends on.
_HANDED_ON = ("KERAS_BACKEND", "MPLBACKEND", "XLA_FLAGS", "TF_XLA_FLAGS")


@dataclasses.dataclass
class _Submitted:
    """A task that Ray has, and when it last gave a sign; None while it waits."""

    task: Task
    number: int  # of all that were submitted
    start: int  # of the same task, from 1
    seen: float | None = None


class RayRunner:
    """A `Runner` on a Ray cluster. Each run has its share of a machine.

    Args:
      address: address of the cluster, or "auto" for the one on this machine.
      cpus, gpus: resources per run.
      path: directory of the job, which all machines must see.

    Raises:
      FlagError: if Ray, the cluster, or room for a run is missing.
      InputError: if a machine sees another directory, or has another version.
    """

    def __init__(self, address: str, cpus: int, gpus: float, path: pathlib.Path):
        self._ray, self._is_mine = machines.connect(address)
        ray = self._ray
        try:
            needed = {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})}
            machines.check_room(ray, needed)
            environment = _environment(cpus, gpus)
            machines.check_machines(ray, path, environment)
            # It is restarted from here, whatever it was lost by.
            options: Any = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
            options["runtime_env"] = {"env_vars": environment}
            self._remote = ray.remote(_work).options(**options)
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            )
            options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1}
            self._board = ray.remote(_Board).options(**options).remote()
        except BaseException:
            self._disconnect()
            raise
        self._running: dict[Any, _Submitted] = {}  # by Ray's reference
        self._number = 0
        self._signs: list[Sign] = []
        self._is_stopping = False

    def submit(self, task: Task) -> None:
        """See `Runner`."""
        self._start(task, 1)

    def keep_for(self, count: int) -> None:
        """See `Runner`. Ray itself ends workers that are idle."""

    def watch(self, seconds: float) -> Sign | None:
        """See `Runner`. Ends workers that hang, and restarts their runs."""
        deadline = time.monotonic() + seconds
        while not self._signs and time.monotonic() < deadline:
            self._read_board()
            wanted = list(self._running)
            ended, _ = (
                self._ray.wait(wanted, timeout=_POLL_SECONDS) if wanted else ([], [])
            )
            for reference in ended:
                self._note_end(reference, self._running.pop(reference))
            self._end_hung()
        return self._signs.pop(0) if self._signs else None

    def cancel(self) -> None:
        """See `Runner`."""
        self._is_stopping = True
        for reference in self._running:
            self._ray.cancel(reference)

    def close(self) -> None:
        """See `Runner`."""
        self.cancel()
        if left := list(self._running):
            self._ray.wait(left, num_returns=len(left), timeout=LAST_SECONDS)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._is_mine:  # otherwise the user's, who may still need it
            self._ray.shutdown()

    def _start(self, task: Task, start: int) -> None:
        self._number += 1
        reference = self._remote.remote(task, self._number, self._board)
        self._running[reference] = _Submitted(task, self._number, start)

    def _again(self, lost: _Submitted, how: str) -> None:
        """Restarts a run that was lost, unless it was lost too often."""
        name = lost.task.name
        if self._is_stopping:
            self._note_stop(name)
        elif lost.start < STARTS:
            text = f"its machine or worker was lost ({how}); resuming from its last "
            self._signs.append(Sign(name, f"{text}checkpoint", is_warning=True))
            self._start(lost.task, lost.start + 1)
        else:
            error = as_dict(gone(name, how, "Ray's dashboard"))
            self._signs.append(Sign(name, has_ended=True, error=error))

    def _read_board(self) -> None:
        """Takes the signs of runs that are running; others are of lost workers."""
        running = {each.number: each for each in self._running.values()}
        try:
            told = self._ray.get(self._board.take.remote(), timeout=10)
        except self._ray.exceptions.RayError:  # it is restarted, without the signs
            for each in running.values():
                each.seen = None if each.seen is None else time.monotonic()
            return
        for number, sign in told:
            if number in running:
                running[number].seen = time.monotonic()
                self._signs.append(Sign(*sign))

    def _note_end(self, reference: Any, ended: _Submitted) -> None:
        try:
            self._signs.append(Sign(*json.loads(self._ray.get(reference))))
        except self._ray.exceptions.TaskCancelledError:  # also by the user, in Ray
            self._note_stop(ended.task.name)
        except self._ray.exceptions.RayError as found:
            how = quoted(one_line(str(found).strip().partition("\n")[0]))
            self._again(ended, how)

    def _note_stop(self, name: str) -> None:
        stopped = as_dict(Stopped(signal.SIGTERM))
        self._signs.append(Sign(name, has_ended=True, error=stopped))

    def _end_hung(self) -> None:
        for reference, each in list(self._running.items()):
            if each.seen is None or time.monotonic() - each.seen < HUNG_SECONDS:
                continue
            self._ray.cancel(reference, force=True)
            del self._running[reference]
            self._again(each, f"no sign of life for {HUNG_SECONDS:.0f} s")


def _environment(cpus: int, gpus: float) -> dict[str, str]:
    """Returns the environment variables of a worker; Ray requires text values."""
    paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    found = {**worker.threads(cpus), "PYTHONPATH": paths}
    if gpus:  # several may share one
        found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return found | {name: os.environ[name] for name in _HANDED_ON if name in os.environ}


class _Board:
    """An actor beside the driver that holds unread signs, each with its number."""

    def __init__(self) -> None:
        self._signs: list[tuple[int, Sign]] = []

    def put(self, number: int, sign: Sign) -> None:
        self._signs.append((number, sign))

    def take(self) -> list[tuple[int, Sign]]:
        found, self._signs = self._signs, []
        return found


def _work(task: Task, number: int, board: Any) -> str:
    """Runs a task in a Ray process."""
    from leo_tf.experiments.runner import features

    def send(sign: Sign) -> None:
        with contextlib.suppress(Exception):  # the driver's machine is lost
            board.put.remote(number, sign)

    send(Sign(task.name, f"on {socket.gethostname()}"))
    refusal = machines.other_code(task.code)
    try:
        if refusal:
            raise InputError(*refusal)
        features.check(pathlib.Path(task.features), task.splits, task.digest)
    except LeoError as error:
        return json.dumps(Sign(task.name, has_ended=True, error=as_dict(error)))
    return json.dumps(worker.work(task, send))
