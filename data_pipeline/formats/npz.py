"""Reads arrays of .npz files, without pickle and within bounds.

`numpy.load` allocates any size that a header declares, and inflates any content. This
module first compares the header of each array with the sizes in the zip's directory,
and those with the size of the file.
"""

import functools
import math
import os
import re
import struct
import zipfile
from collections.abc import Callable
from typing import IO, BinaryIO

import numpy as np

from leo_tf.data_pipeline import embeddings
from leo_tf.data_pipeline.formats.conversions import rewrite_advice
from leo_tf.errors import InputError, quoted
from leo_tf.files import ZIP_DAMAGES

_SUFFIX = ".npy"
# Features and their names compress to a third, not to a twentieth; a bomb compresses
# to a thousandth. Only the ratio tells them apart.
_MAX_INFLATION = 20
_FREE_BYTES = 1 << 20
_COPY_BYTES = 1 << 20
_MOST_DIRECTORY_BYTES = 1 << 18  # of some 4,000 arrays
_MAX_RANK = 2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAGIC = b"\x93NUMPY"
_LENGTH_FORMATS: dict[tuple[int, ...], str] = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
_LONGEST_HEADER = 4096
_LENGTHS_AT = 26  # in a member's own header: those of its name and of more
# Source: the format's description in `numpy.lib.format`: a dict, keys in this order.
_HEADER = re.compile(
    rb"\{'descr': *'([<>|=])([a-zA-Z])(\d{1,9})', *'fortran_order': *(True|False), *"
    # Commas between the numbers are required, or a failing match would never end.
    rb"'shape': *\(((?:\d{1,15}L?, *){0,8}(?:\d{1,15}L?)?)\),? *\} *\n?"
)


class NpzFile:
    """The arrays of one open .npz file. The caller closes the file.

    Raises:
      InputError: beginning with `path`, if it is not a zip file, or a forged one.
    """

    def __init__(self, file: BinaryIO, path: str):
        self.path, self._file = path, file
        self._bytes_left = _FREE_BYTES + _MAX_INFLATION * file.seek(0, os.SEEK_END)
        bounded = _BoundedReads(file)
        try:
            self._zip = zipfile.ZipFile(bounded)
            bounded.most = None  # the directory is read; arrays are bounded one by one
        except ZIP_DAMAGES as error:
            received = quoted(str(error))
            raise InputError(path, "an .npz file, undamaged", received) from None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.filename in self._members:
                received = f"{quoted(info.filename)} again"
                raise InputError(path, "every array once", received)
            self._members[info.filename] = info

    @property
    def names(self) -> list[str]:
        """Names of the arrays in the file."""
        return [n.removesuffix(_SUFFIX) for n in self._members if n.endswith(_SUFFIX)]

    def read(self, name: str, kinds: str) -> np.ndarray:
        """Reads one array of 1 or 2 axes, in the dtype and byte order of the file.

        Raises:
          InputError: if it is missing, damaged, of none of these `dtype.kind`s (of
            "fiuSU"), or larger than twenty times the file.
        """
        where = f"{self.path}: `{name}`"
        info = self._member(name, where)
        try:
            with self._zip.open(info) as member:
                advice = functools.partial(rewrite_advice, self.path, name)
                header = read_header(member, where, kinds, advice)
                dtype, shape, fortran = header
                size = math.prod(shape) * dtype.itemsize
                self._check_size(member.tell(), size, shape, info, where)
                if info.compress_type == zipfile.ZIP_STORED and not fortran:
                    begin = self._begin(info) + member.tell()
                    if (
                        mapped := map_large(self._file, begin, dtype, shape)
                    ) is not None:
                        return mapped
                flat = np.empty(math.prod(shape), dtype)
                fill(flat.view(np.uint8), member, where)
            # May fail for an array without items: (0, 999999999999999).
            return flat.reshape(shape, order="F" if fortran else "C")
        except InputError:
            raise
        except ZIP_DAMAGES as error:
            raise InputError(where, "undamaged data", quoted(str(error))) from None

    def _begin(self, info: zipfile.ZipInfo) -> int:
        """Returns where the content of a member begins, after its own header."""
        self._file.seek(info.header_offset + _LENGTHS_AT)
        return self._file.tell() + 4 + sum(struct.unpack("<HH", self._file.read(4)))

    def _member(self, name: str, where: str) -> zipfile.ZipInfo:
        info = self._members.get(name + _SUFFIX)
        if info is None:
            have = ", ".join(quoted(have) for have in sorted(self.names)[:8])
            raise InputError(where, "this array", f"a file with {have or 'none'}")
        if info.compress_type not in _METHODS:
            received = f"zip method {info.compress_type}"
            raise InputError(where, "an array stored or deflated", received)
        return info

    def _check_size(self, header_size: int, declared: int, shape, info, where: str):
        if header_size + declared != info.file_size:
            received = f"{info.file_size - header_size} bytes"
            raise InputError(where, f"{declared} bytes for shape {shape}", received)
        self._bytes_left -= declared
        if self._bytes_left < 0:
            expected = f"at most {_MAX_INFLATION} times the size of the file"
            hint = "If the data are right, write them with np.savez, uncompressed."
            raise InputError(where, expected, f"{declared} bytes", hint)


class _BoundedReads:
    """An open file whose reads are limited to `most` bytes, unless it is None.

    A zip's directory is read at once, and an entry of it takes fifteen times its size.
    """

    def __init__(self, file: BinaryIO):
        self.most: int | None = _MOST_DIRECTORY_BYTES
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._file = file

    def read(self, count: int = -1) -> bytes:
        if self.most is None:
            return self._file.read(count)
        wanted = self.most + 1 if count < 0 else min(count, self.most + 1)
        data = self._file.read(wanted)
        if len(data) > self.most:
            raise ValueError(f"a directory of more than {self.most} bytes")
        return data


def read_header(
    member: IO[bytes], where: str, kinds: str, advice: Callable[..., str]
) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Reads a header; returns dtype, shape and whether the order is Fortran's.

    `advice` makes a hint of a change to the array, in Python.
    """
    start = member.read(len(_MAGIC) + 2)
    length_format = _LENGTH_FORMATS.get(tuple(start[len(_MAGIC) :]))
    if start[: len(_MAGIC)] != _MAGIC or length_format is None:
        raise InputError(where, "an array as NumPy writes it", quoted(start))
    size = struct.calcsize(length_format)
    (length,) = struct.unpack(length_format, member.read(size))
    header = member.read(min(length, _LONGEST_HEADER))
    match = _HEADER.fullmatch(header)
    if not match:
        # Records have a list where the dtype stands; Python objects have '|O'.
        change = ".astype('float32')" if kinds == "f" else ".astype(str)"
        hint = advice(change, trust=True) if b"'|O'" in header else ""
        received = f"the header {quoted(header[:200])}"
        raise InputError(where, _expected(kinds), received, hint)
    order, kind, count, fortran, axes = (group.decode() for group in match.groups())
    if kind not in kinds:
        hint = advice(".astype('float32')") if kinds == "f" and kind in "biu" else ""
        raise InputError(where, _expected(kinds), f"dtype {order}{kind}{count}", hint)
    try:
        dtype = np.dtype(f"{order}{kind}{count}")
    except TypeError:
        raise InputError(where, "a dtype", f"{order}{kind}{count}") from None
    shape = tuple(int(axis) for axis in re.findall(r"\d+", axes))
    if not 1 <= len(shape) <= _MAX_RANK or not dtype.itemsize:
        received = f"{dtype} of shape {shape}"
        wanted = "1 or 2 axes of items of some size"
        if kinds == "f":
            wanted = "shape [rows, D], a row of numbers for each example"
        rows = f".reshape({shape[0]}, {math.prod(shape[1:])})" if shape else ""
        hint = advice(rows) if len(shape) > _MAX_RANK else ""
        raise InputError(where, wanted, received, hint)
    return dtype, shape, fortran == "True"


def _expected(kinds: str) -> str:
    words = {"f": "floats", "i": "integers", "u": "integers", "S": "text", "U": "text"}
    found = dict.fromkeys(words[kind] for kind in kinds if kind in words)
    return "an array of " + " or ".join(found)


def map_large(
    file: BinaryIO, begin: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Maps a large array [rows, D] of floats, if the file stores it as memory does.

    Otherwise returns None.

    Raises:
      ValueError: if the file ends before the array.
    """
    size = math.prod(shape) * dtype.itemsize
    is_table = dtype.kind == "f" and dtype.isnative and len(shape) == 2
    if size < embeddings.LARGE_BYTES or not is_table:
        return None
    if begin + size > file.seek(0, os.SEEK_END):
        raise ValueError("an array that ends after the file")
    return embeddings.map_array(file, dtype, begin, shape)


def fill(out: np.ndarray, member: IO[bytes], where: str) -> None:
    """Fills bytes from a file, a part at a time."""
    # `zipfile` compares the checksum as the last byte is read.
    filled = 0
    while filled < len(out):
        data = member.read(min(_COPY_BYTES, len(out) - filled))
        if not data:
            raise InputError(where, f"{len(out)} bytes", f"{filled}")
        out[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
        filled += len(data)
