"""Tables too large to load: their rows are read from the disk as episodes need them.

A large array stored in its file as NumPy holds it in memory is mapped, not read. Before
the first training all of it is read once and checked. The result is kept in the user's
cache directory, where later starts find it by the file's path, size, time and inode.
All processes share the pages of the file.

tables/KEY.npy    [rows, 2] what to divide each row by for length 1; or [rows, D] rows
                  of length 1, if TensorFlow cannot use the file's own
tables/KEY.json   the file they are from, and the digest of its table

Replace a mapped file, and do not write over it: the system kills a process that reads a
page which is no longer there.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import (
    EmbeddingTable,
    MappedArray,
    blocks,
    map_npy,
    mapping_of,
)
from leo_tf.data_pipeline.formats.npy import write_rows
from leo_tf.data_pipeline.glyphs import cache
from leo_tf.errors import DiskError, InputError
from leo_tf.files import read_json, to_json, write_file

_SPARE_BYTES = 1 << 28  # that stay free on the disk
_ALIGNMENT = 64  # bytes: where the memory of a tensor must begin
_DAY = 86_400.0  # seconds, longer than any write takes


def lies_ready(table: EmbeddingTable) -> bool:
    """Tells whether TensorFlow can use the rows of a mapped table where they are."""
    mapping = mapping_of(table.embeddings)
    if mapping is None or mapping.dtype != table.dtype:
        return False
    return mapping.ctypes.data % _ALIGNMENT == 0


def prepared(table: EmbeddingTable, console: Console = SILENT) -> MappedArray | None:
    """Checks a mapped table, or finds that it was checked already.

    After that the table knows its digest.

    Returns:
      Mapped: [rows, 2], see `EmbeddingTable.scales`, if the table `lies_ready`;
      otherwise [rows, D] of length 1. None if the table is in memory, or there is no
      room to keep them.

    Raises:
      InputError: if a row has NaN or infinity, is zero, or has no number above 1e-38.
    """
    if (mapping := mapping_of(table.embeddings)) is None:
        return None
    shape = len(table.labels), 2 if lies_ready(table) else table.embedding_size
    if (path := _path(table, mapping, shape)) is None:
        return None
    if (found := _kept(path, table, shape)) is not None:
        return found
    size = np.dtype(table.dtype).itemsize * shape[0] * shape[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < size + _SPARE_BYTES:
            need = f"{size + _SPARE_BYTES >> 20} MiB to prepare {table.source}"
            raise DiskError(str(path.parent), need, f"{free >> 20} MiB")
        digest = _write(path, table, shape, console)
        source = {"source": str(mapping.filename), "classes": _classes(table)}
        metadata = {**source, "dtype": table.dtype, "digest": digest}
        _remove_older(path, metadata)
        write_file(path.with_suffix(".json"), to_json(metadata))
    except (OSError, DiskError) as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        console.warn(f"{table.source} is read into memory: {error}")
        return None
    return _kept(path, table, shape)


def _path(
    table: EmbeddingTable, mapping: MappedArray, shape: tuple[int, int]
) -> pathlib.Path | None:
    """Returns the path of a table's result, named by all that it depends on."""
    if mapping.filename is None:
        return None
    # The status when it was mapped: by now another file may have this name.
    file = [str(mapping.filename), *(mapping.status or ())]
    place = [int(mapping.offset), str(mapping.dtype), list(mapping.shape), table.dtype]
    names = None if table.names is None else table.names.tolist()
    described: Any = json.dumps([file, place, shape, table.class_names, names])
    sha = hashlib.sha256(described.encode("ascii") + table.labels.tobytes())
    if (places := getattr(table.embeddings, "places", None)) is not None:
        sha.update(places.tobytes())
    return cache.locate(f"tables/{sha.hexdigest()[:32]}.npy")


def _classes(table: EmbeddingTable) -> str:
    """Returns a digest of the names of a table's classes."""
    return hashlib.sha256(json.dumps(table.class_names).encode("ascii")).hexdigest()


def _kept(
    path: pathlib.Path, table: EmbeddingTable, shape: tuple[int, int]
) -> MappedArray | None:
    """Returns the array if it was finished: its JSON is written last. Else None."""
    try:
        metadata = read_json(path.with_suffix(".json"))
        rows = map_npy(path)
        digest = metadata["digest"]
        if rows.shape != shape or rows.dtype != table.dtype:
            return None
        if re.fullmatch("[0-9a-f]{64}", digest) is None:
            return None
        table.__dict__.setdefault("digest", digest)  # the cached property
        return rows
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    path: pathlib.Path, table: EmbeddingTable, shape: tuple[int, int], console: Console
) -> str:
    """Checks all rows, writes the array to keep, and returns the table's digest."""
    sha, made = table.digest_begun(), table.scales if lies_ready(table) else table.unit
    smallest = np.finfo(table.dtype).tiny

    def batches() -> Iterator[np.ndarray]:
        first, title = 0, f"preparing {os.path.basename(table.source)}"
        line = console.progress(title, shape[0], unit="rows")
        # Hashing takes about as long as the rest, and both release Python's lock.
        with line, concurrent.futures.ThreadPoolExecutor(1) as aside:
            for block in blocks(table.embeddings):
                with np.errstate(over="ignore"):  # infinity is refused below
                    block = np.ascontiguousarray(block, table.dtype)
                hashed = aside.submit(sha.update, block.data)
                table.check_rows(block, first)
                found = made(block)
                hashed.result()
                if made is table.scales and found.min() < smallest:
                    # TensorFlow would round these divisors to zero.
                    expected = f"a number of {smallest:.0e} or more in every row"
                    hint = "Multiply all features by one factor."
                    raise InputError(table.source, expected, "a smaller row", hint)
                yield found
                first += len(block)
                line.advance(len(block))

    write_rows(path, table.dtype, shape, batches())
    sha.update(table.labels.tobytes())
    return sha.hexdigest()


def _remove_older(path: pathlib.Path, metadata: dict[str, str]) -> None:
    """Removes results for earlier contents of the file, and files of killed starts."""
    alone = {*path.parent.glob("*.npy")} - {
        each.with_suffix(".npy") for each in path.parent.glob("*.json")
    }
    for partial in {*path.parent.glob(".*.npy.*"), *alone} - {path}:
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _DAY:
                partial.unlink()
    for other in path.parent.glob("*.json"):
        if other.stem == path.stem:
            continue
        try:
            same = read_json(other)
            names = "source", "classes", "dtype"
            if all(same[name] == metadata[name] for name in names):
                other.unlink()
                other.with_suffix(".npy").unlink(missing_ok=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
