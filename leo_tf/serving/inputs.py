"""The features and labels that users give a `Classifier`, as plain arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from leo_tf.serving.models import refused

_KINDS = {"b": "booleans", "i": "numbers", "u": "numbers", "f": "numbers"}
_KINDS |= {"U": "strings", "S": "bytes", "M": "dates"}


def checked_features(values: ArrayLike, size: int | None = None) -> np.ndarray:
    """Returns numbers [rows, D] as float32; D must be `size` if that is given.

    ValueError if they are not; what numbers they are is left to the model to check.
    """
    if hasattr(values, "toarray"):
        received = f"a sparse {type(values).__name__}: `toarray()` makes it dense"
        raise refused("features", "numbers [rows, D]", received)
    array = np.asarray(values)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            received = type(values).__name__
            raise refused("features", "numbers", received) from None
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        received = f"an array of {array.dtype} of shape {array.shape}"
        raise refused("features", "numbers [rows, D]", received)
    if size is not None and array.shape[1] != size:
        raise refused("features", f"{size} columns", f"{array.shape[1]} columns")
    with np.errstate(over="ignore"):  # infinite then, and refused by the model
        return array.astype(np.float32)


def checked_labels(values: ArrayLike, rows: int) -> np.ndarray:
    """Returns [rows] labels of one kind as a plain array; ValueError otherwise."""
    # NumPy would silently turn the 1 of [1, "a"] into a string.
    array = values if isinstance(values, np.ndarray) else np.asarray(values, object)
    if array.shape != (rows,):
        received = f"an array of shape {array.shape}"
        raise refused("labels", f"{rows} labels", received)
    if not rows:
        raise refused("labels", "one or more", "none")
    if array.dtype.kind == "O":
        _check_kinds({_kind(each) for each in array})
        array = np.array(array.tolist())
    _check_kinds({array.dtype.kind})
    if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
        received = "numbers with fractions. Unknown label type: continuous"
        raise refused("labels", "classes", received)
    return array


def fit_together(arrays: Sequence[np.ndarray]) -> bool:
    """Says whether arrays as `Classifier.save` writes them can be of one classifier."""
    classifier, classes, support, labels, health = arrays
    ranks = [array.ndim for array in arrays]
    return (
        ranks == [2, 1, 2, 1, 1]
        and len(classifier) == len(classes)
        and len(support) == len(labels)
        and len(health) == 2
        and classifier.dtype == support.dtype == np.float32
        and np.array_equal(np.unique(labels), classes)
    )


def _kind(label: object) -> str:
    is_list = np.asarray(label, object).ndim > 0
    return "O" if is_list else np.asarray(label).dtype.kind


def _check_kinds(kinds: set[str]) -> None:
    words = {_KINDS.get(kind, "others") for kind in kinds}
    if len(words) != 1 or "others" in words:
        expected = "all strings, numbers, booleans, bytes or dates"
        raise refused("labels", expected, " and ".join(sorted(words)))
