"""Tables too large to load: their rows are read from the disk as episodes touch them.

A large array that lies in its file as NumPy holds it in memory is mapped, not read.
Before the first training all of it is read once: checked, and written to the user's
cache directory with rows of length 1. That copy is what training maps, and all
processes share its pages; the next start finds it by path, size and time of the file.

tables/KEY.npy    [rows, D] rows of length 1
tables/KEY.json   the file they are from, and the digest of its table

A file that is mapped must be replaced, not written over: the system ends a process that
reads a page which is no longer there.
"""

import hashlib
import json
import os
import pathlib
import shutil
from typing import BinaryIO

import numpy as np

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable, blocks, mapping_of
from leo_tf.data_pipeline.glyphs import cache
from leo_tf.errors import DiskError
from leo_tf.files import read_json, to_json, write_file

_MOST_JSON_BYTES = 1 << 20
_SPARE_BYTES = 1 << 28  # that stay free on the disk


def unit_rows(table: EmbeddingTable, console: Console = SILENT) -> np.ndarray | None:
    """Returns the rows of a mapped table at length 1, making the copy if need be.

    After that the table knows its digest.

    Returns:
      [rows, D], mapped; None if the table is in memory, or there is no room for a copy.

    Raises:
      InputError: if a row has NaN or infinity, or is zero.
    """
    if (mapping := mapping_of(table.embeddings)) is None:
        return None
    if (path := _path(table, mapping)) is None:
        return None
    if (found := _kept(path, table)) is not None:
        return found
    size = np.dtype(table.dtype).itemsize * table.embeddings.size
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < size + _SPARE_BYTES:
            need = f"{size >> 20} MiB for a copy with rows of length 1"
            raise DiskError(str(path.parent), need, f"{free >> 20} MiB")
        digest = _write(path, table, console)
    except (OSError, DiskError) as error:
        console.warn(f"{table.source} is read into memory: {error}")
        return None
    metadata = {"source": str(mapping.filename), "dtype": table.dtype, "digest": digest}
    _remove_older(path, metadata)
    write_file(path.with_suffix(".json"), to_json(metadata))
    return _kept(path, table)


def _path(table: EmbeddingTable, mapping: np.memmap) -> pathlib.Path | None:
    """Returns where the copy of a table is kept, by all that it depends on."""
    if mapping.filename is None:
        return None
    status = os.stat(mapping.filename)
    file = [str(mapping.filename), status.st_size, status.st_mtime_ns, status.st_ino]
    place = [int(mapping.offset), str(mapping.dtype), list(mapping.shape), table.dtype]
    names = None if table.names is None else table.names.tolist()
    described = json.dumps([file, place, table.class_names, names]).encode("ascii")
    digest = hashlib.sha256(described + table.labels.tobytes()).hexdigest()
    return cache.locate(f"tables/{digest[:32]}.npy")


def _kept(path: pathlib.Path, table: EmbeddingTable) -> np.ndarray | None:
    """Returns a copy that was finished; its JSON is written last."""
    try:
        metadata = read_json(path.with_suffix(".json"), _MOST_JSON_BYTES)
        # Copied on write, and never written: TensorFlow takes no read-only memory.
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
        if rows.shape != table.embeddings.shape or rows.dtype != table.dtype:
            return None
        table.__dict__.setdefault("digest", metadata["digest"])  # the cached property
        return rows
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: pathlib.Path, table: EmbeddingTable, console: Console) -> str:
    """Checks all rows and writes them at length 1; returns the table's digest."""
    shape, sha = table.embeddings.shape, table.digest_begun()
    header = {"descr": np.dtype(table.dtype).str, "fortran_order": False}

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        first, title = 0, f"preparing {os.path.basename(table.source)}"
        with console.progress(title, shape[0], unit="rows") as line:
            for block in blocks(table.embeddings):
                block = np.ascontiguousarray(block, table.dtype)
                table.check_rows(block, first)
                sha.update(block.data)
                file.write(table.unit(block).data)
                first += len(block)
                line.advance(len(block))

    write_file(path, write)
    sha.update(table.labels.tobytes())
    return sha.hexdigest()


def _remove_older(path: pathlib.Path, metadata: dict[str, str]) -> None:
    """Removes copies of an earlier content of the same file."""
    for other in path.parent.glob("*.json"):
        if other.stem == path.stem:
            continue
        try:
            same = read_json(other, _MOST_JSON_BYTES)
            if all(same[name] == metadata[name] for name in ("source", "dtype")):
                other.unlink()
                other.with_suffix(".npy").unlink(missing_ok=True)
        except (OSError, ValueError, KeyError, TypeError):
            continue
