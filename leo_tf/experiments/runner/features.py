"""Data shared by many processes: written once, then mapped into their memory.

SPLITS_SPLIT.npy            features of length 1, [rows, D]; of a table that is mapped
                            already, the JSON says where they are
SPLITS_SPLIT_rows.npy       and the other arrays of a split
SPLITS.json                 everything else, with digests of the files

Shapes: D embedding size.
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.embeddings import (
    MappedArray,
    map_array,
    map_npy,
    status_of,
)
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
        table, mapping = split.table, split.table.mapping
        arrays = {
            "": table.features if mapping is None else None,
            "_rows": table.index.rows,
            "_sizes": table.index.class_sizes,
            "_scales": table.scales,
            "_places": table.places,
            "_images": split.images,
        }
        files: dict[str, Any] = {}
        if mapping is not None:
            files[""] = _place(mapping)
        for part, array in arrays.items():
            if array is None:
                continue
            path = directory / f"{name}_{key}{part}.npy"
            write_file(path, functools.partial(np.save, arr=array), lasts=False)
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
            if "offset" in each:
                _mapped(each)
                continue
            _check_file(directory / each["file"], each["sha256"])


def _split(directory: pathlib.Path, key: str, values: Mapping[str, Any]) -> Split:
    names, source = tuple(values["class_names"]), values["source"]

    def array(part: str) -> Any:
        if part not in values["files"]:
            return None
        # Copy-on-write, although nobody writes: dlpack refuses read-only arrays.
        return np.load(directory / values["files"][part]["file"], mmap_mode="c")

    features = values["files"][""]
    if "offset" in features:
        mapping = _mapped(features)
    else:
        mapping = map_npy(directory / features["file"])
    index = ClassIndex(
        np.array(array("_rows")), np.array(array("_sizes")), names, source
    )
    table = FeatureTable.on(mapping, index, array("_scales"), array("_places"))
    return Split(key, table, names, array("_images"), values["digest"], source)


def _place(mapping: MappedArray) -> dict[str, Any]:
    """Returns the place of a mapped array, if its file is unchanged."""
    path, shape = str(mapping.filename), list(mapping.shape)
    received: object
    try:
        received = status_of(os.stat(path))
    except OSError as error:
        received = error
    if received != mapping.status:
        expected = f"size, time and inode {mapping.status}, as when it was read"
        hint = "Load it again, or run the command again."
        raise InputError(path, expected, str(received), hint)
    place = {"file": path, "offset": int(mapping.offset), "shape": shape}
    return {**place, "dtype": mapping.dtype.name, "content": _content(path)}


def _mapped(place: Mapping[str, Any]) -> MappedArray:
    """Maps an array again, if its file is unchanged."""
    path, shape = place["file"], tuple(place["shape"])
    try:
        received = str(found := _content(path))
        if found == place["content"]:
            with open(path, "rb") as file:
                return map_array(file, place["dtype"], place["offset"], shape)
    except OSError as error:
        received = str(error)
    expected = f"size and time {place['content']}, as when the runs began"
    hint = "All machines need it, unchanged, under this path. If it is in a cache, "
    hint += "save the features as float32 in an .npy file that all machines share."
    raise InputError(path, expected, received, hint)


def _content(path: str) -> list[int]:
    """Returns a file's size and time, which change when it is replaced."""
    return [*status_of(os.stat(path))[:2]]  # the inode may differ on other machines


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
