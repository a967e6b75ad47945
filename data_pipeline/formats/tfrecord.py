"""Reads and writes TFRecord files of features: one `tf.train.Example` per row.

    embedding   D floats
    class       the name of the class
    name        the name of the example; in every row or in none

TensorFlow compares the checksums and parses the examples. It also gives memory for
whatever length a record claims, and ends the process if there is none: so the lengths
are checked first, see `tfrecord_framing.py`.
"""

import functools
import os
import re
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.names import (
    check_row_count,
    decode_names,
    index_classes,
)
from leo_tf.data_pipeline.formats.tfrecord_framing import scan
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath, write_file

# Bytes parsed at a time.
_BATCH_BYTES = 1 << 20
_FLOAT_BYTES = 4
# The latter if the message of the former has bytes of the file in it.
_DAMAGES = (tf.errors.OpError, UnicodeDecodeError)


def read_file(file: BinaryIO, path: str, dtype: str = "float32") -> EmbeddingTable:
    """Reads one split by `path`, after checking its record lengths in `file`.

    Raises:
      InputError: if a record is damaged, or not as described above.
    """
    file_size = file.seek(0, os.SEEK_END)
    rows, longest = scan(file, path)
    features, size = _features(path)
    row_bytes = size * _FLOAT_BYTES
    check_row_count(rows, row_bytes, functools.partial(InputError, path))
    if rows * row_bytes > file_size:
        expected = f"{rows} rows of {size} floats, as the first one"
        raise InputError(path, expected, f"a file of {file_size} bytes")
    embeddings = np.empty([rows, size], np.float32)
    texts = _parse(path, features, embeddings, max(1, _BATCH_BYTES // longest))
    names = decode_names(texts["name"]) if "name" in texts else None
    classes = index_classes(decode_names(texts["class"]))
    return EmbeddingTable.of(embeddings, classes, names, path, dtype)


def save_tfrecord(path: AnyPath, table: EmbeddingTable) -> None:
    """Writes one split without its pictures. `load(path)` restores it.

    Raises:
      InputError: if the table is of float64, because TFRecord has only float32, or a
        name cannot be encoded as UTF-8.
      DiskError: if the file, written beside and renamed into place, cannot be.
    """
    if table.embeddings.dtype != np.float32:
        received, hint = str(table.embeddings.dtype), "Write it with `save_npz`."
        raise InputError(f"{table.source}: `embeddings`", "float32", received, hint)
    classes = _encoded(table.class_names, table.source)
    names = None if table.names is None else _encoded(table.names, table.source)

    def write(file: BinaryIO) -> None:
        try:
            with tf.io.TFRecordWriter(file.name) as writer:
                for row, label in enumerate(table.labels):
                    columns = {"class": classes[label]}
                    if names is not None:
                        columns["name"] = names[row]
                    writer.write(_example(table.embeddings[row], columns))
        except tf.errors.OpError as error:
            raise OSError(error.message) from error

    write_file(path, write)


def _features(path: str) -> tuple[dict, int]:
    """Returns the features for `parse_example`, by the first example, and D."""
    types = {"embedding": tf.float32, "class": tf.string, "name": tf.string}
    kinds = {name: tf.io.VarLenFeature(dtype) for name, dtype in types.items()}
    try:
        [record] = tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()
        found = tf.io.parse_single_example(record, kinds)
    except _DAMAGES as error:
        raise _damaged(f"{path}: record 0", error) from None
    sizes = {name: int(found[name].shape[0]) for name in kinds}
    if not sizes["embedding"] or sizes["class"] != 1 or sizes["name"] > 1:
        expected = "`embedding` of floats, one `class`, and one `name` or none"
        received = ", ".join(f"{count} of `{name}`" for name, count in sizes.items())
        raise InputError(f"{path}: record 0", expected, received)
    shapes = {"embedding": [sizes["embedding"]], "class": [], "name": []}
    features = {
        name: tf.io.FixedLenFeature(shapes[name], types[name])
        for name in types
        if sizes[name]
    }
    return features, sizes["embedding"]


def _parse(path: str, features: dict, embeddings: np.ndarray, batch: int) -> dict:
    """Fills [rows, D]. Returns the other columns: name -> list of byte strings."""
    texts: dict[str, list[bytes]] = {n: [] for n in features if n != "embedding"}
    dataset = tf.data.TFRecordDataset(path, buffer_size=_BATCH_BYTES).batch(batch)
    filled = 0
    try:
        for examples in dataset:
            columns = tf.io.parse_example(examples, features)
            rows = columns["embedding"].numpy()  # [rows, D]
            embeddings[filled : filled + len(rows)] = rows
            filled += len(rows)
            for name, values in texts.items():
                values.extend(columns[name].numpy().tolist())
    except _DAMAGES as error:
        raise _damaged(f"{path}: record {filled} or later", error) from None
    if filled != len(embeddings):
        raise InputError(path, f"{len(embeddings)} records", f"{filled}")
    return texts


def _damaged(where: str, error: Exception) -> InputError:
    message = getattr(error, "message", "other bytes")
    # Without the name of the node in front, and of the operation behind.
    said = re.sub(r"\A\{\{.*?\}\} | \[Op:.*", "", message, flags=re.DOTALL)
    return InputError(where, "undamaged examples of the same features", quoted(said))


def _example(embedding: np.ndarray, texts: dict[str, bytes]) -> bytes:
    """Returns [D] floats and texts as a serialised `tf.train.Example`."""
    example = tf.train.Example()
    features = example.features.feature
    features["embedding"].float_list.value.extend(embedding.tolist())
    for name, text in texts.items():
        features[name].bytes_list.value.append(text)
    return example.SerializeToString()


def _encoded(names: Iterable[str], source: str) -> list[bytes]:
    try:
        return [name.encode("utf-8") for name in names]
    except UnicodeEncodeError as error:
        received = quoted(error.object)
        raise InputError(f"{source}: names", "text in UTF-8", received) from None
