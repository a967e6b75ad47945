"""EmbeddingTable: precomputed features, the class of each row, and their names."""

import collections
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import NoReturn

import numpy as np

from leo_tf.errors import InputError, shown

# Rows of a table are checked and normalised this many bytes at a time, so that a
# large table never needs a second copy of itself.
_BLOCK_BYTES = 1 << 22
_OFFENDERS_SHOWN = 3
_NUMBERS_HINT = (
    "If the numbers begin anew in each split, make them distinct, for example "
    'labels = [f"train{label}" for label in labels].'
)


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """One split of a data set: a row per example.

    Construct it with whatever a file holds; `__post_init__` checks everything and
    converts once to float32 (or keeps float64 if `dtype` says so).

    Attributes:
      embeddings: [rows, D] features, float32 or float64, native byte order.
      labels: [rows] int32, the class of each row: an index into `class_names`.
      class_names: one name a class; every class has at least one row.
      names: [rows] names of the examples, or None.
      images: [rows, H, W] uint8 pictures of the examples, for plots, or None.
      source: where the table came from; errors begin with it.
      dtype: of the embeddings after conversion, "float32" or "float64".

    Raises:
      InputError: if any of this does not hold, or a row is NaN, infinite or zero,
        or a name occurs twice.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: np.ndarray | None = None
    images: np.ndarray | None = None
    source: str = "embeddings"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)
        set_field("source", os.fspath(self.source))
        set_field("class_names", tuple(str(name) for name in self.class_names))
        set_field("embeddings", self._checked_embeddings())
        set_field("labels", self._checked_labels())
        if self.names is not None:
            set_field("names", self._checked_names())
        if self.images is not None:
            set_field("images", self._checked_images())

    @property
    def embedding_size(self) -> int:
        """D, the number of features of one example."""
        return self.embeddings.shape[1]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def class_sizes(self) -> np.ndarray:
        """[classes] int: how many rows each class has."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over features, labels and names, in hexadecimal."""
        names = None if self.names is None else self.names.tolist()
        # JSON, so that where one text ends and the next begins cannot be mistaken.
        described = [self.embeddings.shape, self.dtype, self.class_names, names]
        sha = hashlib.sha256(json.dumps(described).encode("ascii"))
        for block in _blocks(self.embeddings):
            sha.update(block.data)
        sha.update(self.labels.tobytes())
        return sha.hexdigest()

    def normalized(self) -> np.ndarray:
        """[rows, D] embeddings of length 1, a new array.

        Source: the release normalises every embedding as it enters an episode
        (`data.py`); doing it once for the whole table gives the same numbers.
        """
        unit = np.empty_like(self.embeddings)
        for block, out in zip(_blocks(self.embeddings), _blocks(unit)):
            # Dividing by the largest entry first keeps the square in range.
            scaled = block / np.abs(block).max(axis=1, keepdims=True)
            np.divide(scaled, np.linalg.norm(scaled, axis=1, keepdims=True), out=out)
        return unit

    def _checked_embeddings(self) -> np.ndarray:
        array = np.asarray(self.embeddings)
        where = f"{self.source}: `embeddings`"
        if array.dtype.kind != "f":
            raise InputError(where, "an array of floats", f"dtype {array.dtype}")
        if array.ndim != 2 or not array.size:
            raise InputError(where, "shape [rows, D], not empty", f"{array.shape}")
        if self.dtype not in ("float32", "float64"):
            raise InputError(where, "dtype float32 or float64", shown(self.dtype))
        with np.errstate(over="ignore"):  # a float64 too large becomes inf: refused
            array = np.ascontiguousarray(array, dtype=self.dtype)
        first = 0
        for block in _blocks(array):
            self._check_rows(block, first, where)
            first += len(block)
        return array

    def _check_rows(self, block: np.ndarray, first: int, where: str) -> None:
        # A finite sum proves a finite block; only else is each row looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(block.sum(dtype=np.float64))
        if not finite:
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if bad.size:
                found = "NaN or infinity"
                self._refuse_rows(where, "finite numbers", found, bad + first)
        zero = np.flatnonzero(~block.any(axis=1))
        if zero.size:
            self._refuse_rows(where, "no row of zeros", "zeros", zero + first)

    def _refuse_rows(
        self, where: str, expected: str, found: str, rows: np.ndarray
    ) -> NoReturn:
        few = ", ".join(str(row) for row in rows[:_OFFENDERS_SHOWN])
        more = f" and {len(rows) - _OFFENDERS_SHOWN} or more others"
        more = more if len(rows) > _OFFENDERS_SHOWN else ""
        word = "row" if len(rows) == 1 else "rows"
        raise InputError(where, expected, f"{found} in {word} {few}{more}")

    def _checked_labels(self) -> np.ndarray:
        labels = np.asarray(self.labels)
        where = f"{self.source}: `labels`"
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            received = f"dtype {labels.dtype}, shape {labels.shape}"
            raise InputError(where, "integers of shape [rows]", received)
        self._check_length("labels", labels)
        classes = len(self.class_names)
        if labels.min() < 0 or labels.max() >= classes:
            received = f"{labels.min()} to {labels.max()}"
            raise InputError(where, f"0 to {classes - 1}", received)
        twice = _repeated(self.class_names)
        if twice:
            field = f"{self.source}: `class_names`"
            raise InputError(field, "every name once", f"again: {shown(twice)}")
        empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
        if empty.size:
            name = shown(self.class_names[empty[0]])
            raise InputError(where, "every class to have rows", f"none of {name}")
        return labels.astype(np.int32, copy=False)

    def _checked_names(self) -> np.ndarray:
        names = np.asarray(self.names)
        where = f"{self.source}: `names`"
        if names.ndim != 1:
            raise InputError(where, "shape [rows]", f"{names.shape}")
        self._check_length("names", names)
        if names.dtype.kind != "U":
            other = [name for name in names.tolist() if not isinstance(name, str)]
            if other:
                raise InputError(where, "text", type(other[0]).__name__)
        twice = _repeated(names.tolist())
        if twice:
            raise InputError(where, "every name once", f"again: {shown(twice)}")
        return names

    def _checked_images(self) -> np.ndarray:
        images = np.asarray(self.images)
        if images.dtype != np.uint8 or images.ndim != 3:
            received = f"dtype {images.dtype}, shape {images.shape}"
            where = f"{self.source}: `images`"
            raise InputError(where, "uint8 of shape [rows, H, W]", received)
        self._check_length("images", images)
        return images

    def _check_length(self, field: str, array: np.ndarray) -> None:
        if len(array) != len(self.embeddings):
            where = f"{self.source}: `{field}`"
            raise InputError(where, f"{len(self.embeddings)} rows", f"{len(array)}")


def join(tables: list[EmbeddingTable]) -> EmbeddingTable:
    """One table of all rows of `tables`; their classes must differ.

    The release's `train_on_val` joins train and val this way.

    Raises:
      InputError: if a class or an example name is in two tables, or sizes differ.
    """
    check_splits(tables)
    first = [0, *np.cumsum([table.num_classes for table in tables])[:-1]]
    labels = [table.labels + start for table, start in zip(tables, first)]
    with_names = all(table.names is not None for table in tables)
    with_images = all(table.images is not None for table in tables)
    return EmbeddingTable(
        embeddings=np.concatenate([table.embeddings for table in tables]),
        labels=np.concatenate(labels),
        class_names=tuple(name for table in tables for name in table.class_names),
        names=np.concatenate([t.names for t in tables]) if with_names else None,
        images=np.concatenate([t.images for t in tables]) if with_images else None,
        source=" + ".join(table.source for table in tables),
        dtype=tables[0].dtype,
    )


def check_splits(tables: list[EmbeddingTable]) -> None:
    """Refuses splits that share a class or differ in embedding size.

    Raises:
      InputError: naming both files and the first few shared classes.
    """
    for i, table in enumerate(tables):
        for earlier in tables[:i]:
            if table.embedding_size != earlier.embedding_size:
                expected = f"D = {earlier.embedding_size} as in {earlier.source}"
                where = f"{table.source}: `embeddings`"
                raise InputError(where, expected, f"D = {table.embedding_size}")
            shared = sorted(set(table.class_names) & set(earlier.class_names))
            if shared:
                few = ", ".join(shown(name) for name in shared[:_OFFENDERS_SHOWN])
                expected = f"no class of {earlier.source}"
                received = f"{len(shared)} shared, first {few}"
                hint = _NUMBERS_HINT if all(map(str.isdecimal, shared)) else ""
                raise InputError(f"{table.source}: classes", expected, received, hint)


def in_words(class_sizes: np.ndarray) -> str:
    """Returns how many classes and examples there are, in words."""
    few, many = int(class_sizes.min()), int(class_sizes.max())
    each = str(few) if few == many else f"{few} to {many}"
    return f"{len(class_sizes)} classes x {each} examples"


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), rows):
        yield array[first : first + rows]


def _repeated(names: Iterable[str]) -> str | None:
    counts = collections.Counter(names)
    return next((name for name, count in counts.items() if count > 1), None)
