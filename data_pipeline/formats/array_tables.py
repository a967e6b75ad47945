"""Reads named arrays: .npz and safetensors files, .npy files with a file of labels."""

import functools
import os
from typing import BinaryIO

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats import conversions, npy
from leo_tf.data_pipeline.formats.names import (
    array_to_names,
    check_row_count,
    classes_of_keys,
    index_array,
    index_classes,
)
from leo_tf.data_pipeline.formats.npz import NpzFile
from leo_tf.data_pipeline.formats.opening import open_input
from leo_tf.data_pipeline.formats.safetensors import SafetensorsFile
from leo_tf.data_pipeline.formats.text_table import read_labels
from leo_tf.data_pipeline.release_layout import HOLD_OUT_HINT, SHARE_HINT
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath

ZIP_MAGIC = b"PK"
_SPLIT_PREFIX = "embeddings_"


def load_npz(npz: NpzFile, split: str | None, dtype: str) -> EmbeddingTable:
    """Returns the table of an .npz file, or of one of its splits."""
    if not npz.names:
        expected = "an .npz file: a zip of arrays"
        hint = "If it holds other files, unpack it, and give one of them."
        raise InputError(npz.path, expected, "a zip without any", hint)
    if not (splits := _splits_of(npz)):
        features, labels = _names_in(npz)
        refuse_split(npz.path, split)
        embeddings = npz.read(features, "f")
        where, array = _read_column(npz, labels, "fiuSU")
        classes = _classes_of(array, where, embeddings)
        named = "names" in npz.names
        names = _read_names(npz, "names", embeddings) if named else None
        return EmbeddingTable.of(embeddings, classes, names, npz.path, dtype)
    if split not in splits:
        few = ", ".join(map(quoted, splits[:8]))
        received = "none" if split is None else quoted(split)
        hint = HOLD_OUT_HINT if split == "val" and "train" in splits else ""
        raise InputError(npz.path, f"`split` to be one of {few}", received, hint)
    embeddings = npz.read(f"{_SPLIT_PREFIX}{split}", "f")
    keys = _read_names(npz, f"keys_{split}", embeddings)
    return keyed_table(embeddings, keys, f"{npz.path} ({split})", dtype)


def load_npy(file: BinaryIO, path: str, dtype: str) -> EmbeddingTable:
    """Returns the table of an .npy file and of the labels beside it."""
    embeddings, where = npy.read_array(file, path, "f"), npy.labels_beside(path)
    with open_input(where) as labels:
        if labels.read(len(npy.MAGIC)) == npy.MAGIC:
            array = npy.read_array(labels, where, "fiuSU")
            classes = _classes_of(array, where, embeddings)
        else:
            _check_rows(len(embeddings), where, embeddings)
            classes = index_classes(read_labels(labels, where, len(embeddings)))
    return EmbeddingTable.of(embeddings, classes, None, path, dtype)


def load_safetensors(tensors: SafetensorsFile, dtype: str) -> EmbeddingTable:
    """Returns the table of a safetensors file."""
    features, labels = _names_in(tensors)
    embeddings = tensors.read(features, "f")
    where = f"{tensors.path}: `{labels}`"
    classes = _classes_of(tensors.read(labels, "fiu"), where, embeddings)
    return EmbeddingTable.of(embeddings, classes, None, tensors.path, dtype)


def keyed_table(
    embeddings: np.ndarray, keys: list[str], path: str, dtype: str
) -> EmbeddingTable:
    """Returns the table of rows whose keys contain the class, as in the release."""
    classes = index_classes(classes_of_keys(keys, f"{path}: `keys`"))
    return EmbeddingTable.of(embeddings, classes, keys, path, dtype)


def splits_in(path: AnyPath) -> list[str]:
    """Returns the names of the splits in one file, or [] if it is a single table."""
    with open_input(path) as file:
        if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
            return []
        return _splits_of(NpzFile(file, os.fspath(path)))


def refuse_split(path: str, split: str | None, advice: str = SHARE_HINT) -> None:
    """Raises an InputError if `split` is wanted of a file without splits."""
    if split is not None:
        expected = f"a file of several splits, to read {quoted(split)} of it"
        hint = f"{advice} Or give the directory of train, val and test, a file each."
        received = "a file of one split, or of all classes"
        raise InputError(path, expected, received, hint.strip())


def _splits_of(npz: NpzFile) -> list[str]:
    if "embeddings" in npz.names:
        return []
    starts = [name for name in npz.names if name.startswith(_SPLIT_PREFIX)]
    return sorted(name.removeprefix(_SPLIT_PREFIX) for name in starts)


def _names_in(npz: NpzFile | SafetensorsFile) -> tuple[str, str]:
    """Returns the names of the arrays of features and of labels.

    They are `embeddings` and `labels`, or else the only ones that mean as much.
    """
    found = []
    for own, others in zip(("embeddings", "labels"), conversions.FIELDS):
        there = [name for name in others if name in npz.names]
        found += [own] if own in npz.names else there if len(there) == 1 else []
    if len(found) == 2:
        return found[0], found[1]
    few = ", ".join(map(quoted, sorted(npz.names)[:8]))
    expected = "arrays `embeddings` [rows, D] and `labels` [rows], or X and y"
    hint = "Save them as X and y."
    if isinstance(npz, NpzFile):
        hint = conversions.npz_advice(npz.path, npz.names)
    raise InputError(npz.path, expected, f"a file with {few}", hint)


def _read_names(npz: NpzFile, name: str, embeddings: np.ndarray) -> list[str]:
    where, array = _read_column(npz, name, "SU")
    _check_rows(len(array), where, embeddings)
    return array_to_names(array, functools.partial(InputError, where))


def _read_column(npz: NpzFile, name: str, kinds: str) -> tuple[str, np.ndarray]:
    """Returns where an array of one axis is, for errors, and the array."""
    array, where = npz.read(name, kinds), f"{npz.path}: `{name}`"
    if array.ndim != 1:
        change = ".ravel()" if 1 in array.shape else ".argmax(axis=1)"
        hint = conversions.rewrite_advice(npz.path, name, change)
        raise InputError(where, "shape [rows]", f"{array.shape}", hint)
    return where, array


def _classes_of(
    array: np.ndarray, where: str, embeddings: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    # Counted before decoding, because objects take more memory than the array.
    if array.ndim != 1:
        raise InputError(where, "shape [rows]", f"{array.shape}")
    _check_rows(len(array), where, embeddings)
    return index_array(array, where, functools.partial(InputError, where))


def _check_rows(count: int, where: str, embeddings: np.ndarray) -> None:
    if count != len(embeddings):
        expected = f"{len(embeddings)}, one per row of `embeddings`"
        raise InputError(where, expected, f"{count}")
    refusal = functools.partial(InputError, where)
    check_row_count(count, embeddings[:1].nbytes, refusal)
