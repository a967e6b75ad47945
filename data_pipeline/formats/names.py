"""Decodes the names of examples, and finds the class in a release's key."""

import numbers
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from leo_tf.errors import InputError, quoted

_OFFENDERS_SHOWN = 3
# Longer than any path. The bound keeps the search below linear in the file.
_LONGEST_KEY = 4096
_LAST_CODE_POINT = 0x10FFFF
_FREE_ROWS, _ROW_BYTES = 1 << 20, 128
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")

# (expected, received) -> the error to raise.
Refusal = Callable[[str, str], Exception]


def check_row_count(rows: int, row_bytes: int, refusal: Refusal) -> None:
    """Refuses more rows than their features' size justifies.

    A row's names, its class and what is made of them take some 300 bytes; its features
    take `row_bytes` in the file.
    """
    if rows > _FREE_ROWS and row_bytes < _ROW_BYTES:
        expected = f"at least {_ROW_BYTES} bytes per row beyond {_FREE_ROWS:,} rows"
        raise refusal(expected, f"{rows} rows of {row_bytes} bytes")


def decode_names(names: list[str | bytes]) -> list[str]:
    """Returns names as text.

    All byte strings of a file are assumed to have one encoding: UTF-8 if every one is
    valid UTF-8, which is unlikely by accident, else Latin-1, which decodes every byte.
    """

    def decoded(encoding):
        return [n if isinstance(n, str) else n.decode(encoding) for n in names]

    try:
        return decoded("utf-8")
    except UnicodeDecodeError:
        return decoded("latin-1")


def names_of_classes(labels: list[Any], where: str) -> list[str]:
    """Returns the class of each row as text; errors begin with `where`.

    Labels are all text, or all whole numbers, also as floats.
    """
    if all(isinstance(label, (str, bytes)) for label in labels):
        return decode_names(labels)
    for row, label in enumerate(labels):
        if isinstance(label, (bool, np.bool_)) or not isinstance(label, numbers.Real):
            expected = "all integers or all text"
            received = f"{quoted(label)}, a {type(label).__name__}, in row {row}"
            raise InputError(where, expected, received)
        if not float(label).is_integer():
            hint = "Classes are numbers or names; a row without a class is left out."
            raise InputError(where, "whole numbers", f"{label} in row {row}", hint)
    return [str(int(label)) for label in labels]


def array_to_names(array: np.ndarray, refusal: Refusal) -> list[str]:
    """Returns the texts of an array of bytes or text; refuses others."""
    if array.dtype.kind == "U":
        codes = np.ascontiguousarray(array).view(array.dtype.byteorder + "u4")
        if codes.size and codes.max() > _LAST_CODE_POINT:
            raise refusal("text", "numbers that are no characters")
    return decode_names(array.tolist())


def class_of_key(key: str) -> str | None:
    """Returns CLASS of a key `index-CLASS-CLASS_rest`, or None.

    `index` has no hyphen; CLASS may have hyphens and underscores. If two readings
    fit, as `aye` and `aye-aye_lemur` do in `7-aye-aye_lemur-aye-aye_lemur_3.jpg`, the
    longer class wins: more of the key repeats itself, so chance explains it less.
    """
    start = key.find("-") + 1
    if not start or len(key) > _LONGEST_KEY:
        return None
    hyphen = key.rfind("-", start + 1, (start + len(key)) // 2)
    while hyphen > 0:
        after = 2 * hyphen - start + 1  # Where the second CLASS ends.
        # The cheap question first.
        if key[after] == "_" and key.startswith(key[start:hyphen], hyphen + 1):
            return key[start:hyphen]
        hyphen = key.rfind("-", start + 1, hyphen)
    return None


def classes_of_keys(keys: list[str], where: str) -> list[str]:
    """Returns the class of each key; errors begin with `where`."""
    classes = [name for key in keys if (name := class_of_key(key)) is not None]
    if len(classes) < len(keys):
        wrong = [key for key in keys if class_of_key(key) is None]
        few = ", ".join(quoted(key[:_LONGEST_KEY]) for key in wrong[:_OFFENDERS_SHOWN])
        received = f"{len(wrong)} of another form, first {few}"
        raise InputError(where, "keys of the form index-CLASS-CLASS_rest", received)
    return classes


def index_array(
    array: np.ndarray, where: str, refusal: Refusal
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers the classes of an array of labels [rows]; see `index_classes`.

    Makes no Python object for each row: those of millions take seconds and 100 bytes
    each. Only text in no order needs them.
    """
    starts = np.flatnonzero(np.append(True, array[1:] != array[:-1]))
    sizes, values = np.diff(starts, append=len(array)), array[starts]
    if array.dtype.kind in "SU":
        labels, class_names = index_classes(array_to_names(values, refusal))
        return np.repeat(labels, sizes), class_names
    if not (np.isfinite(values) & (np.floor(values) == values)).all():
        names_of_classes(array.tolist(), where)  # names the row
    values, places = np.unique(values, return_inverse=True)
    labels, class_names = index_classes(names_of_classes(values.tolist(), where))
    return np.repeat(labels[places], sizes), class_names


def index_classes(classes: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers the classes in the order of their names.

    Integers are ordered by value if every name is one, so that labels 0, 1, ..., 10
    keep their numbers. The order does not depend on that of the rows. Returns labels
    [rows] int32, and a name for each class.
    """
    names = sorted(set(classes))
    if all(_INTEGER.fullmatch(name) for name in names):
        names.sort(key=int)
    number = {name: i for i, name in enumerate(names)}
    labels = np.fromiter((number[name] for name in classes), np.int32, len(classes))
    return labels, tuple(names)
