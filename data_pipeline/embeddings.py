"""EmbeddingTable: precomputed features, the class of each row, and their names."""

import collections
import dataclasses
import functools
import hashlib
import json
import math
import os
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath

# Rows of a table are checked and normalised this many bytes at a time, so that a
# large table never needs a second copy of itself, and a block stays in the
# processor's cache: that is three times as fast as blocks of 4 MiB.
_BLOCK_BYTES = 1 << 20
# From this size on features stay in their file, if they can.
LARGE_BYTES = 1 << 30
_OFFENDERS_SHOWN = 3
_ROWS_HINT = (
    "To leave such rows out: keep = np.isfinite(x).all(axis=1) & x.any(axis=1); "
    "x, y = x[keep], y[keep]"
)


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """One split of a data set: a row per example.

    The constructor checks all fields and converts them once, so it can be given the
    content of a file as it is. It leaves rows and dtype of a mapped array unchanged:
    `large_tables.prepared` checks and converts them, a block at a time.

    Raises:
      InputError: if a field is not as described below, a row has NaN or infinity or is
        zero, or a name occurs twice.
    """

    embeddings: np.ndarray  # [rows, D] features, of `dtype`, native byte order
    labels: np.ndarray  # [rows] int32, the class of each row, from 0
    class_names: tuple[str, ...]  # one per class; every class has a row
    names: np.ndarray | None = None  # [rows] of the examples
    images: np.ndarray | None = None  # [rows, H, W] uint8, for plots
    source: str = "embeddings"  # origin of the data; errors begin with it
    dtype: str = "float32"  # of the stored embeddings; or "float64"

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

    @classmethod
    def of(
        cls,
        embeddings: np.ndarray,
        classes: tuple[np.ndarray, tuple[str, ...]],
        names: Sequence[str] | np.ndarray | None,
        source: str,
        dtype: str,
        images: np.ndarray | None = None,
    ) -> "EmbeddingTable":
        """Builds a table from classes as `index_classes` numbers them."""
        # As objects, one long name does not widen all the others.
        text = None if names is None else np.array(names, dtype=object)
        return cls(embeddings, *classes, text, images, source, dtype)

    @property
    def embedding_size(self) -> int:
        """Number D of features of one example."""
        return self.embeddings.shape[1]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def class_sizes(self) -> np.ndarray:
        """[classes] int, the number of rows of each class."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over features, labels and names, in hexadecimal."""
        sha = self.digest_begun()
        for block in blocks(self.embeddings):
            sha.update(np.ascontiguousarray(block, self.dtype).data)
        sha.update(self.labels.tobytes())
        return sha.hexdigest()

    def in_memory(self) -> "EmbeddingTable":
        """Returns the table of a mapped file with its features read, and checked."""
        embeddings = np.array(self.embeddings, self.dtype)
        return dataclasses.replace(self, embeddings=embeddings)

    def digest_begun(self) -> "hashlib._Hash":
        """Returns the digest before features and then labels are added."""
        names = None if self.names is None else self.names.tolist()
        # JSON, because it marks where each text ends.
        described = [self.embeddings.shape, self.dtype, self.class_names, names]
        return hashlib.sha256(json.dumps(described).encode("ascii"))

    def with_classes(self, kept: np.ndarray) -> "EmbeddingTable":
        """Returns the table of the classes kept, [classes] bool, at least one."""
        rows = kept[self.labels]

        def of_rows(array):
            return None if array is None else array[rows]

        return dataclasses.replace(
            self,
            embeddings=_picked(self.embeddings, np.flatnonzero(rows)),
            labels=(np.cumsum(kept) - 1)[self.labels[rows]],
            class_names=tuple(np.array(self.class_names, object)[kept]),
            names=of_rows(self.names),
            images=of_rows(self.images),
        )

    def normalized(self) -> np.ndarray:
        """Returns a new array of embeddings of length 1, [rows, D].

        Source: the release normalises every embedding as it enters an episode
        (`data.py`); doing it once for the whole table gives the same numbers.
        """
        unit = np.empty(self.embeddings.shape, self.dtype)
        for block, out in zip(blocks(self.embeddings), blocks(unit)):
            self.unit(np.ascontiguousarray(block, self.dtype), out)
        return unit

    @staticmethod
    def scales(block: np.ndarray) -> np.ndarray:
        """Returns the two divisors of each row [n, D]: [n, 2].

        A row divided by both has length 1, as from `unit`.
        """
        largest = np.abs(block).max(axis=1, keepdims=True)
        length = np.linalg.norm(block / largest, axis=1, keepdims=True)
        return np.concatenate([largest, length], axis=1)

    @staticmethod
    def unit(block: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Returns rows [n, D] at length 1."""
        # Dividing by the largest entry first keeps the square in range.
        scaled = block / np.abs(block).max(axis=1, keepdims=True)
        return np.divide(scaled, np.linalg.norm(scaled, axis=1, keepdims=True), out=out)

    def _checked_embeddings(self) -> np.ndarray:
        array: Any = self.embeddings
        if not isinstance(array, MappedRows):
            array = np.asarray(array)
        require = functools.partial(self._require, "embeddings")
        require(array.dtype.kind == "f", "an array of floats", f"dtype {array.dtype}")
        is_table = array.ndim == 2 and array.size
        require(is_table, "shape [rows, D], not empty", f"{array.shape}")
        is_known = self.dtype in ("float32", "float64")
        require(is_known, "dtype float32 or float64", quoted(self.dtype))
        if mapping_of(array) is not None:
            return array
        with np.errstate(over="ignore"):  # a float64 that overflows is refused
            array = np.ascontiguousarray(array, dtype=self.dtype)
        first = 0
        for block in blocks(array):
            self.check_rows(block, first)
            first += len(block)
        return array

    def check_rows(self, block: np.ndarray, first: int) -> None:
        """Refuses rows that are non-finite or zero; `first` is the number of row 0.

        Raises:
          InputError: naming some of them.
        """
        # A finite sum proves a finite block. Otherwise each row is tested.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(block.sum(dtype=np.float64))
        bad = () if finite else ~np.isfinite(block).all(axis=1)
        self._refuse_rows(bad, first, "finite numbers", "non-finite (NaN or infinity)")
        zeros = ~block.any(axis=1)
        self._refuse_rows(zeros, first, "no row of zeros", "all zeros")

    def _refuse_rows(self, bad, first: int, expected: str, found: str) -> None:
        """Raises an InputError if rows of a block that starts at `first` are bad."""
        rows = np.flatnonzero(bad) + first
        few = ", ".join(str(row) for row in rows[:_OFFENDERS_SHOWN])
        if len(rows) > _OFFENDERS_SHOWN:
            few += f" and {len(rows) - _OFFENDERS_SHOWN} or more others"
        if few:
            verb = "row {} is" if len(rows) == 1 else "rows {} are"
            received = f"{verb.format(few)} {found}"
            where = f"{self.source}: `embeddings`"
            raise InputError(where, expected, received, _ROWS_HINT)

    def _checked_labels(self) -> np.ndarray:
        labels, classes = np.asarray(self.labels), self.num_classes
        require = functools.partial(self._require, "labels")
        is_list = labels.dtype.kind in "iu" and labels.ndim == 1
        received = f"dtype {labels.dtype}, shape {labels.shape}"
        require(is_list, "integers of shape [rows]", received)
        self._check_length("labels", labels)
        least, most = labels.min(), labels.max()
        fits = least >= 0 and most < classes
        require(fits, f"0 to {classes - 1}", f"{least} to {most}")
        self._check_once("class_names", self.class_names)
        for empty in np.flatnonzero(np.bincount(labels, minlength=classes) == 0):
            received = f"none of {quoted(self.class_names[empty])}"
            require(False, "every class to have rows", received)
        return labels.astype(np.int32, copy=False)

    def _checked_names(self) -> np.ndarray:
        names = np.asarray(self.names)
        self._require("names", names.ndim == 1, "shape [rows]", f"{names.shape}")
        self._check_length("names", names)
        for name in names.tolist() if names.dtype.kind != "U" else ():
            if not isinstance(name, str):
                self._require("names", False, "text", type(name).__name__)
        self._check_once("names", names.tolist())
        return names

    def _checked_images(self) -> np.ndarray:
        images = np.asarray(self.images)
        received = f"dtype {images.dtype}, shape {images.shape}"
        is_right = images.dtype == np.uint8 and images.ndim == 3
        self._require("images", is_right, "uint8 of shape [rows, H, W]", received)
        self._check_length("images", images)
        return images

    def _check_length(self, field: str, array: np.ndarray) -> None:
        rows = len(self.embeddings)
        self._require(field, len(array) == rows, f"{rows} rows", f"{len(array)}")

    def _check_once(self, field: str, names: Iterable[str]) -> None:
        for name, count in collections.Counter(names).items():
            if count > 1:
                self._require(field, False, "every name once", f"again: {quoted(name)}")

    def _require(self, field: str, right: object, expected: str, received: str) -> None:
        if not right:
            raise InputError(f"{self.source}: `{field}`", expected, received)


class MappedArray(np.memmap):
    """An array mapped by `map_array` or `map_npy`. Its views have no `status`."""

    status: tuple[int, ...] | None = None  # of the file when it was mapped


def map_array(file: BinaryIO, dtype: Any, begin: int, shape: Any) -> MappedArray:
    """Maps the array [rows, D] that begins at byte `begin` of a file."""
    # Copy-on-write, though never written: TensorFlow refuses read-only memory.
    found = MappedArray(file, dtype, "c", begin, shape)
    found.status = status_of(os.fstat(file.fileno()))
    return found


def map_npy(path: AnyPath) -> MappedArray:
    """Maps the array of an .npy file that this program has written.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged.
    """
    try:  # copy-on-write, as in `map_array`
        found = np.lib.format.open_memmap(path, mode="c").view(MappedArray)
    except (SyntaxError, tokenize.TokenError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
    found.status = status_of(os.stat(path))
    return found


def status_of(found: os.stat_result) -> tuple[int, ...]:
    """Returns a file's size, time and inode, which change when it is replaced."""
    return found.st_size, found.st_mtime_ns, found.st_ino


class MappedRows:
    """Some rows of a mapped array, used like an array. Slicing reads them."""

    def __init__(self, mapping: MappedArray, places: np.ndarray):
        self.mapping, self.places = mapping, places  # [rows] int, of the mapping
        self.shape, self.dtype = (len(places), mapping.shape[1]), mapping.dtype
        self.ndim, self.size = 2, math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.mapping[self.places[rows]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _picked(array: Any, rows: np.ndarray) -> Any:
    """Returns some rows of an array; those of a mapped one stay in their file."""
    if isinstance(array, MappedRows):
        return MappedRows(array.mapping, array.places[rows])
    mapping = mapping_of(array)
    return array[rows] if mapping is None else MappedRows(mapping, rows)


def mapping_of(array: np.ndarray | MappedRows) -> MappedArray | None:
    """Returns the mapped array behind `MappedRows` or a large, whole view; or None."""
    if isinstance(array, MappedRows):
        return array.mapping
    found: Any = array
    while found is not None and getattr(found, "status", None) is None:
        found = getattr(found, "base", None)
    if found is None or array.nbytes < LARGE_BYTES or array.dtype != found.dtype:
        return None
    mine, its = (x.__array_interface__ for x in (array, found))
    is_same = all(mine[name] == its[name] for name in ("data", "shape", "strides"))
    return found if is_same else None


def in_words(class_sizes: np.ndarray) -> str:
    """Returns the numbers of classes and examples as words."""
    few, many = int(class_sizes.min()), int(class_sizes.max())
    each = str(few) if few == many else f"{few} to {many}"
    return f"{len(class_sizes)} classes x {each} examples"


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the rows of an array, `_BLOCK_BYTES` at a time."""
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), rows):
        yield array[first : first + rows]
