"""Files of features to `EmbeddingTable`s, and back. See docs/data_formats.md."""

import contextlib
import functools
import io
import os
import stat
from collections.abc import Iterator, Sequence

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.names import (
    array_to_names,
    check_row_count,
    classes_of_keys,
)
from leo_tf.data_pipeline.formats.npz import NpzFile
from leo_tf.data_pipeline.formats.tfrecord_framing import HEAD_BYTES, is_tfrecord
from leo_tf.data_pipeline.release_pickle.reader import read_file
from leo_tf.errors import InputError, shown
from leo_tf.files import AnyPath, write_file

_ZIP_MAGIC = b"PK"
# PROTO of protocol 2 and later; a dict, a mark, a global of the earlier ones.
_PICKLE_STARTS = (b"\x80", b"}", b"(", b"c")
_PICKLE_SUFFIXES = (".pkl", ".pickle")
_SPLIT_PREFIX = "embeddings_"


def load(
    path: AnyPath, split: str | None = None, dtype: str = "float32"
) -> EmbeddingTable:
    """Reads one file of features: a release pickle, an .npz or a TFRecord file.

    What a file is, its content says. Rows keep the file's order; classes are in the
    order of their names, by value if all are integers.

    Args:
      path: of the file.
      split: which one to read of a file that holds several; None for a file of one.
      dtype: "float32" or "float64", to which the features are converted.

    Raises:
      InputError: naming the path and the field, if the file cannot be read or holds
        anything but what docs/data_formats.md describes.
    """
    path = os.fspath(path)
    with open_input(path) as file:
        start = file.read(HEAD_BYTES)
        if is_tfrecord(start):  # first: its length may begin like the others
            # Imports TensorFlow, which takes seconds; the others need none.
            from leo_tf.data_pipeline.formats import tfrecord

            _refuse_split(path, split)
            return tfrecord.read_file(file, path, dtype)
        if start.startswith(_ZIP_MAGIC):
            return _load_npz(NpzFile(file, path), split, dtype)
        if start.startswith(_PICKLE_STARTS) or path.endswith(_PICKLE_SUFFIXES):
            _refuse_split(path, split)
            return _keyed_table(**read_file(file, path), path=path, dtype=dtype)
    received = f"a file that begins with {shown(start[:8])}"
    expected = "an .npz file, a TFRecord file or a pickle of the release"
    raise InputError(path, expected, received)


@contextlib.contextmanager
def open_input(path: AnyPath) -> Iterator[io.BufferedReader]:
    """Opens a file with at least one byte for reading, for a `with` block.

    Raises:
      InputError: if it is missing, not a regular file, empty or not readable; also
        if reading fails inside the block.
    """
    path = os.fspath(path)
    try:
        try:
            # Asked before it is opened: opening a pipe without a writer never returns.
            status = os.stat(path)
        except ValueError as error:  # a NUL in the path
            raise InputError(ascii(path), "a path", str(error)) from None
        if stat.S_ISDIR(status.st_mode):
            raise InputError(path, "a file", "a directory")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(path, "a file", "a device, a pipe or a socket")
        if not status.st_size:
            raise InputError(path, "a file with data", "an empty file")
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(path, "a file", "nothing there") from None
    except OSError as error:
        raise InputError(path, "a readable file", str(error.strerror)) from None


def save_npz(path: AnyPath, table: EmbeddingTable) -> None:
    """Writes one split but for its pictures, so that `load(path)` gives it back.

    Raises:
      InputError: if a name ends with NUL, which NumPy's text cannot hold.
      DiskError: if the file, written beside and renamed into place, cannot be.
    """
    labels = _text_array(table.class_names, table.source)[table.labels]
    arrays = {"embeddings": table.embeddings, "labels": labels}
    if table.names is not None:
        arrays["names"] = _text_array(table.names.tolist(), table.source)
    write_file(path, lambda file: np.savez(file, **arrays))


def _load_npz(npz: NpzFile, split: str | None, dtype: str) -> EmbeddingTable:
    starts = [name for name in npz.names if name.startswith(_SPLIT_PREFIX)]
    splits = sorted(name.removeprefix(_SPLIT_PREFIX) for name in starts)
    if "embeddings" in npz.names or not splits:
        _refuse_split(npz.path, split)
        embeddings = npz.read("embeddings", "f")
        classes = _read_texts(npz, "labels", embeddings, "iuSU")
        named = "names" in npz.names
        names = _read_texts(npz, "names", embeddings) if named else None
        return EmbeddingTable.of(embeddings, classes, names, npz.path, dtype)
    if split not in splits:
        few = ", ".join(map(shown, splits[:8]))
        received = "none" if split is None else shown(split)
        raise InputError(npz.path, f"`split` to be one of {few}", received)
    embeddings = npz.read(f"{_SPLIT_PREFIX}{split}", "f")
    keys = _read_texts(npz, f"keys_{split}", embeddings)
    return _keyed_table(embeddings, keys, npz.path, dtype)


def _keyed_table(
    embeddings: np.ndarray, keys: list[str], path: str, dtype: str
) -> EmbeddingTable:
    classes = classes_of_keys(keys, f"{path}: `keys`")
    return EmbeddingTable.of(embeddings, classes, keys, path, dtype)


def _read_texts(
    npz: NpzFile, name: str, embeddings: np.ndarray, kinds: str = "SU"
) -> list[str]:
    array, where = npz.read(name, kinds), f"{npz.path}: `{name}`"
    # Counted before one is decoded: as an object it takes more memory than here.
    if array.ndim != 1:
        raise InputError(where, "shape [rows]", f"{array.shape}")
    if len(array) != len(embeddings):
        expected = f"{len(embeddings)}, one a row of `embeddings`"
        raise InputError(where, expected, f"{len(array)}")
    refusal = functools.partial(InputError, where)
    check_row_count(len(array), embeddings[:1].nbytes, refusal)
    if array.dtype.kind in "iu":
        return [str(number) for number in array.tolist()]
    return array_to_names(array, refusal)


def _text_array(names: Sequence[str], source: str) -> np.ndarray:
    array = np.array(names, dtype=str)
    for name, kept in zip(names, array.tolist()):
        if name != kept:
            expected = "no NUL at the end of a name"
            raise InputError(f"{source}: names", expected, shown(name))
    return array


def _refuse_split(path: str, split: str | None) -> None:
    if split is not None:
        expected = f"a file of several splits, to read {shown(split)} of it"
        raise InputError(path, expected, "a file of one split")
