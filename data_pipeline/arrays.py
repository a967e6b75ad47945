"""Converts arrays in memory to tables. Mistakes are reported, never guessed at."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.formats.names import (
    check_row_count,
    index_classes,
    names_of_classes,
)
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.data_pipeline.splits import check_splits
from leo_tf.errors import InputError, quoted


def tables_of(source: Mapping[str, Any], dtype: str) -> dict[str, EmbeddingTable]:
    """Returns the table of each split, checked alone and against the others."""
    other = [name for name in source if name not in SPLITS]
    if other or not source:
        received = ", ".join(map(quoted, other)) or "none"
        raise InputError("splits of data", f"some of {', '.join(SPLITS)}", received)
    found = [name for name in SPLITS if name in source]
    tables = {name: table_of(name, source[name], dtype) for name in found}
    check_splits(list(tables.values()))
    return tables


def table_of(split: str, given: Any, dtype: str) -> EmbeddingTable:
    """Returns the table of a pair of features and labels, or of another table."""
    if isinstance(given, EmbeddingTable):
        names_of_rows = [given.class_names[label] for label in given.labels]
        classes = index_classes(names_of_rows)
        features, names, images = given.embeddings, given.names, given.images
        table = EmbeddingTable.of(features, classes, names, given.source, dtype, images)
    else:
        source = f"arrays ({split})"
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            expected = "a pair (x, y) of features and labels"
            raise InputError(source, expected, type(given).__name__)
        features = _features(given[0], f"{source}: `embeddings`", dtype)
        labels = _classes(given[1], f"{source}: `labels`", len(features))
        classes = index_classes(labels)
        table = EmbeddingTable.of(features, classes, None, source, dtype)
    # The limit is that of files, so that a run can read its copy again.
    refusal = functools.partial(InputError, table.source)
    check_row_count(len(table.labels), table.embeddings[:1].nbytes, refusal)
    return table


def _features(x: Any, where: str, dtype: str) -> np.ndarray:
    """Returns a copy of x, [rows, D] numbers of `dtype`."""
    expected = "numbers [rows, D]"
    if hasattr(x, "toarray"):
        received = f"a sparse {type(x).__name__}"
        raise InputError(where, expected, received, "x.toarray() makes it dense.")
    if np.ma.is_masked(x):
        raise InputError(where, expected, "masked ones")
    try:
        array = np.asarray(x)
        if array.dtype.kind in "OV":  # number objects, or bfloat16
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        received = f"{type(x).__name__}: {error}"
        raise InputError(where, expected, received) from error
    if array.dtype.kind not in "biuf":
        raise InputError(where, expected, f"dtype {array.dtype}")
    if array.ndim != 2:
        sizes = f"{len(array)}, {math.prod(array.shape[1:])}" if array.ndim > 2 else ""
        hint = f"x.reshape({sizes}) makes a row of each example." if sizes else ""
        raise InputError(where, expected, f"shape {array.shape}", hint)
    with np.errstate(over="ignore"):  # an overflow is refused with its row
        return np.array(array, dtype)


def _classes(y: Any, where: str, rows: int) -> list[str]:
    """Returns the class name of each row."""
    # NumPy would turn the 1 of [1, "a"] into text.
    array = np.asarray(y, object) if isinstance(y, (list, tuple)) else np.asarray(y)
    if array.ndim != 1:
        hint = "y.ravel() makes one of a column, y.argmax(axis=1) of one-hot rows."
        received = f"shape {array.shape}"
        raise InputError(where, "a class for each row, shape [rows]", received, hint)
    if len(array) != rows:
        raise InputError(where, f"{rows}, one per row of `embeddings`", f"{len(array)}")
    return names_of_classes(array.tolist(), where)
