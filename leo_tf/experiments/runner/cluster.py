"""Runs on the machines of a Ray cluster, which share the job's directory.

Ray (the extra `cluster`) places runs, and restarts those of a lost machine elsewhere.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from leo_tf.environment import code
from leo_tf.errors import (
    FlagError,
    InputError,
    LeoError,
    Stopped,
    one_line,
    shown,
)
from leo_tf.experiments.runner import worker
from leo_tf.experiments.runner.tasks import (
    HUNG_SECONDS,
    STARTS,
    Sign,
    Task,
    as_dict,
    gone,
)
from leo_tf.files import write_file

_POLL_SECONDS = 0.2
# Time for a machine to confirm that it sees the directory.
_CHECK_SECONDS = 120.0
_TOKEN = ".cluster-token"
_BEGUN = "begun"
_LOOPBACK = "127.0.0.1", "localhost"


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
        if importlib.util.find_spec("ray") is None:
            hint = "On all machines: pip install 'leo-tf[cluster]'."
            raise FlagError("--cluster", "the package ray", "none", hint)
        if address.partition(":")[0] in _LOOPBACK:
            # Otherwise Ray would look for it at this machine's outer address.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray

        self._ray = ray
        _connect(ray, address)
        needed = {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})}
        _check_room(ray, needed)
        paths = [entry or os.getcwd() for entry in sys.path]
        # Ray requires text values.
        environment = {**worker.threads(cpus), "PYTHONPATH": os.pathsep.join(paths)}
        environment |= {
            name: os.environ[name] for name in _HANDED_ON if name in os.environ
        }
        options: Any = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": STARTS - 1}
        options["runtime_env"] = {"env_vars": environment}
        self._remote = ray.remote(_work).options(**options)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        board = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here)
        self._board = board.remote()
        self._check_machines(path, environment)
        self._running: dict[Any, Task] = {}
        self._starts: dict[str, int] = {}
        self._begun: set[str] = set()
        self._seen: dict[str, float] = {}
        self._signs: list[Sign] = []
        self._is_stopping = False

    def submit(self, task: Task) -> None:
        """See `Runner`."""
        reference = self._remote.remote(task, self._board)
        self._running[reference] = task
        self._starts[task.name] = self._starts.get(task.name, 0) + 1

    def watch(self, seconds: float) -> Sign | None:
        """See `Runner`. Ends workers that hang, and restarts their runs."""
        deadline = time.monotonic() + seconds
        while not self._signs and time.monotonic() < deadline:
            self._signs = [self._noted(Sign(*each)) for each in self._told()]
            for sign in self._signs:
                self._seen[sign.name] = time.monotonic()
            wanted = list(self._running)
            ended, _ = (
                self._ray.wait(wanted, timeout=_POLL_SECONDS) if wanted else ([], [])
            )
            for reference in ended:
                self._signs.append(self._last(reference, self._running.pop(reference)))
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
        if self._running:
            self._ray.wait(
                list(self._running), num_returns=len(self._running), timeout=30
            )
        self._ray.shutdown()

    def _noted(self, sign: Sign) -> Sign:
        """Returns a sign; as a warning if it says that a run was restarted."""
        if sign.text.startswith(_BEGUN) and sign.name in self._begun:
            text = f"its machine or worker was lost; {sign.text}, resuming from its "
            return sign._replace(text=f"{text}last checkpoint", is_warning=True)
        self._begun.add(sign.name)
        return sign

    def _told(self) -> list:
        try:
            return self._ray.get(self._board.take.remote(), timeout=10)
        except self._ray.exceptions.RayError:
            return []  # its machine is lost, and with it the signs

    def _last(self, reference: Any, task: Task) -> Sign:
        """Returns the last sign of a task that has ended."""
        self._seen.pop(task.name, None)
        errors = self._ray.exceptions
        try:
            return Sign(*json.loads(self._ray.get(reference)))
        except errors.TaskCancelledError:
            error: LeoError | Stopped = Stopped(signal.SIGTERM)
        except errors.RayError as found:
            text = one_line(str(found).strip().partition("\n")[0])
            error = gone(task.name, shown(text), "Ray's dashboard")
            if self._is_stopping:
                error = Stopped(signal.SIGTERM)
        return Sign(task.name, has_ended=True, error=as_dict(error))

    def _end_hung(self) -> None:
        for reference, task in list(self._running.items()):
            seen = self._seen.get(task.name)
            if seen is None or time.monotonic() - seen < HUNG_SECONDS:
                continue
            self._ray.cancel(reference, force=True)
            del self._running[reference], self._seen[task.name]
            silence = f"no sign of life for {HUNG_SECONDS:.0f} s"
            if self._starts[task.name] < STARTS:
                text = f"{silence}; resuming from its last checkpoint"
                self._signs.append(Sign(task.name, text, is_warning=True))
                self.submit(task)
            else:
                error = as_dict(gone(task.name, silence, "Ray's dashboard"))
                self._signs.append(Sign(task.name, has_ended=True, error=error))

    def _check_machines(self, path: pathlib.Path, environment: dict[str, str]) -> None:
        """Checks that all machines share the directory, and have the same code."""
        ray, token, mine = self._ray, secrets.token_hex(8), code()
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        write_file(path / _TOKEN, token.encode())
        with _removed(path / _TOKEN):
            remote = ray.remote(_check_here)
            options: Any = {"num_cpus": 0, "runtime_env": {"env_vars": environment}}
            checks = [
                remote.options(
                    scheduling_strategy=affinity(node["NodeID"], soft=False), **options
                ).remote(str(path / _TOKEN), token, mine)
                for node in ray.nodes()
                if node["Alive"]
            ]
            try:
                found = ray.get(checks, timeout=_CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                text = shown(one_line(str(error).strip().rpartition("\n")[2]))
                expected = "machines on which leo_tf can be imported"
                raise InputError("--cluster", expected, text) from error
        for refusal in filter(None, found):
            raise InputError(*refusal)


# Further environment variables that a run depends on.
_HANDED_ON = ("KERAS_BACKEND", "MPLBACKEND", "XLA_FLAGS", "TF_XLA_FLAGS")


class _Board:
    """An actor beside the driver that holds unread signs of tasks."""

    def __init__(self) -> None:
        self._signs: list[Sign] = []

    def put(self, sign: Sign) -> None:
        self._signs.append(sign)

    def take(self) -> list[Sign]:
        found, self._signs = self._signs, []
        return found


def _work(task: Task, board: Any) -> str:
    """Runs a task in a Ray process."""
    from leo_tf.experiments.runner import features

    def tell(sign: Sign) -> None:
        with contextlib.suppress(Exception):  # the driver's machine is lost
            board.put.remote(sign)

    tell(Sign(task.name, f"{_BEGUN} on {socket.gethostname()}"))
    refusal = _other_code(task.code)
    try:
        if refusal:
            raise InputError(*refusal)
        features.check(pathlib.Path(task.features), task.splits, task.digest)
    except LeoError as error:
        return json.dumps(Sign(task.name, has_ended=True, error=as_dict(error)))
    return json.dumps(worker.work(task, tell))


def _check_here(path: str, token: str, theirs: dict[str, str]) -> tuple | None:
    """Returns the parts of an error if this machine differs, else None."""
    hint = "All machines need the job's --workdir on one shared file system."
    name = socket.gethostname()
    try:
        received = pathlib.Path(path).read_text()
    except OSError as error:
        received = str(error)
    if received != token:
        where, expected = os.path.dirname(path), f"the same directory on {name}"
        return where, expected, shown(received), hint
    return _other_code(theirs)


def _other_code(theirs: dict[str, str]) -> tuple | None:
    for name, mine in code().items():
        if mine != theirs.get(name) and name != "machine":
            where = f"{name} on {socket.gethostname()}"
            hint = "All machines need the same versions."
            return where, shown(theirs.get(name)), shown(mine), hint
    return None


def _connect(ray: Any, address: str) -> None:
    options: Any = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address, ignore_reinit_error=True, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "`ray start --head` starts one on this machine."
        expected = "the address of a running Ray cluster"
        text = f"{address}: {one_line(str(error).partition(chr(10))[0])}"
        raise FlagError("--cluster", expected, shown(text), hint) from error


def _check_room(ray: Any, needed: dict[str, float]) -> None:
    """Refuses runs that are too large for every machine of the cluster."""
    for kind, amount in needed.items():
        most = max(
            (n["Resources"].get(kind, 0.0) for n in ray.nodes() if n["Alive"]),
            default=0.0,
        )
        if amount > most:
            flag = "--run_cpus" if kind == "CPU" else "--run_gpus"
            expected = f"{most:g} or less, as the largest machine of the cluster has"
            raise FlagError(flag, expected, f"{amount:g}")


@contextlib.contextmanager
def _removed(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
