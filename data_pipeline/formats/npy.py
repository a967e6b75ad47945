"""Single arrays in .npy files, without pickle, and the labels beside them."""

import functools
import math
import os
import re
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from leo_tf.data_pipeline.formats.conversions import resave_advice
from leo_tf.data_pipeline.formats.npz import fill, map_large, read_header
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath, write_file

MAGIC = b"\x93NUMPY"
_LABEL_SUFFIXES = (".npy", ".csv", ".txt")


def read_array(file: BinaryIO, path: str, kinds: str) -> np.ndarray:
    """Reads the array in an open file: 1 or 2 axes, in the file's dtype.

    Raises:
      InputError: if it is of none of these `dtype.kind`s, or the file has another size
        than the header says.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)

    advice = functools.partial(resave_advice, path)
    try:
        dtype, shape, fortran = read_header(file, path, kinds, advice)
    except struct.error:
        raise InputError(path, "an undamaged array", "the beginning of one") from None
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != there:  # before anything is allocated
        raise InputError(path, f"{declared} bytes for shape {shape}", f"{there} bytes")
    if not declared:
        raise InputError(path, "an array that is not empty", f"shape {shape}")
    if not fortran:
        mapped = map_large(file, file.tell(), dtype, shape)
        if mapped is not None:
            return mapped
    flat = np.empty(math.prod(shape), dtype)
    fill(flat.view(np.uint8), file, path)
    return flat.reshape(shape, order="F" if fortran else "C")


def write_rows(
    path: AnyPath,
    dtype: Any,
    shape: tuple[int, ...],
    batches: Iterable[np.ndarray],
    *,
    lasts: bool = True,
) -> None:
    """Writes an array [rows, ...] in batches, without having all of it in memory.

    A mapped file that is filled would do so too, but the system ends a process that
    writes to one on a full disk.

    Args:
      path, lasts: as for `write_file`.
      dtype, shape: dtype and shape of the array. If there are other numbers of rows in
        the end, the file says so.
      batches: arrays [some rows, ...], in order.

    Raises:
      DiskError: as for `write_file`.
    """
    header = {"descr": np.dtype(dtype).str, "fortran_order": False}

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        rows = 0
        for batch in batches:
            file.write(np.ascontiguousarray(batch, dtype).data)
            rows += len(batch)
        if rows != shape[0]:
            # NumPy leaves room for the largest number of rows, so nothing moves.
            file.seek(0)
            fewer = (rows, *shape[1:])
            np.lib.format.write_array_header_1_0(file, {**header, "shape": fewer})

    write_file(path, write, lasts=lasts)


def labels_beside(path: str) -> str:
    """Returns the path of the labels that belong to an .npy file.

    For X.npy it is X_labels, X_y, y, or labels: one of them, as .npy, or as .csv or
    .txt with one label per line.

    Raises:
      InputError: if none of these files exists, or several do.
    """
    folder, stem = os.path.split(os.path.splitext(path)[0])
    stems = [f"{stem}_labels", f"{stem}_y"]
    stems.append(re.sub(r"^[Xx](?=_|$)", "y", stem))
    stems.append(re.sub(r"^(features|embeddings)(?=_|$)", "labels", stem))
    if stem not in SPLITS:  # these might belong to another split
        stems += ["labels", "y"]
    stems = [name for name in dict.fromkeys(stems) if name != stem]
    names = [name + suffix for name in stems for suffix in _LABEL_SUFFIXES]
    found = [name for name in names if os.path.exists(os.path.join(folder, name))]
    if len(found) == 1:
        return os.path.join(folder, found[0])
    received = " and ".join(map(quoted, found)) or "none of them"
    expected = f"the class of each row in one of {', '.join(names)} beside it"
    raise InputError(path, expected, received)
