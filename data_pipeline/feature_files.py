"""Files of features to `EmbeddingTable`s, and back. See docs/data_formats.md."""

import contextlib
import functools
import io
import os
import stat
from collections.abc import Iterator, Sequence

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats import conversions
from leo_tf.data_pipeline.formats.names import (
    array_to_names,
    check_row_count,
    classes_of_keys,
    names_of_classes,
)
from leo_tf.data_pipeline.formats.npz import NpzFile
from leo_tf.data_pipeline.formats.tfrecord_framing import is_tfrecord
from leo_tf.data_pipeline.release_layout import HOLD_OUT_HINT, SHARE_HINT
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
        start = file.read(conversions.HEAD_BYTES)
        if is_tfrecord(start):  # first: its length may begin like the others
            # Imports TensorFlow, which takes seconds; the others need none.
            from leo_tf.data_pipeline.formats import tfrecord

            _refuse_split(path, split)
            return tfrecord.read_file(file, path, dtype)
        expected = "an .npz file, a TFRecord file or a pickle of the release"
        if other := conversions.kind_of(start, path):
            raise InputError(path, expected, *other)
        if start.startswith(_ZIP_MAGIC):
            return _load_npz(NpzFile(file, path), split, dtype)
        if start.startswith(_PICKLE_STARTS) or path.endswith(_PICKLE_SUFFIXES):
            _refuse_split(path, split, conversions.pickle_advice(file, path))
            return _keyed_table(**read_file(file, path), path=path, dtype=dtype)
    received = f"a file that begins with {shown(start[:8])}"
    hint = "np.savez(path, embeddings=x, labels=y) writes one of the rows of x."
    raise InputError(path, expected, received, hint)


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
            hint = "Whatever wrote or copied it did not finish: do that again."
            raise InputError(path, "a file with data", "an empty file", hint)
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
    if not npz.names:
        expected = "an .npz file: a zip of arrays"
        hint = "If it holds other files, unpack it, and give one of them."
        raise InputError(npz.path, expected, "a zip without any", hint)
    if not (splits := _splits_of(npz)):
        features, labels = _names_in(npz)
        _refuse_split(npz.path, split, SHARE_HINT)
        embeddings = npz.read(features, "f")
        classes = _read_texts(npz, labels, embeddings, "fiuSU")
        named = "names" in npz.names
        names = _read_texts(npz, "names", embeddings) if named else None
        return EmbeddingTable.of(embeddings, classes, names, npz.path, dtype)
    if split not in splits:
        few = ", ".join(map(shown, splits[:8]))
        received = "none" if split is None else shown(split)
        hint = HOLD_OUT_HINT if split == "val" and "train" in splits else ""
        raise InputError(npz.path, f"`split` to be one of {few}", received, hint)
    embeddings = npz.read(f"{_SPLIT_PREFIX}{split}", "f")
    keys = _read_texts(npz, f"keys_{split}", embeddings)
    return _keyed_table(embeddings, keys, f"{npz.path} ({split})", dtype)


def _names_in(npz: NpzFile) -> tuple[str, str]:
    """The names of the arrays of features and of labels.

    They are `embeddings` and `labels`, or else the only ones that mean as much.
    """
    found = []
    for own, others in zip(("embeddings", "labels"), conversions.FIELDS):
        there = [name for name in others if name in npz.names]
        found += [own] if own in npz.names else there if len(there) == 1 else []
    if len(found) == 2:
        return found[0], found[1]
    few = ", ".join(map(shown, sorted(npz.names)[:8]))
    expected = "arrays `embeddings` [rows, D] and `labels` [rows], or X and y"
    hint = conversions.npz_advice(npz.path, npz.names)
    raise InputError(npz.path, expected, f"a file with {few}", hint)


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
        change = ".ravel()" if 1 in array.shape else ".argmax(axis=1)"
        hint = conversions.rewrite_advice(npz.path, name, change)
        raise InputError(where, "shape [rows]", f"{array.shape}", hint)
    if len(array) != len(embeddings):
        expected = f"{len(embeddings)}, one a row of `embeddings`"
        raise InputError(where, expected, f"{len(array)}")
    refusal = functools.partial(InputError, where)
    check_row_count(len(array), embeddings[:1].nbytes, refusal)
    if array.dtype.kind in "SU":
        return array_to_names(array, refusal)
    return names_of_classes(array.tolist(), where)


def _text_array(names: Sequence[str], source: str) -> np.ndarray:
    array = np.array(names, dtype=str)
    for name, kept in zip(names, array.tolist()):
        if name != kept:
            expected = "no NUL at the end of a name"
            raise InputError(f"{source}: names", expected, shown(name))
    return array


def _refuse_split(path: str, split: str | None, advice: str = "") -> None:
    if split is not None:
        expected = f"a file of several splits, to read {shown(split)} of it"
        hint = f"{advice} Or give the directory of train, val and test, a file each."
        received = "a file of one split, or of all classes"
        raise InputError(path, expected, received, hint.strip())


def splits_in(path: AnyPath) -> list[str]:
    """Returns the names of the splits that one file holds; none of a file of one."""
    with open_input(path) as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return []
        return _splits_of(NpzFile(file, os.fspath(path)))


def _splits_of(npz: NpzFile) -> list[str]:
    if "embeddings" in npz.names:
        return []
    starts = [name for name in npz.names if name.startswith(_SPLIT_PREFIX)]
    return sorted(name.removeprefix(_SPLIT_PREFIX) for name in starts)
