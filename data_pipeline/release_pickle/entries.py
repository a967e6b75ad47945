"""Converts the inert values of a release pickle to embeddings and names."""

from typing import Any

import numpy as np

from leo_tf.data_pipeline.formats.names import (
    array_to_names,
    check_row_count,
    decode_names,
)
from leo_tf.data_pipeline.release_pickle.arrays import Array, Scalar
from leo_tf.data_pipeline.release_pickle.values import (
    Encoded,
    Unexpected,
    fields,
    kind_of,
    short_text,
)
from leo_tf.errors import quoted

_FIELDS = ("embeddings", "keys")


class Entries(dict):
    """The file's dict, with the two known text keys, each set once."""

    def update_flat(self, values: list) -> None:
        """Adds key, value, key, value, ..."""
        if len(values) % 2:
            raise Unexpected("a value for each key", f"{len(values)} items")
        for key, value in zip(values[::2], values[1::2]):
            key = short_text(key)
            if key not in _FIELDS or key in self:
                raise Unexpected("`embeddings` and `keys`, once each", quoted(key))
            self[key] = value


def ordered_dict(arguments: object) -> Entries:
    """Does `OrderedDict()`, as Python 3 writes it, or `OrderedDict([[k, v], ...])`."""
    entries = Entries()
    if arguments != ():
        (pairs,) = fields(arguments, 1, "OrderedDict")
        for pair in pairs if isinstance(pairs, list) else (pairs,):
            if not isinstance(pair, list) or len(pair) != 2:
                raise Unexpected("pairs of key and value", kind_of(pair))
            entries.update_flat(pair)
    return entries


def read_entries(entries: object, size: int) -> dict[str, Any]:
    """Decodes the dict of a file of `size` bytes, which bounds its text."""
    if not isinstance(entries, Entries):
        raise Unexpected("a dict of `embeddings` and `keys`", kind_of(entries))
    for field in _FIELDS:
        if field not in entries:
            raise Unexpected(f"a dict with `{field}`", quoted(sorted(entries)))
    embeddings, names = _read_embeddings(entries["embeddings"]), entries["keys"]
    # Counted before decoding, because text takes more memory than the file.
    rows = len(embeddings)
    check_row_count(rows, embeddings[0].nbytes, Unexpected)
    is_array = isinstance(names, Array) and names.data is not None
    count = names.shape[0] if is_array else rows
    count = len(names) if isinstance(names, (list, tuple)) else count
    if count != rows:
        raise _unfit(f"{rows} names, one per row of `embeddings`", f"{count}")
    return {"embeddings": embeddings, "keys": _read_names(names, size)}


def _read_embeddings(value: object) -> np.ndarray:
    if not isinstance(value, Array) or value.data is None:
        raise Unexpected("`embeddings`: an array", kind_of(value))
    if value.dtype.kind != "f" or len(value.shape) != 2:
        received = f"dtype {value.dtype.kind} of shape {value.shape}"
        raise Unexpected("`embeddings`: floats of shape [rows, D]", received)
    return value.to_numpy()


def _read_names(value: Any, size: int) -> list[str]:
    if isinstance(value, Array) and value.data is not None:
        if len(value.shape) != 1:
            raise _unfit("one axis", f"shape {value.shape}")
        if value.dtype.kind in "SU":
            return array_to_names(value.to_numpy(), _unfit)
        if value.dtype.kind == "O" and len(value.data) == value.shape[0]:
            value = value.data
    if not isinstance(value, (list, tuple)):
        raise _unfit("a list or array of names", kind_of(value))
    # A long name repeated a million times is small in the file, but not here.
    length = 0
    for name in value:
        if not isinstance(name, (str, bytes, Scalar, Encoded)):
            raise _unfit("text or byte strings", kind_of(name))
        length += len(name)
    if length > size:
        raise _unfit("names no longer than the file", f"{length} bytes")
    return decode_names([_name(name) for name in value])


def _name(value: Any) -> str | bytes:
    if isinstance(value, Scalar):
        array = value.to_numpy()
        is_text = value.dtype.kind == "U"
        return array_to_names(array, _unfit)[0] if is_text else array.tolist()[0]
    if isinstance(value, Encoded):
        return bytes(value.encode())
    return value


def _unfit(expected: str, received: str) -> Unexpected:
    return Unexpected(f"`keys`: {expected}", received)
