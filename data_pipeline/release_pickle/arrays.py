"""Inert stand-ins for what NumPy's pickles build, checked as they are made.

A global that a file names becomes a member of `Known`, which can do nothing; "calling"
one runs a function of ours that checks its arguments and remembers them.
"""

import enum
import math
import re
from typing import Any

import numpy as np

from leo_tf.data_pipeline.release_pickle.values import (
    Unexpected,
    check_length,
    fields,
    integers,
    kind_of,
    raw_bytes,
    short_text,
)
from leo_tf.errors import quoted

_DTYPE_STATE_VERSION = 3
_ARRAY_STATE_VERSION = 1
_DESCRIPTOR = re.compile(r"(f)([248])|([SU])([1-9]\d{0,8})|(O)8?")
_BYTES_PER_UNIT = {"f": 1, "S": 1, "U": 4, "O": 8}
_MAX_RANK = 2


# Globals that such files name. The members cannot do anything.
Known = enum.Enum(
    "Known", "RECONSTRUCT SCALAR FROMBUFFER NDARRAY DTYPE ENCODE ORDERED_DICT"
)

GLOBALS = {
    ("numpy", "ndarray"): Known.NDARRAY,
    ("numpy", "dtype"): Known.DTYPE,
    ("_codecs", "encode"): Known.ENCODE,
    ("collections", "OrderedDict"): Known.ORDERED_DICT,
    **{  # NumPy 2 renamed `core`.
        (f"numpy.{core}.{module}", name): known
        for core in ("core", "_core")
        for module, name, known in (
            ("multiarray", "_reconstruct", Known.RECONSTRUCT),
            ("multiarray", "scalar", Known.SCALAR),
            ("numeric", "_frombuffer", Known.FROMBUFFER),
        )
    },
}


class Dtype:
    """`numpy.dtype(...)` of floats, of text or of objects."""

    __slots__ = ("itemsize", "kind", "order")

    def __init__(self, arguments: object):
        descriptor, align, copy = fields(arguments, 3, "numpy.dtype")
        match = _DESCRIPTOR.fullmatch(short_text(descriptor))
        if not match:
            received = quoted(short_text(descriptor))
            raise Unexpected("dtype f2, f4, f8, S, U or O", received)
        self.kind = match[1] or match[3] or match[5]
        count = int(match[2] or match[4] or 1)
        self.itemsize = count * _BYTES_PER_UNIT[self.kind]
        self.order: str | None = None
        integers((align, copy), "dtype arguments")

    def build(self, state: object) -> None:
        """Does `__setstate__` with a byte order. Other fields must be the defaults."""
        values = fields(state, 8, "a dtype's state")
        version, order, subarray, names, offsets, size, alignment, flags = values
        integers((version, size, alignment, flags), "numbers in a dtype's state")
        if version != _DTYPE_STATE_VERSION or self.order is not None:
            raise Unexpected("one dtype state of version 3", f"version {version}")
        if not (subarray is names is offsets is None):
            raise Unexpected("a plain dtype", "a structured one")
        if size not in (-1, self.itemsize):
            raise Unexpected(f"item size {self.itemsize}", f"{size}")
        order = short_text(order)
        if order not in (("<", ">") if self.kind in "fU" else ("|",)):
            raise Unexpected("byte order < or >, | for bytes", quoted(order))
        self.order = order

    def to_numpy(self) -> np.dtype:
        count = self.itemsize // _BYTES_PER_UNIT[self.kind]
        return np.dtype(f"{self.order}{self.kind}{count}")


class Array:
    """An `ndarray` whose data stay as the file has them."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.data: Any = None

    def build(self, state: object) -> None:
        """Does `__setstate__` with version, shape, dtype, Fortran order and data."""
        version, shape, dtype, fortran, data = fields(state, 5, "an array's state")
        integers((version, fortran), "numbers in an array's state")
        if version != _ARRAY_STATE_VERSION or self.data is not None:
            raise Unexpected("one array state of version 1", f"version {version}")
        self.set(shape, dtype, bool(fortran), data)

    def set(self, shape: Any, dtype: object, fortran: bool, data: Any) -> None:
        """Takes over the data if their length is that of the declared shape."""
        if not isinstance(shape, tuple) or not 1 <= len(shape) <= _MAX_RANK:
            raise Unexpected("a shape of 1 or 2 axes", kind_of(shape))
        integers(shape, "a shape")
        # NumPy does not accept True for 1 there.
        if bool in map(type, shape) or min(shape) < 1:
            raise Unexpected("a shape of positive axes", f"{shape}")
        if not isinstance(dtype, Dtype) or dtype.order is None:
            raise Unexpected("a dtype with its state", kind_of(dtype))
        if dtype.kind == "O":
            if not isinstance(data, (list, tuple)):
                raise Unexpected("objects in a list", kind_of(data))
        else:
            check_length(data, math.prod(shape) * dtype.itemsize)
        self.shape, self.dtype, self.fortran, self.data = shape, dtype, fortran, data

    def to_numpy(self) -> np.ndarray:
        flat = np.frombuffer(raw_bytes(self.data), self.dtype.to_numpy())
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


class Scalar:
    """`numpy.core.multiarray.scalar(dtype, data)`: one name."""

    __slots__ = ("data", "dtype")

    def __init__(self, arguments: object):
        self.dtype, self.data = fields(arguments, 2, "a NumPy scalar")
        if not isinstance(self.dtype, Dtype) or self.dtype.order is None:
            raise Unexpected("a dtype with its state", kind_of(self.dtype))
        if self.dtype.kind not in "SU":
            raise Unexpected("a scalar of text", f"dtype {self.dtype.kind}")
        check_length(self.data, self.dtype.itemsize)

    def __len__(self) -> int:
        return self.dtype.itemsize

    def to_numpy(self) -> np.ndarray:
        return np.frombuffer(raw_bytes(self.data), self.dtype.to_numpy())


def reconstruct(arguments: object) -> Array:
    """Does `_reconstruct(ndarray, (0,), b"b")`: an array that awaits its state."""
    array_type, shape, code = fields(arguments, 3, "_reconstruct")
    if array_type is not Known.NDARRAY:
        raise Unexpected("numpy.ndarray", kind_of(array_type))
    if not (isinstance(shape, tuple) and len(shape) == 1 and shape[0] == 0):
        raise Unexpected("the shape (0,)", kind_of(shape))
    if short_text(code) != "b":
        raise Unexpected("the type code b", quoted(short_text(code)))
    return Array()


def frombuffer(arguments: object) -> Array:
    """Does `_frombuffer(data, dtype, shape, order)`, the form of protocol 5."""
    data, dtype, shape, order = fields(arguments, 4, "_frombuffer")
    if short_text(order) not in ("C", "F"):
        raise Unexpected("the order C or F", quoted(short_text(order)))
    array = Array()
    array.set(shape, dtype, short_text(order) == "F", data)
    return array
