"""Turns pictures into files of features, for `--data_path`.

train.npz, val.npz, test.npz   features, classes and names; or all.npz
embedding.json                 backbone and source; written last
sources.sha256                 digest of every file, as `sha256sum -c` reads it
left_out.txt                   pictures that were left out, if any, and why
.part/                         unfinished work, removed at the end

Shapes: n pictures, D numbers per picture.
"""

import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import EMBEDDING_FILE, save_npz
from leo_tf.data_pipeline.formats.names import index_classes
from leo_tf.data_pipeline.formats.npy import write_rows
from leo_tf.data_pipeline.images.class_splits import ALL
from leo_tf.data_pipeline.images.decoding import say_bad
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.data_pipeline.images.worker import VERSION as DECODER_VERSION
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.embedding.backbones import Backbone
from leo_tf.embedding.chunks import (
    chosen_of,
    chunks,
    digest_of,
    embed_chunks,
    remove_outdated,
)
from leo_tf.environment import versions
from leo_tf.errors import InputError, quoted
from leo_tf.files import AnyPath, read_json, to_json, write_file

SOURCES_FILE, LEFT_OUT_FILE = "sources.sha256", "left_out.txt"
_PART, _JOB = ".part", "job.json"


def embed_pictures(
    pictures: Pictures,
    backbone: Backbone,
    directory: AnyPath,
    *,
    views: str = "center",
    skip_bad: bool = False,
    check: Callable[[], object] = lambda: None,
    console: Console = SILENT,
) -> dict[str, Any]:
    """Writes the features of pictures, one file per split, and resumes if stopped.

    A finished directory is kept if names and content of the pictures, backbone and
    views are the same.

    Args:
      pictures: each class in a split.
      directory: directory of the files.
      views: one of `views.VIEWS`.
      skip_bad: leaves out and lists pictures that cannot be read.
      check: called after every batch. An exception ends the job; finished work is
        kept.

    Returns:
      The content of embedding.json.

    Raises:
      InputError: if a picture cannot be read or has no features, or the directory has
        features of other pictures.
    """
    directory = pathlib.Path(directory)
    job = _job(pictures, backbone, views)
    if (found := embedding_of(directory)) is not None:
        return _unchanged(found, job, pictures, directory, skip_bad)
    part = directory / _PART
    _begin(part, job, skip_bad)
    remove_outdated(part, pictures)
    bad: list[InputError] = []
    noted = bad if skip_bad else None
    embed_chunks(pictures, backbone, part, views, noted, check, console)
    wanted, sizes = len(chosen_of(pictures)), {}
    for split in (ALL,) if ALL in (pictures.splits or ()) else SPLITS:
        table = _table(pictures, split, part, directory)
        save_npz(directory / f"{split}.npz", table)
        sizes[split] = {"classes": table.num_classes, "rows": len(table.labels)}
    left_out = wanted - sum(size["rows"] for size in sizes.values())
    say_bad(bad, wanted, console)
    if left_out:
        _list_left_out(directory / LEFT_OUT_FILE, pictures, part, bad)
        console.say(f"Their list ({left_out}): {directory / LEFT_OUT_FILE}")
    sources = _sources(pictures, part)
    write_file(directory / SOURCES_FILE, sources)
    result = {
        **job,
        "embedding_size": table.embedding_size,
        "sizes": sizes,
        "left_out": left_out,
        "sources": hashlib.sha256(sources).hexdigest(),
        "versions": versions(),
    }
    write_file(directory / EMBEDDING_FILE, to_json(result))
    shutil.rmtree(part, ignore_errors=True)
    return result


def embedding_of(directory: AnyPath) -> dict[str, Any] | None:
    """Returns the content of a directory's `embedding.json`; None without one."""
    path = pathlib.Path(directory, EMBEDDING_FILE)
    if not path.is_file():
        return None
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        expected, hint = "a directory of --mode=embed", "Give another --features_dir."
        raise InputError(str(path), expected, quoted(str(error)), hint) from error


def _job(pictures: Pictures, backbone: Backbone, views: str) -> dict[str, Any]:
    """Returns everything features depend on, except the content of the files."""
    described = hashlib.sha256()
    for part in (pictures.items, pictures.class_names, pictures.splits or ()):
        described.update(to_json([ascii(text) for text in part]))
    described.update(pictures.labels.tobytes())
    return {
        "backbone": backbone.name,
        "weights": backbone.digest,
        "preprocessing": backbone.preprocessing,
        "views": views,
        "side": backbone.side,
        "decoder": DECODER_VERSION,
        "pictures": described.hexdigest(),
    }


def _unchanged(found, job, pictures, directory, skip_bad) -> dict[str, Any]:
    hint = "Give another --features_dir."
    for name, value in job.items():
        # A backbone may be named by another path: its digest says which it is.
        if name != "backbone" and found.get(name) != value:
            where = f"{directory}: `{name}`"
            raise InputError(where, str(value), str(found.get(name)), hint)
    if found.get("left_out") and not skip_bad:
        where = f"{directory}: `left_out`"
        expected = "0 pictures, without --skip_bad_images"
        raise InputError(where, expected, str(found["left_out"]), hint)
    if not isinstance(found.get("sizes"), dict):
        where = f"{directory / EMBEDDING_FILE}: `sizes`"
        raise InputError(where, "the pictures of each split", "none", hint)
    for split in found["sizes"]:
        if not (path := directory / f"{split}.npz").is_file():
            raise InputError(str(path), "the features", "nothing there", hint)
    _check_sources(pictures, directory)
    return found


def _check_sources(pictures: Pictures, directory: pathlib.Path) -> None:
    """Checks that the files are those that the features were made from."""
    if pictures.images is not None or pictures.are_texts:  # the items have all content
        return
    then: dict[str, str] = {}
    hint = f"Give another --features_dir, or remove {directory}."
    try:
        text = (directory / SOURCES_FILE).read_text("utf-8")
    except (OSError, ValueError) as error:
        where, received = str(directory / SOURCES_FILE), quoted(str(error))
        raise InputError(where, "the digests of the files", received, hint) from error
    for line in text.split("\n"):
        digest, _, name = line.lstrip("\\").partition("  ")
        then[name] = digest
    for name, item in zip(pictures.names, pictures.items):
        path = os.path.join(pictures.root, item)
        known = then.get(_escaped(name))
        if known is not None and digest_of(pictures.root, item) != known:
            raise InputError(path, "the file as it was embedded", "other content", hint)


def _begin(part: pathlib.Path, job: dict[str, Any], skip_bad: bool) -> None:
    """Creates `.part`, or keeps it if it belongs to this job.

    If the job left out bad pictures, it is kept only if they may be left out again.
    """
    path = part / _JOB
    before = (False, True) if skip_bad else (False,)
    known = [to_json({**job, "skip_bad": skipped}) for skipped in before]
    if part.is_dir() and not (path.is_file() and path.read_bytes() in known):
        shutil.rmtree(part)
    write_file(path, known[-1])


def _list_left_out(
    path: pathlib.Path, pictures: Pictures, part: pathlib.Path, bad: list[InputError]
) -> None:
    """Writes the names of pictures without features, and the known reasons."""
    kept = np.concatenate([chunk["indices"] for chunk in chunks(part)])
    reasons = {error.where: f": {error}" for error in bad}
    lines = []
    for index in sorted({*chosen_of(pictures).tolist()} - {*kept.tolist()}):
        where = os.path.join(pictures.root, pictures.items[index])
        lines.append(f"{pictures.names[index]!a}{reasons.get(where, '')}\n")
    write_file(path, "".join(lines).encode())


def _table(
    pictures: Pictures, split: str, part: pathlib.Path, directory: pathlib.Path
) -> EmbeddingTable:
    """Returns the table of a split, whose features stay in a file of `.part`."""
    none = np.zeros(0, np.int64)
    indices = np.concatenate([none, *(chunk["indices"] for chunk in chunks(part))])
    kept = np.isin(indices, pictures.of_split(split))
    if not kept.any():
        received = "none that can be read"
        raise InputError(f"{pictures.source}: {split}", "pictures", received)
    size = next(chunks(part))["features"].shape[1]
    path, shape = part / f"{split}.npy", (int(kept.sum()), size)
    parts = (c["features"][np.isin(c["indices"], indices[kept])] for c in chunks(part))
    write_rows(path, np.float32, shape, parts, lasts=False)
    rows = np.load(path, mmap_mode="r")
    chosen, names = indices[kept], pictures.names
    classes = index_classes([pictures.class_names[c] for c in pictures.labels[chosen]])
    source = str(directory / f"{split}.npz")
    return EmbeddingTable.of(
        rows, classes, [names[i] for i in chosen], source, "float32"
    )


def _sources(pictures: Pictures, part: pathlib.Path) -> bytes:
    """Returns lines of digest and name, in the order of the pictures."""
    names = [_escaped(name) for name in pictures.names]
    lines = [
        "\\" * ("\\" in names[index]) + f"{digest.decode()}  {names[index]}\n"
        for chunk in chunks(part)
        for index, digest in zip(chunk["indices"], chunk["digests"])
    ]
    return "".join(lines).encode()


def _escaped(name: str) -> str:
    """Returns a name as `sha256sum` writes it, on one line."""
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
