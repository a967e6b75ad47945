"""Chooses the rows of episode i, a pure function of (seed, split, i).

Shapes: B episodes, N way, K shot, Q queries per class, C classes of the table, M rows
of its largest class.
"""

import numbers
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.episode import EpisodeRows
from leo_tf.errors import InputError, quoted

# Part of the random stream's address. Renumbering would change every episode.
SPLITS = {"train": 0, "val": 1, "test": 2}
# The release tests on all 600 examples of a class: K support, 600 - K query.
RELEASE_EXAMPLES_PER_CLASS = 600
Count: TypeAlias = int | tf.Tensor  # of a Python loop, or [] in a graph
_PHILOX = 1  # `alg` of the raw random ops
_WORDS_PER_COUNTER = 4  # Philox-4x32 yields four 32-bit words per count
_OFFENDERS_SHOWN = 3
# With more classes, or rows of a class, a key for each would take too long.
# Changing it would change the episodes of larger tables.
_MOST_KEYS = 2**13
_MOST_DRAWN = 2**10  # of so many at most, far fewer than half are drawn twice
# Offset of the split's number, for the random words of unbalanced queries.
_UNBALANCED = 2**32
# The same for the shapes of mixed training episodes.
_SHAPES = 2**33
# Logarithms of gamma variates, of shapes from 0.01 to 1000, are found between these, by
# halving so often.
_LOGARITHMS, _HALVINGS = (-740.0, 12.0), 60


class ClassIndex(NamedTuple):
    """Rows of each class of a table: all that sampling needs."""

    rows: np.ndarray  # [rows] int32, the table's row numbers, ordered by class
    class_sizes: np.ndarray  # [C] int, how many of them each class has
    class_names: tuple[str, ...]  # C, for errors
    source: str  # of the table, for errors

    @classmethod
    def of(cls, table: EmbeddingTable) -> "ClassIndex":
        rows = np.argsort(table.labels, kind="stable").astype(np.int32)
        return cls(rows, table.class_sizes, table.class_names, table.source)


class RowSampler:
    """Draws N classes and K + Q examples of each, all without replacement.

    Every class is equally likely, whatever its size, and so is every row of a class.
    An episode is made of random 32-bit keys, one per class, then M for each chosen
    class: the largest keys win. (Two equal keys, odds 2^-32, prefer the earlier row;
    no row is ever taken twice.) The keys are words of one Philox-4x32 stream: `seed`
    is its key, the split the upper and the position the lower half of its counter,
    and episode i owns the i-th block of the positions. Philox finds any position at
    once, so a batch of neighbouring episodes costs a single draw, no two episodes of
    a sampler share a word, nor do two seeds or splits (samplers of other ways and
    shots may), and neither batch size nor start matters.

    From more than `_MOST_KEYS` classes or rows of a class, indices are drawn instead,
    and the first different ones win: so an episode takes as long from any table.

    With `query_dirichlet` there are N * Q queries in total. The number per class is
    drawn with N more words of another stream, so classes and support stay the same if
    classes have at most `_MOST_KEYS` rows. Proportions are Dirichlet, with one
    concentration for all classes, as in Veilleux et al., 2021 (arXiv:2204.11181),
    section 4. If a class has too few rows left, the other classes supply the rest, in
    proportion to theirs.

    Args:
      index: index of the table to draw from.
      way, shot, num_query: N, K and Q.
      seed: any 64-bit integer.
      split: "train", "val" or "test"; splits draw independently.
      query_dirichlet: the concentration, or None for Q queries of every class.

    Raises:
      InputError: if a number is below 1, the split is unknown, the table has fewer
        than `way` classes or a class fewer than `shot + num_query` rows.
    """

    def __init__(
        self,
        index: ClassIndex,
        *,
        way: int,
        shot: int,
        num_query: int,
        seed: int,
        split: str,
        query_dirichlet: float | None = None,
    ):
        for field, value in (("way", way), ("shot", shot), ("num_query", num_query)):
            check_at_least(1, field, value)
        if split not in SPLITS:
            raise InputError("`split`", ", ".join(SPLITS), quoted(split))
        _check_classes(index, way, shot, num_query, split)
        self.way, self.shot, self.num_query = way, shot, num_query
        self._dirichlet = query_dirichlet
        self._num_classes = len(index.class_sizes)
        self._largest_class = int(index.class_sizes.max())
        self._draws_classes = _draws(self._num_classes, way)
        most = shot + self._most_queries
        self._draws_rows = _draws(self._largest_class, most)
        self._row_keys = _MOST_KEYS if self._draws_rows else self._largest_class
        ends = np.cumsum(index.class_sizes)
        with tf.device("CPU:0"):  # tf.data runs there; a GPU would copy them back
            self._key = tf.constant([seed % 2**64], tf.uint64)
            self._split = tf.constant(SPLITS[split], tf.uint64)
            self._rows = tf.constant(index.rows, tf.int32)  # [rows]
            self._starts = tf.constant(ends - index.class_sizes, tf.int32)  # [C]
            self._sizes = tf.constant(index.class_sizes, tf.int32)  # [C]

    def __call__(self, first: Count, count: Count) -> EpisodeRows:
        """Draws the rows of episodes `first` to `first + count - 1`; B = `count`.

        Works alike eagerly and in a graph. Shapes are static if `count` is an int.
        """
        with tf.device("CPU:0"):
            class_words, row_keys, row_words = self._draw(first, count)
            if self._draws_classes:
                classes = _different(class_words, self._num_classes, self.way)  # [B, N]
            else:
                _, classes = tf.math.top_k(class_words, self.way)  # [B, N]
            sizes = tf.gather(self._sizes, classes)[..., tf.newaxis]  # [B, N, 1]
            # 0 is the least key, and top_k breaks ties in favour of the lower
            # position: a position past the class's end cannot win.
            exists = tf.range(self._row_keys) < sizes  # [B, N, M]
            row_keys = tf.where(exists, row_keys, tf.zeros_like(row_keys))
            _, taken = tf.math.top_k(row_keys, self.shot + self._most_queries)
            if self._draws_rows:
                drawn = _different(row_words, sizes, taken.shape[-1])
                taken = tf.where(sizes > _MOST_KEYS, drawn, taken)
            starts = tf.gather(self._starts, classes)[..., tf.newaxis]  # [B, N, 1]
            if self._dirichlet is None:
                rows = tf.gather(self._rows, starts + taken)  # [B, N, K + Q]
                support, query = rows[..., : self.shot], rows[..., self.shot :]
                return EpisodeRows(support, query, classes)
            words = self._words(first, count, self.way, _UNBALANCED)
            shares = _dirichlet(words, self._dirichlet)
            counts = self._counts(shares, sizes[..., 0] - self.shot)
            # A class of fewer rows than others ends in rows that are not its own:
            # they are never among the first `counts` of it.
            places = tf.minimum(starts + taken, len(self._rows) - 1)
            rows = tf.gather(self._rows, places)
            query, labels = self._in_turn(rows[..., self.shot :], counts)
        return EpisodeRows(rows[..., : self.shot], query, classes, labels)

    @property
    def _most_queries(self) -> int:
        """Returns the largest number of queries of one class."""
        if self._dirichlet is None:
            return self.num_query
        return min(self.way * self.num_query, self._largest_class - self.shot)

    def _counts(self, shares, left):
        """Returns [B, N] int32 queries of each class by its share, at most `left`."""
        total = self.way * self.num_query
        ends = tf.round(total * tf.cumsum(shares, axis=1))  # the last is N * Q
        ends, left = tf.cast(ends, tf.int64), tf.cast(left, tf.int64)
        counts = _between(ends)
        given = tf.minimum(counts, left)
        excess = tf.reduce_sum(counts - given, axis=1, keepdims=True)  # [B, 1]
        room = tf.cumsum(left - given, axis=1)
        # Rounded down everywhere, so that no class gets more than its room.
        more = _between(excess * room // tf.maximum(room[:, -1:], 1))
        return tf.cast(given + more, tf.int32)

    def _in_turn(self, rows, counts):
        """Returns [B, N, Q] rows and labels: the first `counts` of each class in turn.

        They are of rows [B, N, R]; counts [B, N] sum to N * Q.
        """
        total, ends = self.way * self.num_query, tf.cumsum(counts, axis=1)
        places = tf.tile(tf.range(total)[tf.newaxis], [tf.shape(counts)[0], 1])
        labels = tf.searchsorted(ends, places, side="right")  # [B, N * Q]
        rank = places - tf.gather(ends - counts, labels, batch_dims=1)
        query = tf.gather_nd(rows, tf.stack([labels, rank], axis=-1), batch_dims=1)
        shape = [-1, self.way, self.num_query]
        return tf.reshape(query, shape), tf.reshape(labels, shape)

    def _draw(self, first, count):
        """Returns random words: of the classes; [B, N, M] keys of rows; of numbers."""
        most = self.shot + self._most_queries
        sizes = [
            _words_to_draw(self.way) if self._draws_classes else self._num_classes,
            self.way * self._row_keys,
            self.way * _words_to_draw(most) * self._draws_rows,
        ]
        words = self._words(first, count, sum(sizes))
        classes, keys, numbers = tf.split(words, sizes, axis=1)
        keys = tf.reshape(keys, [count, self.way, self._row_keys])
        return classes, keys, tf.reshape(numbers, [count, self.way, -1])

    def _words(self, first, count, number, stream=0):
        """Returns [B, number] uint32 of episodes from `first` on, from one stream."""
        return _philox(self._key, self._split + stream, first, count, number)


def drawn_shapes(seed: int, first: Count, count: Count, shapes: int) -> tf.Tensor:
    """Returns [count] numbers of shapes, one per training step from `first` on.

    A pure function of (seed, step), by another stream of the generator of episodes.
    """
    with tf.device("CPU:0"):
        key = tf.constant([seed % 2**64], tf.uint64)
        stream = tf.constant(_SHAPES, tf.uint64)
        words = _philox(key, stream, first, count, 1)[:, 0]
        # Scales the word to a number; shapes are equally likely to within 2^-32.
        place = tf.cast(words, tf.uint64) * shapes
        return tf.cast(tf.bitwise.right_shift(place, 32), tf.int32)


def _philox(key, stream, first, count, number):
    """Returns [count, number] uint32 of a stream, `number` per position."""
    counters = -(-number // _WORDS_PER_COUNTER)
    position = tf.cast(tf.cast(first, tf.int64) * counters, tf.uint64)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count, counters * _WORDS_PER_COUNTER],
        key=key,
        counter=tf.stack([position, stream]),
        alg=_PHILOX,
        dtype=tf.uint32,
    )
    return words[:, :number]


def _draws(size: int, count: int) -> bool:
    """Tells whether `count` of `size` are drawn as numbers, not by a key for each."""
    return size > _MOST_KEYS and count <= _MOST_DRAWN


def _words_to_draw(count: int) -> int:
    """Returns how many words `_different` needs: two for a number, which may recur."""
    return 2 * (2 * count + 8)


def _different(words, sizes, count: int):
    """Returns [..., count] int32 below `sizes`, all different and equally likely.

    They are the first different ones of twice as many. That these are too few has odds
    below 2^-128, if `sizes` is above `_MOST_KEYS` and `count` at most `_MOST_DRAWN`.
    """
    high, low = tf.split(tf.cast(words, tf.uint64), 2, axis=-1)
    sizes = tf.cast(sizes, tf.uint64)
    # The upper half of the product of 64 random bits and a size below 2^31.
    carried = high * sizes + tf.bitwise.right_shift(low * sizes, 32)
    drawn = tf.cast(tf.bitwise.right_shift(carried, 32), tf.int32)
    order = tf.argsort(drawn, stable=True)
    drawn = tf.gather(drawn, order, batch_dims=order.shape.rank - 1)
    again = tf.concat([drawn[..., :1] < 0, drawn[..., 1:] == drawn[..., :-1]], axis=-1)
    late = tf.where(again, _words_to_draw(count), 0)
    _, first = tf.math.top_k(-(order + late), count)
    return tf.gather(drawn, first, batch_dims=first.shape.rank - 1)


def _dirichlet(words, concentration: float):
    """Returns [B, N] float64 proportions made from random words [B, N].

    They are normalised gamma variates, each the quantile of a uniform number. The
    quantile is found by bisection of its logarithm, which is never too small to
    distinguish from 0.
    """
    uniform = (tf.cast(words, tf.float64) + 0.5) / 2.0**32
    shape = tf.constant(concentration, tf.float64)

    def halve(number, low, high):
        middle = (low + high) / 2
        is_below = tf.math.igamma(shape, tf.exp(middle)) < uniform
        low, high = tf.where(is_below, middle, low), tf.where(is_below, high, middle)
        return number + 1, low, high

    limits = (tf.fill(tf.shape(words), tf.constant(x, tf.float64)) for x in _LOGARITHMS)
    state = 0, *limits
    _, low, _ = tf.while_loop(lambda number, *_: number < _HALVINGS, halve, state)
    return tf.nn.softmax(low)


def _between(ends):
    """Returns [B, N] differences between successive ends [B, N], the first from 0."""
    return ends - tf.pad(ends[:, :-1], [[0, 0], [1, 0]])


def largest_num_query(table: EmbeddingTable | ClassIndex, shot: int) -> int:
    """Returns the most queries per class that all classes have, at most 600 - `shot`.

    Raises:
      InputError: if a class has no row left after `shot`, or `shot` is not a count.
    """
    check_at_least(1, "shot", shot)
    _check_classes(table, 1, shot, 1)
    return min(int(table.class_sizes.min()), RELEASE_EXAMPLES_PER_CLASS) - shot


def episode_names(table: EmbeddingTable, rows: EpisodeRows) -> EpisodeRows:
    """Returns the names of examples and classes in place of their numbers.

    Raises:
      InputError: if the table names no examples.
    """
    if table.names is None:
        raise InputError(f"{table.source}: `names`", "a name for each row", "none")
    names = (table.names, table.names, np.array(table.class_names))
    found = (name[np.asarray(each)] for name, each in zip(names, rows))
    return EpisodeRows(*found)._replace(labels=rows.labels)


def check_at_least(least: int, field: str, value: object) -> None:
    """Raises an InputError unless the value is an integer >= `least`."""
    if not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"`{field}`", f"an integer of {least} or more", quoted(value))


def _check_classes(
    table: EmbeddingTable | ClassIndex,
    way: int,
    shot: int,
    num_query: int,
    split: str = "test",
) -> None:
    classes = len(table.class_sizes)
    if classes < way:
        expected = f"at least way = {way}"
        flag = "way" if split == "train" else "test_way"
        hint = f"--{flag}={classes} fits." if classes > 1 else ""
        where = f"{table.source}: classes for {split}"
        raise InputError(where, expected, str(classes), hint)
    small = np.flatnonzero(table.class_sizes < shot + num_query)
    if small.size:
        few = ", ".join(
            f"{quoted(table.class_names[c])} ({table.class_sizes[c]})"
            for c in small[:_OFFENDERS_SHOWN]
        )
        more = ", ..." if small.size > _OFFENDERS_SHOWN else ""
        expected = (
            f"shot + num_query = {shot} + {num_query} or more rows in every class"
        )
        received = f"{small.size} of {classes} classes with fewer: {few}{more}"
        fits = int(table.class_sizes.min()) - shot
        flag = "num_query" if split == "train" else "test_num_query"
        hint = "--drop_small_classes leaves such classes out."
        hint = f"--{flag}={fits} fits, or {hint}" if fits > 0 else hint
        raise InputError(f"{table.source}: `labels`", expected, received, hint)
