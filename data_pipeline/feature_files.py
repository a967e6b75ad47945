"""Files of features to `EmbeddingTable`s, and back. See docs/data_formats.md."""

import io
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.names import (
    array_to_names,
    check_row_count,
    classes_of_keys,
    index_classes,
)
from leo_tf.data_pipeline.formats.npz import NpzFile, write_npz
from leo_tf.data_pipeline.formats.open_input import open_input
from leo_tf.data_pipeline.formats.tfrecord_framing import HEAD_BYTES, is_tfrecord
from leo_tf.data_pipeline.release_pickle.reader import read_file
from leo_tf.errors import InputError, shown
from leo_tf.files import AnyPath

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
            return _load_npz(file, path, split, dtype)
        if start.startswith(_PICKLE_STARTS) or path.endswith(_PICKLE_SUFFIXES):
            _refuse_split(path, split)
            return _load_pickle(file, path, dtype)
    received = f"a file that begins with {shown(start[:8])}"
    expected = "an .npz file, a TFRecord file or a pickle of the release"
    raise InputError(path, expected, received)


def save_npz(path: AnyPath, table: EmbeddingTable) -> None:
    """Writes one split, so that `load(path)` gives it back.

    Args:
      path: of the file; it is written beside and renamed into place.
      table: its pictures, if any, are not written.

    Raises:
      InputError: if a name ends with NUL, which NumPy's text cannot hold.
      DiskError: if the file cannot be written.
    """
    arrays = {
        "embeddings": table.embeddings,
        "labels": _text_array(table.class_names, table.source)[table.labels],
    }
    if table.names is not None:
        arrays["names"] = _text_array(table.names.tolist(), table.source)
    write_npz(path, arrays)


def _load_pickle(file: io.BufferedReader, path: str, dtype: str) -> EmbeddingTable:
    content = read_file(file, path)
    return _keyed_table(content["embeddings"], content["keys"], path, dtype)


def _load_npz(
    file: BinaryIO, path: str, split: str | None, dtype: str
) -> EmbeddingTable:
    npz = NpzFile(file, path)
    splits = [
        name.removeprefix(_SPLIT_PREFIX)
        for name in npz.names
        if name.startswith(_SPLIT_PREFIX)
    ]
    if "embeddings" in npz.names or not splits:
        _refuse_split(path, split)
        return _load_labelled(npz, path, dtype)
    if split not in splits:
        few = ", ".join(shown(name) for name in sorted(splits)[:8])
        received = "none" if split is None else shown(split)
        raise InputError(path, f"`split` to be one of {few}", received)
    embeddings = npz.read(f"{_SPLIT_PREFIX}{split}", "f")
    keys = _read_names(npz, f"keys_{split}", path, embeddings)
    return _keyed_table(embeddings, keys, path, dtype)


def _load_labelled(npz: NpzFile, path: str, dtype: str) -> EmbeddingTable:
    embeddings = npz.read("embeddings", "f")
    labels = npz.read("labels", "iuSU")
    _check_count(labels, embeddings, f"{path}: `labels`")
    if labels.dtype.kind in "iu":
        classes = [str(label) for label in labels.tolist()]
    else:
        classes = _decoded(labels, f"{path}: `labels`")
    names = None
    if "names" in npz.names:
        names = _read_names(npz, "names", path, embeddings)
    labels, class_names = index_classes(classes)
    return EmbeddingTable(
        embeddings=embeddings,
        labels=labels,
        class_names=class_names,
        names=None if names is None else np.array(names, dtype=object),
        source=path,
        dtype=dtype,
    )


def _keyed_table(
    embeddings: np.ndarray, keys: list[str], path: str, dtype: str
) -> EmbeddingTable:
    labels, class_names = index_classes(classes_of_keys(keys, f"{path}: `keys`"))
    return EmbeddingTable(
        embeddings=embeddings,
        labels=labels,
        class_names=class_names,
        # Objects: one long name does not widen all the others.
        names=np.array(keys, dtype=object),
        source=path,
        dtype=dtype,
    )


def _read_names(
    npz: NpzFile, name: str, path: str, embeddings: np.ndarray
) -> list[str]:
    array = npz.read(name, "SU")
    _check_count(array, embeddings, f"{path}: `{name}`")
    return _decoded(array, f"{path}: `{name}`")


def _check_count(names: np.ndarray, embeddings: np.ndarray, where: str) -> None:
    """Before a name is decoded: as an object it takes more memory than in the array."""
    if names.ndim != 1:
        raise InputError(where, "shape [rows]", f"{names.shape}")
    if len(names) != len(embeddings):
        expected = f"{len(embeddings)}, one a row of `embeddings`"
        raise InputError(where, expected, f"{len(names)}")
    check_row_count(len(names), embeddings[:1].nbytes, where)


def _decoded(array: np.ndarray, where: str) -> list[str]:
    names = array_to_names(array)
    if names is None:
        raise InputError(where, "text", "numbers that are no characters")
    return names


def _text_array(names: Sequence[str], source: str) -> np.ndarray:
    array = np.array(names, dtype=str)
    changed = [name for name, kept in zip(names, array.tolist()) if name != kept]
    if changed:
        received = shown(changed[0])
        raise InputError(f"{source}: names", "no NUL at the end of a name", received)
    return array


def _refuse_split(path: str, split: str | None) -> None:
    if split is not None:
        expected = f"a file of several splits, to read {shown(split)} of it"
        raise InputError(path, expected, "a file of one split")
