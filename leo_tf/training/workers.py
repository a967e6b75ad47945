"""What the processes of one training tell each other, besides gradients.

One of them is the chief: it alone reads and writes the run directory, validates and
prints. The others need nothing but the data.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from leo_tf.errors import FlagError, WorkerError
from leo_tf.training.tf_config import VARIABLE, Cluster

# What an exchange fails with when another worker has gone.
_GONE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
_DIGEST_BYTES = 6  # as an integer it is exact in float64


class Workers:
    """The processes that train together; without arguments, this one alone.

    All exchange numbers by the same calls in the same order: each waits for the
    others.

    Args:
      strategy: `MultiWorkerMirroredStrategy`.
      cluster: what this process knows of all.

    Attributes:
      is_chief: whether this process reads, writes and prints.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        cluster: Cluster | None = None,
    ):
        self._strategy: Any = strategy
        self._cluster = cluster
        self.count = cluster.workers if cluster else 1
        self.is_chief = cluster is None or cluster.is_chief
        # Traced once for each shape: every trace of an exchange is kept for good.
        self._total = tf.function(self._total_in_graph, autograph=False)

    def total(self, values: Any) -> np.ndarray:
        """The sum over the workers of float64 numbers of any shape."""
        values = np.asarray(values, np.float64)
        if self._cluster is None:
            return values
        return self._total(tf.constant(values)).numpy()

    def from_chief(self, values: Any) -> np.ndarray:
        """The chief's `values`, bit for bit; of other workers only the shape counts."""
        if not self.is_chief:
            # Added to anything it changes nothing. Added to -0.0, 0.0 does.
            values = np.full(np.shape(values), -0.0)
        return self.total(values)

    def share(self, step: int, variables: Iterable[tf.Variable]) -> int:
        """Gives all workers the chief's variables; returns the chief's `step`."""
        if self._cluster is None:
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
        """How many steps all make next: what the chief wants; 0 if any is to stop.

        Args:
          count: what the chief wants; that of others does not matter.
          stop: whether this process was asked to stop.
        """
        wanted = -math.inf if stop else count * self.is_chief
        return int(max(0.0, float(self.total(wanted))))

    def check_same(self, text: str) -> None:
        """Checks that all workers give the same text.

        Raises:
          FlagError: on all of them, if any gives another.
        """
        digest = hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]
        mine = int.from_bytes(digest, "big")
        if self.total(mine) != self.count * mine:
            expected = "workers of the same flags, data and versions"
            raise FlagError(VARIABLE, expected, "others")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A context manager that ends with one line if another worker has gone.

        Raises:
          WorkerError: instead of what TensorFlow raises then.
        """
        try:
            yield
        except _GONE as error:
            if self._cluster is None:
                raise
            expected = f"{self.count} workers until the end"
            hint = "Its output says why. The same commands go on from the checkpoint."
            raise WorkerError(VARIABLE, expected, "one that has gone", hint) from error

    def _total_in_graph(self, values):
        def on_replica(values):
            context = tf.distribute.get_replica_context()
            replicas = self._strategy.num_replicas_in_sync // self.count
            is_first = context.replica_id_in_sync_group % replicas == 0
            nothing = tf.fill(values.shape, tf.constant(-0.0, values.dtype))
            mine = tf.where(is_first, values, nothing)  # each worker's counts once
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        totals = self._strategy.run(on_replica, args=(values,))
        return self._strategy.experimental_local_results(totals)[0]
