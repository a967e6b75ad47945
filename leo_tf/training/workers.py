"""The worker processes of one training, listed in TF_CONFIG, and their exchanges.

Only the chief reads and writes the run directory, validates and prints. The others
need only the data.
"""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from leo_tf.errors import FlagError, WorkerError, quoted

VARIABLE = "TF_CONFIG"
_ADDRESS = r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}"
_HINT = (
    'Give each worker its own, such as {"cluster": {"worker": ["host1:2222", '
    '"host2:2222"]}, "task": {"type": "worker", "index": 0}}.'
)
# Errors of an exchange after another worker has ended.
_GONE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
_DIGEST_BYTES = 6  # an integer of this size is exact in float64


class Workers:
    """The processes that train together; without arguments, only this one.

    All make the same calls in the same order, and each call waits for the others.
    `strategy` is their `MultiWorkerMirroredStrategy`.
    """

    def __init__(self, strategy: Any = None, count: int = 1, is_chief: bool = True):
        self._strategy, self.count, self.is_chief = strategy, count, is_chief
        # Traced once per shape, because every trace of an exchange is kept forever.
        self._total = tf.function(self._total_in_graph, autograph=False)

    def total(self, values: Any) -> np.ndarray:
        """Returns the sum over the workers of float64 numbers of any shape."""
        values = np.asarray(values, np.float64)
        if self._strategy is None:
            return values
        return self._total(tf.constant(values)).numpy()

    def from_chief(self, values: Any) -> np.ndarray:
        """Returns the chief's `values`, bit for bit. Others only give the shape."""
        if not self.is_chief:
            # Adding -0.0 changes nothing. Adding 0.0 would change -0.0.
            values = np.full(np.shape(values), -0.0)
        return self.total(values)

    def share(self, step: int, variables: Iterable[tf.Variable]) -> int:
        """Copies the chief's variables to all workers. Returns the chief's `step`."""
        if self._strategy is None:
            return step
        variables = list(variables)
        values = [np.float64(variable.numpy()) for variable in variables]
        ends = np.cumsum([value.size for value in values])
        flat = self.from_chief(np.concatenate([np.ravel(value) for value in values]))
        for variable, value, part in zip(variables, values, np.split(flat, ends[:-1])):
            own = part.reshape(value.shape).astype(variable.dtype.as_numpy_dtype)
            variable.assign(own)
        return int(self.from_chief(step))

    def agree(self, count: int = 0, stop: bool = False) -> int:
        """Returns the number of steps all make next: the chief's `count`; 0 to stop."""
        wanted = -math.inf if stop else count * self.is_chief
        return int(max(0.0, float(self.total(wanted))))

    def check_same(self, text: str) -> None:
        """Checks that all workers have the same text; else all raise a FlagError."""
        digest = hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]
        mine = int.from_bytes(digest, "big")
        if self.total(mine) != self.count * mine:
            expected = "workers with the same flags, data and versions"
            raise FlagError(VARIABLE, expected, "different ones")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A context manager that raises a WorkerError if another worker has ended."""
        try:
            yield
        except _GONE as error:
            if self._strategy is None:
                raise
            expected = f"{self.count} workers until the end"
            hint = "Its output says why. The same commands resume from the checkpoint."
            raise WorkerError(VARIABLE, expected, "one that ended", hint) from error

    def _total_in_graph(self, values):
        def on_replica(values):
            context = tf.distribute.get_replica_context()
            replicas = self._strategy.num_replicas_in_sync // self.count
            is_first = context.replica_id_in_sync_group % replicas == 0
            nothing = tf.fill(values.shape, tf.constant(-0.0, values.dtype))
            mine = tf.where(is_first, values, nothing)  # count each worker once
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        totals = self._strategy.run(on_replica, args=(values,))
        return self._strategy.experimental_local_results(totals)[0]


def read_cluster(environment: Mapping[str, str]) -> tuple[int, bool]:
    """Returns the number of workers in TF_CONFIG, and True if this one is the chief.

    TensorFlow reads it, too, but does not explain errors. The FlagError does.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        raise _error("a list of workers for --strategy=multi_worker", "nothing")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise _error("JSON", quoted(text)) from None
    cluster = _object(_object(values, "").get("cluster"), "`cluster`")
    task = _object(values.get("task"), "`task`")
    for job, addresses in cluster.items():
        _check_job(job, addresses)
    job, index = task.get("type"), task.get("index")
    addresses = cluster.get(job) if isinstance(job, str) else None
    if addresses is None:
        raise _error("a `task` whose `type` is in `cluster`", quoted(job))
    if type(index) is not int or not 0 <= index < len(addresses):
        expected = f"a `task` whose `index` is from 0 to {len(addresses) - 1}"
        raise _error(expected, quoted(index))
    chief = ("chief" if "chief" in cluster else "worker", 0)
    return sum(map(len, cluster.values())), (job, index) == chief


def _check_job(job: str, addresses):
    if job not in ("chief", "worker"):
        raise _error("only chief and worker in `cluster`", quoted(job))
    if not isinstance(addresses, list) or not addresses:
        raise _error(f"a list of addresses for {job}", quoted(addresses))
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(_ADDRESS, address):
            raise _error("addresses such as host:2222", quoted(address))
    if job == "chief" and len(addresses) > 1:
        raise _error("one chief", f"{len(addresses)}")


def _object(value, name: str) -> dict:
    if not isinstance(value, dict):
        raise _error(f"{name} as a JSON object".strip(), quoted(value))
    return value


def _error(expected: str, received: str) -> FlagError:
    return FlagError(VARIABLE, expected, received, _HINT)
