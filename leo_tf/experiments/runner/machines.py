"""The machines of a Ray cluster: found, large enough, and all with the same code."""

import importlib.util
import os
import pathlib
import secrets
import socket
import time
from typing import Any

from leo_tf.environment import code
from leo_tf.errors import FlagError, InputError, one_line, quoted
from leo_tf.files import write_file

# Time for a machine to confirm that it sees the directory.
_CHECK_SECONDS = 120.0
# Time for Ray to notice that a machine is lost.
_LOSS_SECONDS = 10.0
_TOKEN = ".cluster-token"
_LOOPBACK = "127.0.0.1", "localhost"


def check_installed() -> None:
    """Raises a FlagError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        hint = "On all machines: pip install 'leo-tf[cluster]'."
        raise FlagError("--cluster", "the package ray", "none", hint)


def connect(address: str) -> tuple[Any, bool]:
    """Returns the module `ray`, connected to a cluster, and whether this call did it.

    Raises:
      FlagError: if there is no such cluster.
    """
    check_installed()
    if address.partition(":")[0] in _LOOPBACK:
        # Otherwise Ray would look for it at this machine's outer address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    options: Any = {"log_to_driver": False, "logging_level": "ERROR"}
    was_open = ray.is_initialized()
    try:
        ray.init(address=address, ignore_reinit_error=True, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "`ray start --head` starts one on this machine."
        expected = "the address of a running Ray cluster"
        text = f"{address}: {one_line(str(error).partition(chr(10))[0])}"
        raise FlagError("--cluster", expected, quoted(text), hint) from error
    return ray, not was_open


def check_room(ray: Any, needed: dict[str, float]) -> None:
    """Raises a FlagError if a run is too large for every machine of the cluster."""
    for kind, amount in needed.items():
        most = max(
            (n["Resources"].get(kind, 0.0) for n in ray.nodes() if n["Alive"]),
            default=0.0,
        )
        if amount > most:
            flag = "--run_cpus" if kind == "CPU" else "--run_gpus"
            expected = f"{most:g} or less, as the largest machine of the cluster has"
            expected = (
                expected if most else "none, as no machine of the cluster has any"
            )
            raise FlagError(flag, expected, f"{amount:g}")


def check_machines(ray: Any, path: pathlib.Path, environment: dict[str, str]) -> None:
    """Checks that all machines share the directory, and have the same code.

    A machine that is lost meanwhile is left out. One that joins later is checked when
    it gets a run.

    Raises:
      InputError: if a machine has another directory or other code.
    """
    token, mine = secrets.token_hex(8), code()
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    write_file(path / _TOKEN, token.encode())
    try:
        remote = ray.remote(_check_here)
        options: Any = {"num_cpus": 0, "runtime_env": {"env_vars": environment}}
        checks = {
            node: remote.options(
                scheduling_strategy=affinity(node, soft=False), **options
            ).remote(str(path / _TOKEN), token, mine)
            for node in _alive(ray)
        }
        ray.wait([*checks.values()], num_returns=len(checks), timeout=_CHECK_SECONDS)
        found = [_refusal(ray, *check) for check in checks.items()]
    finally:
        (path / _TOKEN).unlink(missing_ok=True)
    for refusal in filter(None, found):
        raise InputError(*refusal)


def _alive(ray: Any) -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _refusal(ray: Any, node: str, check: Any) -> tuple | None:
    """Returns the error that a machine reports; None if there is none or it is lost."""
    try:
        return ray.get(check, timeout=0)
    except ray.exceptions.RayError as error:
        deadline = time.monotonic() + _LOSS_SECONDS
        while node in _alive(ray):
            if time.monotonic() >= deadline:
                text = quoted(one_line(str(error).strip().rpartition("\n")[2]))
                expected = "machines on which leo_tf can be imported"
                raise InputError("--cluster", expected, text) from error
            time.sleep(0.5)
        return None


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
        return where, expected, quoted(received), hint
    return other_code(theirs)


def other_code(theirs: dict[str, str]) -> tuple | None:
    """Returns the parts of an error if this program is not `theirs`, else None."""
    for name, mine in code().items():
        if mine != theirs.get(name) and name != "machine":
            where = f"{name} on {socket.gethostname()}"
            hint = "All machines need the same versions."
            return where, quoted(theirs.get(name)), quoted(mine), hint
    return None
