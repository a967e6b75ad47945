"""Reads and writes files of features. See docs/data_formats.md."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats import arrow, conversions, npy
from leo_tf.data_pipeline.formats.array_tables import (
    ZIP_MAGIC,
    keyed_table,
    load_npy,
    load_npz,
    load_safetensors,
    refuse_split,
)
from leo_tf.data_pipeline.formats.names import index_classes
from leo_tf.data_pipeline.formats.npz import NpzFile
from leo_tf.data_pipeline.formats.opening import open_input
from leo_tf.data_pipeline.formats.safetensors import SafetensorsFile, is_safetensors
from leo_tf.data_pipeline.formats.text_table import (
    TextTable,
    is_text_table,
    read_table,
)
from leo_tf.data_pipeline.formats.tfrecord_framing import is_tfrecord
from leo_tf.data_pipeline.release_pickle.reader import read_file
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath, read_json, write_file

# The opcode PROTO of protocol 2 and later; a dict, mark or global of earlier ones.
_PICKLE_STARTS = (b"\x80", b"}", b"(", b"c")
_PICKLE_SUFFIXES = (".pkl", ".pickle")
EMBEDDING_FILE = "embedding.json"  # written beside features by --mode=embed
# Its fields that features depend on, besides the items.
_MADE_BY = ("backbone", "weights", "preprocessing", "views", "side")


def load(
    path: AnyPath,
    split: str | None = None,
    dtype: str = "float32",
    trust_data_files: bool = False,
) -> EmbeddingTable:
    """Reads one file of features, of any format in docs/data_formats.md.

    The format is recognised by content. Rows keep the file's order. Classes are sorted
    by name, or by value if all are integers.

    Args:
      path: path of the file.
      split: the split to read from a file of several; None for a file of one.
      dtype: "float32" or "float64", to which the features are converted.
      trust_data_files: reads Parquet and Arrow too, with a parser in C++ that a file
        might attack.

    Raises:
      InputError: if the file cannot be read, or is not as docs/data_formats.md
        describes; it names the path and the field.
    """
    path = os.fspath(path)
    with open_input(path) as file:
        start = file.read(conversions.HEAD_BYTES)
        if is_tfrecord(start):  # tested first: its length may look like another format
            # Imports TensorFlow, which takes seconds; the others need none.
            from leo_tf.data_pipeline.formats import tfrecord

            refuse_split(path, split)
            return tfrecord.read_file(file, path, dtype)
        if start.startswith(npy.MAGIC):
            refuse_split(path, split)
            return load_npy(file, path, dtype)
        if is_safetensors(start):
            refuse_split(path, split)
            return load_safetensors(SafetensorsFile(file, path), dtype)
        other = conversions.kind_of(start, path)
        if arrow.is_arrow(start, path):
            if not trust_data_files:
                raise arrow.untrusted(path, other[1] if other else "")
            refuse_split(path, split)
            return _of_rows(arrow.read_arrow(path, dtype), path, dtype)
        expected = "a file of one of the formats in docs/data_formats.md"
        if other:
            raise InputError(path, expected, *other)
        if is_text_table(start):
            refuse_split(path, split)
            return _of_rows(read_table(file, path, dtype), path, dtype)
        if start.startswith(ZIP_MAGIC):
            return load_npz(NpzFile(file, path), split, dtype)
        if start.startswith(_PICKLE_STARTS) or path.endswith(_PICKLE_SUFFIXES):
            refuse_split(path, split, conversions.pickle_advice(file, path))
            return keyed_table(**read_file(file, path), path=path, dtype=dtype)
    received = f"a file that begins with {quoted(start[:8])}"
    hint = "np.savez(path, embeddings=x, labels=y) writes one of the rows of x."
    raise InputError(path, expected, received, hint)


def made_by(path: AnyPath) -> dict[str, Any] | None:
    """Returns what made the features of a directory or file, or None if unknown.

    The `embedding.json` beside them says it. Features that differ in any of its fields
    must not be mixed.
    """
    place = pathlib.Path(path)
    file = (place.parent if place.is_file() else place) / EMBEDDING_FILE
    if not path or not file.is_file():
        return None
    try:
        found = read_json(file)
        return {name: found[name] for name in _MADE_BY}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "Make the features again, or remove this file if you know their source."
        expected = "the file that --mode=embed wrote"
        raise InputError(str(file), expected, quoted(str(error)), hint) from error


def save_npz(path: AnyPath, table: EmbeddingTable) -> None:
    """Writes one split without its pictures. `load(path)` restores it.

    Raises:
      InputError: if a name ends with NUL, which NumPy's text cannot hold.
      DiskError: if the file, written beside and renamed into place, cannot be.
    """
    labels = _text_array(table.class_names, table.source)[table.labels]
    arrays = {"embeddings": table.embeddings, "labels": labels}
    if table.names is not None:
        arrays["names"] = _text_array(table.names.tolist(), table.source)
    write_file(path, lambda file: np.savez(file, **arrays))


def _of_rows(found: TextTable, path: str, dtype: str) -> EmbeddingTable:
    classes = index_classes(found.classes)
    return EmbeddingTable.of(found.features, classes, None, path, dtype)


def _text_array(names: Sequence[str], source: str) -> np.ndarray:
    array = np.array(names, dtype=str)
    for name, kept in zip(names, array.tolist()):
        if name != kept:
            expected = "no NUL at the end of a name"
            raise InputError(f"{source}: names", expected, quoted(name))
    return array
