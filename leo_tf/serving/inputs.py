"""Converts features and labels given to a `Classifier` to plain arrays."""

import datetime
import json
import numbers
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from leo_tf.errors import RequestError, one_line, refused

_KINDS = {"b": "booleans", "i": "numbers", "u": "numbers", "f": "numbers"}
_KINDS |= {"U": "strings", "S": "bytes", "M": "dates"}
# Scikit-learn's limit, for the same message.
_NAMES_SHOWN = 5
# Of --mode=embed, and its fields that must be those of the model's features.
_EMBEDDING_FILE = "embedding.json"
SAME = ("weights", "preprocessing", "views", "side")
_MOST_BYTES = 2**20


def checked_features(values: ArrayLike, size: int | None = None) -> np.ndarray:
    """Returns numbers [rows, D] as float32; D must be `size` if that is given.

    Raises a ValueError for other types and shapes. The model checks the values.
    """
    if hasattr(values, "toarray"):
        received = f"a sparse {type(values).__name__}: `toarray()` makes it dense"
        raise refused("features", "numbers [rows, D]", received)
    try:
        array = np.asarray(values)
    except ValueError:
        raise refused("features", "numbers [rows, D]", "ragged rows") from None
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            received = _text_column(values, array)
            raise refused("features", "numbers", received) from None
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        received = f"an array of {array.dtype} of shape {array.shape}"
        raise refused("features", "numbers [rows, D]", received)
    if size is not None and array.shape[1] != size:
        raise refused("features", f"{size} columns", f"{array.shape[1]} columns")
    with np.errstate(over="ignore"):  # the model refuses an overflow
        return array.astype(np.float32)


def _text_column(values: Any, array: np.ndarray) -> str:
    """Returns where an array of objects has the first that is not a number."""
    columns = array.T if array.ndim == 2 else array[np.newaxis]
    names = getattr(values, "columns", range(len(columns)))
    for name, column in zip(names, columns):
        for each in column:
            try:
                float(0 if each is None else each)  # None is NaN
            except (TypeError, ValueError):
                kind = type(each).__name__
                return f"{kind} {repr(each)[:40]} in the column {name!r}"
    return type(values).__name__


def feature_names(values: Any) -> np.ndarray | None:
    """Returns [D] names of a DataFrame's columns if they are text, else None.

    Raises:
      RequestError: if only some are text.
    """
    names = np.asarray(list(getattr(values, "columns", ())), object)
    kinds = sorted({type(name).__name__ for name in names})
    if len(kinds) > 1 and "str" in kinds:
        raise refused("features", "column names that are all text", ", ".join(kinds))
    return names if kinds == ["str"] else None


def check_feature_names(given: np.ndarray | None, fitted: np.ndarray | None) -> None:
    """Compares names with those of `fit`, with scikit-learn's messages."""
    if given is None or fitted is None:
        message = ""
        if given is not None:
            message = "X has feature names, but Classifier was fitted without"
        elif fitted is not None:
            message = (
                "X does not have valid feature names, but Classifier was fitted with"
            )
        if message:
            warnings.warn(f"{message} feature names", UserWarning, stacklevel=4)
        return
    if np.array_equal(given, fitted):
        return
    said = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted({*given} - {*fitted}), sorted({*fitted} - {*given})
    for title, names in (
        ("Feature names unseen at fit time:", unseen),
        ("Feature names seen at fit time, yet now missing:", missing),
    ):
        if names:
            lines = [f"- {name}" for name in names[:_NAMES_SHOWN]]
            lines += ["- ..."] * (len(names) > _NAMES_SHOWN)
            said += "\n".join([title, *lines, ""])
    if not unseen and not missing:
        said += "Feature names must be in the same order as they were in fit.\n"
    raise RequestError(said)


def checked_labels(
    values: ArrayLike, rows: int, like: np.ndarray | None = None, name: str = "labels"
) -> np.ndarray:
    """Returns [rows] labels of one kind as a plain array.

    If `like` is given, their kind must be that of these labels. Raises a RequestError
    for other labels.
    """
    # NumPy would silently turn the 1 of [1, "a"] into a string.
    array = values if isinstance(values, np.ndarray) else np.asarray(values, object)
    if array.shape != (rows,):
        received = f"an array of shape {array.shape}"
        raise refused(name, f"{rows} labels", received)
    if not rows:
        raise refused(name, "one or more", "none")
    if array.dtype.kind == "O":
        objects = [_plain(each) for each in array]
        is_list = any(np.asarray(each, object).ndim for each in objects)
        _check_kinds({"others"} if is_list else {_kind(each) for each in objects})
        array = np.array(objects)
        kept = array if array.dtype.kind == "M" else array.tolist()
        changed = [given for given, held in zip(objects, kept) if given != held]
        if changed:  # zeros at the end of text and bytes, digits of large integers
            raise refused(name, "labels that NumPy can store", repr(changed[0]))
    _check_kinds({_kind(array)})
    if like is not None and _kind(array) != _kind(like):
        raise refused(name, f"{_kind(like)}, as at `fit`", _kind(array))
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
        received = "numbers with fractions. Unknown label type: continuous"
        raise refused(name, "classes", received)
    return array


def check_same_embedding(path: str | os.PathLike[str], made: Any) -> None:
    """Refuses features of another backbone than the model's.

    Args:
      path: the embedding.json of the features, or its directory.
      made: what the model records of its own.
    """
    file = pathlib.Path(path)
    file = file / _EMBEDDING_FILE if file.is_dir() else file
    try:
        with file.open("rb") as opened:
            mine = json.loads(opened.read(_MOST_BYTES))
        mine = {name: mine[name] for name in SAME}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        expected, received = "an embedding.json of --mode=embed", one_line(str(error))
        if isinstance(error, KeyError):
            received = f"one without {received}"
        raise refused(f"embedding: {file}", expected, received) from None
    theirs = made if isinstance(made, dict) else {}
    for name, value in mine.items():
        if theirs.get(name) != value:
            expected = f"the `{name}` of the model's features, {theirs.get(name)!r}"
            raise refused(f"embedding: {file}", expected, repr(value))


def with_unknown(classes: np.ndarray, unknown: Any) -> np.ndarray:
    """Returns [N + 1] the classes and then `unknown`, all unchanged.

    Raises a ValueError if it is one of the classes, or no array can hold all.
    """
    last = checked_labels([unknown], 1, classes, "unknown")
    try:
        every = np.concatenate([classes, last])
        kept = every[:-1].astype(classes.dtype), every[-1:].astype(last.dtype)
        is_kept = all(map(np.array_equal, kept, (classes, last)))
    except (TypeError, ValueError, OverflowError):
        is_kept = False
    if not is_kept or every[-1] in every[:-1]:
        expected = "a label of no class that fits in an array with the classes"
        raise refused("unknown", expected, repr(last[0].item()))
    return every


def checked_share(name: str, share: Any) -> float:
    """Returns a number from 0 to 1. Raises a RequestError for anything else."""
    if not isinstance(share, numbers.Real) or not 0 <= float(share) <= 1:
        raise refused(name, "a number from 0 to 1", repr(share))
    return float(share)


def fit_together(arrays: Sequence[np.ndarray], names: np.ndarray | None = None) -> bool:
    """Tells whether arrays of `Classifier.save` belong to one classifier."""
    classifier, classes, support, labels, diagnostics = arrays
    ranks = [array.ndim for array in arrays]
    return (
        ranks == [2, 1, 2, 1, 1]
        and len(classifier) == len(classes)
        and len(support) == len(labels)
        and len(diagnostics) == 2
        and (names is None or names.shape == support.shape[1:])
        and classifier.dtype == support.dtype == np.float32
        and np.array_equal(np.unique(labels), classes)
    )


def _plain(label: Any) -> Any:
    """Returns a date as a NumPy date, and any other label unchanged."""
    if not isinstance(label, datetime.date) or label != label:  # pandas.NaT
        return label
    if getattr(label, "tzinfo", None) is not None:
        expected = "dates without a time zone, which would be lost"
        raise refused("labels", expected, repr(label))
    of_pandas = getattr(label, "to_datetime64", None)  # keeps nanoseconds
    return of_pandas() if of_pandas else np.datetime64(label)


def _kind(label: Any) -> str:
    """Returns the kind of a label, or of an array of them, in words."""
    array = np.asarray(label)
    is_missing = label is None or type(label).__name__ in ("NAType", "NaTType")
    if is_missing or (array.dtype.kind in "fM" and not np.isfinite(array).all()):
        return "missing values (None, NaN) or infinity"
    return _KINDS.get(array.dtype.kind, "others")


def _check_kinds(kinds: set[str]) -> None:
    if len(kinds) != 1 or not kinds <= {*_KINDS.values()}:
        expected = "all strings, numbers, booleans, bytes or dates"
        raise refused("labels", expected, " and ".join(sorted(kinds)))
