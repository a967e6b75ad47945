"""Reads Parquet and Arrow files, and folders saved by Hugging Face's `datasets`.

Uses pyarrow, the extra `arrow`. Its parser is a large C++ program, so such files are
read only if the user trusts them.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from leo_tf.data_pipeline.formats.names import names_of_classes
from leo_tf.data_pipeline.formats.text_table import LABELS, TextTable
from leo_tf.errors import InputError, quoted
from leo_tf.files import read_json

# Written by `save_to_disk` beside the data.
STATE_FILE = "state.json"
_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"
_FLAG_HINT = "--trust_data_files, because its C++ parser may be unsafe"
# Column of row numbers that pandas writes.
_INDEX = "__index_level_0__"


def is_arrow(start: bytes, path: str) -> bool:
    """Tells by first bytes, or name, whether a file is for `read_arrow`."""
    by_name = os.path.basename(path) == STATE_FILE
    is_stream = start.startswith(_STREAM) and path.endswith(".arrow")
    return by_name or is_stream or start.startswith((_PARQUET, _ARROW))


def untrusted(path: str, advice: str) -> InputError:
    """Returns the error of a file that the user has not declared trusted."""
    received = "a file of Arrow or Parquet"
    return InputError(path, _FLAG_HINT, received, advice)


def read_arrow(path: str, dtype: str) -> TextTable:
    """Reads a file, or the folder that a `state.json` is in.

    The class is in the column called label, class, y or target. Features are in the one
    column of lists of numbers or, without one, in all other columns. Class numbers
    become names if `datasets` stored names.

    Raises:
      InputError: if it cannot be read, or holds anything else.
    """
    try:
        import pyarrow
    except ImportError as error:
        hint = 'pip install pyarrow, or "leo-tf[arrow]".'
        raise InputError(path, "pyarrow, to read it", str(error), hint) from None
    try:
        table = pyarrow.concat_tables(list(_tables(path)))
        table = table.unify_dictionaries()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, "an undamaged file", quoted(str(error))) from None
    if twice := {n for n in table.column_names if table.column_names.count(n) > 1}:
        raise InputError(path, "every column once", f"{quoted(min(twice))} again")
    labels = [name for name in table.column_names if name in LABELS]
    if len(labels) != 1 or not table.num_rows:
        few = ", ".join(map(quoted, table.column_names[:8]))
        expected = f"rows, and one column of {', '.join(LABELS[:4])}"
        received = f"{table.num_rows} rows of {few}"
        raise InputError(path, expected, received)
    found = names_of_classes(table[labels[0]].to_pylist(), f"{path}: `{labels[0]}`")
    classes = _named(found, table.schema, labels[0], f"{path}: `{labels[0]}`")
    names = [n for n in table.column_names if n not in (labels[0], _INDEX)]
    lists = [n for n in names if _is_list(table.schema.field(n).type)]
    if len(lists) == 1:
        features = _of_lists(table[lists[0]], f"{path}: `{lists[0]}`")
    elif lists or not names:
        few = ", ".join(map(quoted, lists)) or "none"
        raise InputError(path, "one column of lists, or columns of numbers", few)
    else:
        columns = [_numbers(table[n], f"{path}: `{n}`") for n in names]
        features = np.stack(columns, axis=1)
    with np.errstate(over="ignore"):  # an overflow is refused with its row
        return TextTable(features.astype(dtype, copy=False), classes)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    tests = types.is_list, types.is_large_list, types.is_fixed_size_list
    return any(test(kind) for test in tests)


def _tables(path: str) -> Iterator[Any]:
    """Yields the table of a file, or those that a `state.json` lists."""
    from pyarrow import ipc, parquet

    files = [path]
    if os.path.basename(path) == STATE_FILE:
        state = read_json(pathlib.Path(path))
        if not isinstance(state, dict) or state.get("_indices_files"):
            hint = "dataset.flatten_indices().save_to_disk(...) writes its rows."
            expected = "a state of `datasets` without indices"
            raise InputError(path, expected, quoted(state), hint)
        entries = state.get("_data_files") or []
        files = [
            os.path.join(os.path.dirname(path), os.path.basename(entry["filename"]))
            for entry in entries
            if isinstance(entry, dict) and isinstance(entry.get("filename"), str)
        ]
    for name in files:
        with open(name, "rb") as file:
            start = file.read(len(_ARROW))
            file.seek(0)
            if start.startswith(_PARQUET):
                yield parquet.ParquetFile(file).read()
            elif start == _ARROW:
                yield ipc.open_file(file).read_all()
            else:
                yield ipc.open_stream(file).read_all()


def _named(classes: list[str], schema: Any, label: str, where: str) -> list[str]:
    """Returns class names in place of their numbers, if `datasets` stored names.

    Raises:
      InputError: if a number is negative, as that of a row without a class.
    """
    try:
        kept = json.loads((schema.metadata or {})[b"huggingface"])
        names = kept["info"]["features"][label]["names"]
        numbers, names = [int(number) for number in classes], [*map(str, names)]
    except (KeyError, ValueError, TypeError):
        return classes
    if min(numbers) < 0:
        hint = "Leave out the rows without a class."
        raise InputError(where, "numbers of classes", str(min(numbers)), hint)
    return classes if max(numbers) >= len(names) else [names[n] for n in numbers]


def _of_lists(column: Any, where: str) -> np.ndarray:
    """Returns the array [rows, D] of a column of lists of equal length."""
    sizes = {len(row) if row.is_valid else 0 for row in column}
    if len(sizes) > 1 or 0 in sizes:
        received = f"{min(sizes)} to {max(sizes)}"
        raise InputError(where, "lists of one length, none missing", received)
    parts = [_numbers(chunk.flatten(), where) for chunk in column.chunks]
    return np.concatenate(parts).reshape(len(column), -1)


def _numbers(array: Any, where: str) -> np.ndarray:
    if array.null_count:
        raise InputError(where, "numbers", f"{array.null_count} missing ones")
    found = array.to_numpy() if hasattr(array, "chunks") else array.to_numpy(False)
    if found.dtype.kind not in "fiu" or found.ndim != 1:
        hint = "Features are numbers; leave other columns out."
        raise InputError(where, "numbers", f"a column of {array.type}", hint)
    return found
