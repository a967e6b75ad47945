"""Yields batches of episodes from features in memory, from any start.

Shapes: B episodes in a batch, N way, K shot, Q queries per class, D embedding size.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import (
    EmbeddingTable,
    MappedArray,
    blocks,
    mapping_of,
)
from leo_tf.data_pipeline.episode import Episode, EpisodeRows
from leo_tf.data_pipeline.large_tables import lies_ready, prepared
from leo_tf.data_pipeline.sampler import (
    ClassIndex,
    RowSampler,
    check_at_least,
    drawn_shapes,
)
from leo_tf.errors import check_not_forked

# Where an endless pipeline ends. At 10,000 episodes a second it lasts three years,
# and the sampler's positions stay below 2^63 for any table that fits in memory.
_ENDLESS = 2**40
# One batch is made while the other waits, which hides the time of making it.
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features that episodes are gathered from, in memory once or mapped.

    All its pipelines share the features. It keeps nothing else of the EmbeddingTable,
    so delete that to free its memory. `lookup` returns rows; the features of a mapped
    file are as stored.
    """

    features: tf.Tensor  # [rows, D] embeddings of length 1; or a file's, [F, D]
    index: ClassIndex
    scales: tf.Tensor | None = None  # [rows, 2] divisors, if the features need them
    places: tf.Tensor | None = None  # [rows] int32 of the features, if not all in order
    mapping: MappedArray | None = None  # the features' memory, if mapped

    @classmethod
    def from_embeddings(
        cls, table: EmbeddingTable, console: Console = SILENT
    ) -> "FeatureTable":
        """Normalises the table. Needs twice its memory, unless it is mapped.

        Raises:
          InputError: if a row of a mapped table has NaN or infinity, or is zero.
        """
        check_not_forked()
        if mapping_of(table.embeddings) is not None:
            if (kept := prepared(table, console)) is not None:
                return cls._mapped(table, kept)
            table = table.in_memory()
        with tf.device("CPU:0"):  # tf.data runs there; a GPU would copy it back
            features = _resident(table.normalized())
        return cls(features, ClassIndex.of(table))

    @classmethod
    def _mapped(cls, table: EmbeddingTable, kept: Any) -> "FeatureTable":
        """Returns a mapped table, of which this was `prepared`."""
        index, mapping = ClassIndex.of(table), mapping_of(table.embeddings)
        if mapping is None or not lies_ready(table):
            return cls.on(kept, index)
        places = getattr(table.embeddings, "places", None)
        return cls.on(mapping, index, kept, places)

    @classmethod
    def on(
        cls,
        mapping: Any,
        index: ClassIndex,
        scales: np.ndarray | None = None,
        places: np.ndarray | None = None,
    ) -> "FeatureTable":
        """Returns a table on mapped memory, with the other fields as arrays."""
        with tf.device("CPU:0"):
            return cls(
                shared(mapping),
                index,
                None if scales is None else shared(scales),
                None if places is None else tf.constant(places, tf.int32),
                mapping,
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [rows, D] of all that `lookup` can return."""
        return len(self.index.rows), self.features.shape[1]

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns [..., D] embeddings of length 1 of these rows [...]."""
        places = rows if self.places is None else tf.gather(self.places, rows)
        found = tf.gather(self.features, places)
        if self.scales is None:
            return found
        scales = tf.gather(self.scales, rows)  # [..., 2]
        # In this order it is `EmbeddingTable.unit` to the bit.
        return found / scales[..., :1] / scales[..., 1:]


class EpisodesByRow:
    """Like `episodes`, but yields row numbers: `rows` holds EpisodeRows.

    Iterating yields `Episode`. Code that can do without the queries' features uses
    `rows` and less memory. Arguments are those of `episodes`.
    """

    def __init__(
        self,
        table: FeatureTable,
        *,
        batch_size: int,
        start: int = 0,
        num_episodes: int | None = None,
        **sampled: Any,
    ):
        check_at_least(1, "batch_size", batch_size)
        check_at_least(0, "start", start)
        if num_episodes is not None:
            check_at_least(1, "num_episodes", num_episodes)
        sampler = RowSampler(table.index, **sampled)
        end = _ENDLESS if num_episodes is None else num_episodes
        full = num_episodes is None or num_episodes % batch_size == 0

        @tf.autograph.experimental.do_not_convert
        def batch(first):
            count = batch_size if full else tf.minimum(end - first, batch_size)
            return sampler(first, count)

        firsts = tf.data.Dataset.range(start * batch_size, end, batch_size)
        self.table, self.num_episodes = table, end
        self.rows = _ready(firsts.map(batch))

    def __iter__(self) -> Iterator[Episode]:
        return (gather(self.table, rows) for rows in self.rows)


def episodes(
    table: FeatureTable | EmbeddingTable,
    *,
    way: int,
    shot: int,
    num_query: int,
    batch_size: int,
    seed: int,
    split: str,
    start: int = 0,
    num_episodes: int | None = None,
    with_rows: bool = False,
) -> tf.data.Dataset:
    """Returns batches of episodes. Batch b starts with episode b * batch_size.

    Episode i depends on (table, way, shot, num_query, seed, split, i) alone. Training
    resumes at step s with `start=s`. Making an episode takes time in proportion to
    C + way * rows of the largest class, of which more than 8,192 cost no more, and
    D * way * (shot + num_query) to gather.

    Args:
      table: table to draw from. An EmbeddingTable becomes a FeatureTable first, which
        takes time and memory.
      way, shot, num_query: N, K and Q; `sampler.largest_num_query` finds the most Q.
      batch_size: B; a batch takes B * N * (K + Q) * D numbers, and three may be alive.
      seed: any 64-bit integer.
      split: "train", "val" or "test"; their episodes differ for the same seed.
      start: the first batch.
      num_episodes: the pipeline ends before this episode, counted from episode 0
        whatever `start` is; None never ends. If `batch_size` does not divide it, the
        last batch is smaller and B is None in the static shapes.
      with_rows: yield pairs of Episode and EpisodeRows.

    Returns:
      Dataset of Episode, in the dtype of the table, or of (Episode, EpisodeRows).

    Raises:
      InputError: see `RowSampler`; also if `batch_size`, `start` or `num_episodes`
        is not a count.
    """
    if isinstance(table, EmbeddingTable):
        table = FeatureTable.from_embeddings(table)
    sampled = EpisodesByRow(
        table,
        way=way,
        shot=shot,
        num_query=num_query,
        batch_size=batch_size,
        seed=seed,
        split=split,
        start=start,
        num_episodes=num_episodes,
    )

    @tf.autograph.experimental.do_not_convert
    def with_features(rows):
        episode = gather(table, rows)
        return (episode, rows) if with_rows else episode

    return _ready(sampled.rows.map(with_features))


def mixed_episodes(
    table: FeatureTable,
    *,
    shapes: Sequence[tuple[int, int]],
    num_query: int,
    batch_size: int,
    seed: int,
    split: str,
    start: int = 0,
) -> tf.data.Dataset:
    """Returns batches whose way and shot are drawn from `shapes` for each step.

    See `sampler.drawn_shapes`. In all else it is batch s of `episodes` of that way and
    shot. N and K are None in the static shapes. Arguments are those of `episodes`.
    """
    sampled: Any = {"num_query": num_query, "seed": seed, "split": split}
    samplers = [RowSampler(table.index, way=n, shot=k, **sampled) for n, k in shapes]

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        def draw(sampler):
            return gather(table, sampler(step * batch_size, batch_size))

        number = drawn_shapes(seed, step, 1, len(shapes))[0]
        return tf.switch_case(number, [functools.partial(draw, s) for s in samplers])

    steps = tf.data.Dataset.range(start, _ENDLESS // batch_size)
    return _ready(steps.map(batch))


def gather(table: FeatureTable, rows: EpisodeRows) -> Episode:
    """Returns the `Episode` of these rows of a table."""
    labels = tf.range(rows.classes.shape[-1])[:, tf.newaxis]  # [N, 1]
    asked = tf.zeros_like(rows.query) + labels if rows.labels is None else rows.labels
    return Episode(
        support_inputs=table.lookup(rows.support),  # [B, N, K, D]
        support_labels=tf.zeros_like(rows.support) + labels,  # [B, N, K]
        query_inputs=table.lookup(rows.query),  # [B, N, Q, D]
        query_labels=asked,  # [B, N, Q]
    )


def _resident(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor that owns its memory. tf.constant copies twice."""
    tensor = tf.raw_ops.Empty(shape=array.shape, dtype=array.dtype)
    first = 0
    for block in blocks(array):  # moves from NumPy to TensorFlow
        rows = tf.range(first, first + len(block))
        tensor = tf.raw_ops.InplaceUpdate(x=tensor, i=rows, v=block)
        first += len(block)
    return tensor


def shared(array: np.ndarray) -> tf.Tensor:
    """Returns a tensor on the memory of an array, which must begin at 64 bytes."""
    # The only public way to a tensor that does not copy the memory.
    return tf.experimental.dlpack.from_dlpack(np.asarray(array).__dlpack__())


def _ready(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with one thread, untuned: the meta-step needs the cores."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Rewriting the graph serialises it, and with it copies the captured features.
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    return dataset.prefetch(_BATCHES_AHEAD).with_options(options)
