"""The worker processes of a training over several machines, as TF_CONFIG lists them.

TensorFlow reads this variable itself, and of what is wrong in it says little.
"""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from leo_tf.errors import FlagError, shown

VARIABLE = "TF_CONFIG"
_ADDRESS = r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}"
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_HINT = f"Give each worker its own, such as {_EXAMPLE}."


class Cluster(NamedTuple):
    """What one worker knows of all.

    Attributes:
      workers: how many there are.
      is_chief: whether this is the one that writes: "chief" if there is one, else
        worker 0.
    """

    workers: int
    is_chief: bool


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """What TF_CONFIG says.

    Args:
      environment: of the process.

    Raises:
      FlagError: saying what is wrong with it.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        raise _error("--strategy=multi_worker to come with it", "nothing")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise _error("JSON", shown(text)) from None
    cluster = _object(_object(values, "").get("cluster"), "`cluster`")
    task = _object(values.get("task"), "`task`")
    for job, addresses in cluster.items():
        _check_job(job, addresses)
    job, index = task.get("type"), task.get("index")
    addresses = cluster.get(job) if isinstance(job, str) else None
    if addresses is None:
        raise _error("a `task` whose `type` is in `cluster`", shown(job))
    if type(index) is not int or not 0 <= index < len(addresses):
        expected = f"a `task` whose `index` is from 0 to {len(addresses) - 1}"
        raise _error(expected, shown(index))
    chief = ("chief" if "chief" in cluster else "worker", 0)
    return Cluster(sum(map(len, cluster.values())), (job, index) == chief)


def _check_job(job: str, addresses):
    if job not in ("chief", "worker"):
        raise _error("only chief and worker in `cluster`", shown(job))
    if not isinstance(addresses, list) or not addresses:
        raise _error(f"a list of addresses for {job}", shown(addresses))
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(_ADDRESS, address):
            raise _error("addresses such as host:2222", shown(address))
    if job == "chief" and len(addresses) > 1:
        raise _error("one chief", f"{len(addresses)}")


def _object(value, name: str) -> dict:
    if not isinstance(value, dict):
        raise _error(f"{name} as a JSON object".strip(), shown(value))
    return value


def _error(expected: str, received: str) -> FlagError:
    return FlagError(VARIABLE, expected, received, _HINT)
