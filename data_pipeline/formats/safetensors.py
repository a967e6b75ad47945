"""Reads arrays of safetensors files: a JSON header, then the bytes of each.

Source: the format's description in github.com/huggingface/safetensors. The package of
that name would be one more to install for these few lines, and has no bfloat16.
"""

import json
import math
import os
import struct
from typing import Any, BinaryIO

import numpy as np

from leo_tf.data_pipeline.formats.npz import fill, map_large
from leo_tf.errors import InputError, quoted

_LENGTH = struct.Struct("<Q")
_MOST_HEADER_BYTES = 1 << 20  # of some 10,000 arrays
_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BF16": "<u2"},
}


def is_safetensors(start: bytes) -> bool:
    """Tells by first bytes whether a file is safetensors."""
    return start[3:9] == b"\0\0\0\0\0{"


class SafetensorsFile:
    """The arrays of one open safetensors file. The caller closes the file.

    Raises:
      InputError: beginning with `path`, if it is not a safetensors file.
    """

    def __init__(self, file: BinaryIO, path: str):
        self._file, self.path = file, path
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        self._begin = _LENGTH.size + length
        if length > min(_MOST_HEADER_BYTES, size - _LENGTH.size):
            expected = f"a header of at most {_MOST_HEADER_BYTES} bytes, in the file"
            raise InputError(path, expected, f"{length} bytes of {size}")
        try:
            self._entries = json.loads(file.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(path, "a header in JSON", quoted(str(error))) from None
        self._bytes = size - self._begin

    @property
    def names(self) -> list[str]:
        """Names of the arrays in the file."""
        return [name for name in self._entries if name != "__metadata__"]

    def read(self, name: str, kinds: str) -> np.ndarray:
        """Reads one array of 1 or 2 axes. bfloat16 becomes float32.

        Raises:
          InputError: if it is of none of these `dtype.kind`s, or does not fit the file.
        """
        where = f"{self.path}: `{name}`"
        word, shape, first, last = self._entry(name, where)
        dtype = np.dtype(_DTYPES[word])
        kind = "f" if word == "BF16" else dtype.kind
        if kind not in kinds:
            hint = "Save it as float32." if kinds == "f" else ""
            expected = "floats" if kinds == "f" else "whole numbers, or floats"
            raise InputError(where, expected, f"dtype {word}", hint)
        if not 1 <= len(shape) <= 2:
            rows = f"x.reshape({shape[0]}, -1)" if shape else "An axis"
            hint = f"{rows} makes a row of each example."
            raise InputError(where, "shape [rows, D]", f"{tuple(shape)}", hint)
        declared = math.prod(shape) * dtype.itemsize
        if not first < last <= self._bytes or last - first != declared:
            expected = f"{declared} bytes, above 0, of the file's {self._bytes}"
            raise InputError(where, expected, f"those from {first} to {last}")
        if word != "BF16":
            mapped = map_large(self._file, self._begin + first, dtype, tuple(shape))
            if mapped is not None:
                return mapped
        array = np.empty(shape, dtype)
        self._file.seek(self._begin + first)
        fill(array.reshape(-1).view(np.uint8), self._file, where)
        if word != "BF16":
            return array
        return (array.astype("u4") << 16).view("f4")

    def _entry(self, name: str, where: str) -> tuple[str, list[int], int, int]:
        entry: Any = self._entries[name]
        try:
            word, shape = entry["dtype"], entry["shape"]
            first, last = entry["data_offsets"]
            numbers = [*shape, first, last]
            if not all(type(n) is int and 0 <= n < 1 << 60 for n in numbers):
                raise ValueError
            if word not in _DTYPES:
                raise InputError(where, f"one of {', '.join(_DTYPES)}", quoted(word))
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            expected = "dtype, shape and data_offsets"
            raise InputError(where, expected, quoted(entry)) from None
        return word, shape, first, last
