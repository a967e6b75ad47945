"""Data shared by many processes: written once, then mapped into their memory.

SPLITS_SPLIT.npy            features of length 1, [rows, D]
SPLITS_SPLIT_rows.npy       and the other arrays of a split
SPLITS.json                 everything else, with digests of the files

Shapes: D embedding size.
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.data_pipeline.sampler import ClassIndex
from leo_tf.errors import InputError, quoted
from leo_tf.files import read_json, to_json, write_file

# Limit of the JSON, a hundred times the class names of the largest data sets.
_MOST_BYTES = 2**26
_BLOCK_BYTES = 2**20


def write(directory: pathlib.Path, name: str, splits: Mapping[str, Split]) -> str:
    """Writes splits under a name. Returns a digest of all content.

    Raises:
      DiskError: if it cannot be written.
    """
    found = {}
    for key, split in splits.items():
        arrays = {
            "": np.asarray(split.table.features),
            "_rows": split.table.index.rows,
            "_sizes": split.table.index.class_sizes,
        }
        if split.images is not None:
            arrays["_images"] = split.images
        files = {}
        for part, array in arrays.items():
            path = directory / f"{name}_{key}{part}.npy"
            write_file(path, functools.partial(_save, array), lasts=False)
            files[part] = {"file": path.name, "sha256": _sha256(path)}
        metadata = {"digest": split.digest, "source": split.source, "files": files}
        found[key] = {**metadata, "class_names": split.class_names}
    text = to_json(found)
    write_file(directory / f"{name}.json", text, lasts=False)
    return hashlib.sha256(text).hexdigest()


def read(directory: pathlib.Path, name: str) -> dict[str, Split]:
    """Returns the splits written by `write`. Features are mapped, not copied."""
    values = read_json(directory / f"{name}.json", _MOST_BYTES)
    return {key: _split(directory, key, each) for key, each in values.items()}


def check(directory: pathlib.Path, name: str, digest: str) -> None:
    """Refuses data that differs from what was written, e.g. on another machine.

    Raises:
      InputError: if a file is missing or differs.
    """
    path = directory / f"{name}.json"
    _check_file(path, digest)
    for split in read_json(path, _MOST_BYTES).values():
        for each in split["files"].values():
            _check_file(directory / each["file"], each["sha256"])


def _split(directory: pathlib.Path, key: str, values: Mapping[str, Any]) -> Split:
    names, source = tuple(values["class_names"]), values["source"]

    def array(part: str) -> Any:
        if part not in values["files"]:
            return None
        # Copy-on-write, although nobody writes: dlpack refuses read-only arrays.
        return np.load(directory / values["files"][part]["file"], mmap_mode="c")

    with tf.device("CPU:0"):
        # The only public way to a tensor that does not copy the memory.
        features = tf.experimental.dlpack.from_dlpack(array("").__dlpack__())
    index = ClassIndex(
        np.array(array("_rows")), np.array(array("_sizes")), names, source
    )
    table = FeatureTable(features, index)
    return Split(key, table, names, array("_images"), values["digest"], source)


def _save(array: np.ndarray, file: BinaryIO) -> None:
    np.save(file, array)


def _check_file(path: pathlib.Path, digest: str) -> None:
    try:
        received = _sha256(path)
    except OSError as error:
        received = str(error)
    if received != digest:
        hint = "All machines need the job's directory on one shared file system."
        raise InputError(str(path), f"digest {digest}", quoted(received), hint)


def _sha256(path: pathlib.Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()
