"""Saves features while pictures are embedded, so that a killed job can resume.

Each file has the features of up to 1,024 pictures.

Shapes: n pictures, D numbers per picture.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from leo_tf.console import Console
from leo_tf.data_pipeline.formats.opening import open_input
from leo_tf.data_pipeline.images.decoding import decode
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.embedding.backbones import Backbone, check_features
from leo_tf.embedding.views import decoded_side, embed_views
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.files import read_npz, write_file

_BLOCK_BYTES = 1 << 20
_BATCH = 64
_CHUNK = 1024  # pictures per file; redone if killed before it is written


def chosen_of(pictures: Pictures) -> np.ndarray:
    """Returns the indices of the pictures whose classes are in a split."""
    return np.flatnonzero((np.array(pictures.splits) != "")[pictures.labels])


def embed_chunks(
    pictures: Pictures,
    backbone: Backbone,
    part: pathlib.Path,
    views: str,
    bad: list[InputError] | None,
    check: Callable[[], object],
    console: Console,
) -> None:
    """Writes the missing files of features to the directory `part`.

    Args:
      pictures, backbone, views, check, console: as for `embed.embed_pictures`.
      bad: list that errors of pictures are added to; None to raise the first.

    Raises:
      InputError: if a picture cannot be read, or has no features.
    """
    chosen = chosen_of(pictures)
    starts = [s for s in range(0, len(chosen), _CHUNK) if not _path(part, s).is_file()]
    if not starts:
        return
    wanted = np.concatenate([chosen[s : s + _CHUNK] for s in starts])
    held: list[tuple[np.ndarray, np.ndarray, list[str]]] = []
    first, done, size = starts[0], len(chosen) - len(wanted), None
    with console.progress("embedding", len(chosen), done, "pictures") as line:
        # Batches end where chunks end, because _BATCH divides _CHUNK.
        for batch in _features(pictures, backbone, views, wanted, bad):
            check()
            if batch[1].shape[1] != (size := size or batch[1].shape[1]):
                where = f"features of {backbone.name}"
                received = f"D = {batch[1].shape[1]}"
                raise InputError(where, f"D = {size} for all items", received)
            start = int(np.searchsorted(chosen, batch[0][0])) // _CHUNK * _CHUNK
            if held and start != first:
                _write_chunk(_path(part, first), held)
                held = []
            first = start
            held.append(batch)
            line.advance(len(batch[0]))
        if held:
            _write_chunk(_path(part, first), held)


def _features(
    pictures, backbone, views, wanted, bad
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Yields indices of pictures, their features [n, D] and digests of their files."""
    for indices, items, digests in _read(pictures, backbone, views, wanted, bad):
        if backbone.side is None:
            features = backbone.embed(items)
        else:
            features = embed_views(backbone.embed, items, backbone.side, views)
        features = check_features(features, len(indices), backbone.name)
        kept = features.any(axis=1)
        for index in indices[~kept]:
            where = os.path.join(pictures.root, pictures.items[index])
            error = InputError(where, "features that are not all zero", "zeros")
            if bad is None:
                raise error
            bad.append(error)
        if kept.any():
            held = [digests[row] for row in np.flatnonzero(kept)]
            yield indices[kept], features[kept], held


def _read(pictures, backbone, views, wanted, bad) -> Iterator[tuple]:
    """Yields indices, inputs of the backbone, and digests of files or texts."""
    if backbone.side is not None:
        if pictures.are_texts:
            expected = "module:callable, which gets texts, without --image_size"
            raise FlagError("--backbone", expected, backbone.name)
        side = decoded_side(backbone.side, views)
        yield from decode(pictures, side, indices=wanted, bad=bad, batch_size=_BATCH)
        return
    if pictures.images is not None:
        expected = "the side of pictures, because those in memory have no files"
        raise FlagError("--image_size", expected, "nothing")
    for first in range(0, len(wanted), _BATCH):
        indices, digests = [], []
        for index in wanted[first : first + _BATCH]:
            item = pictures.items[index]
            try:
                found = _text_digest if pictures.are_texts else digest_of
                digests.append(found(pictures.root, item))
                indices.append(index)
            except InputError as error:
                if bad is None:
                    raise
                bad.append(error)
        if indices:
            items = [os.path.join(pictures.root, pictures.items[i]) for i in indices]
            yield np.array(indices), items, digests


def _text_digest(unused_root: str, text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def digest_of(root: str, item: str) -> str:
    """Returns the digest of a file.

    Raises an InputError if the file is not below `root`.
    """
    path, sha = os.path.join(root, item), hashlib.sha256()
    if root and os.path.commonpath([root, os.path.realpath(path)]) != root:
        hint = "Copy the file it links to, or give a folder that holds both."
        raise InputError(path, f"a file in {root}", "a link that leads out of it", hint)
    with open_input(path) as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()


def _path(part: pathlib.Path, first: int) -> pathlib.Path:
    return part / f"{first:09d}.npz"


def _write_chunk(path, batches) -> None:
    indices, features, digests = (list(each) for each in zip(*batches))
    arrays: dict[str, Any] = {
        "indices": np.concatenate(indices),
        "features": np.concatenate(features),
        "digests": np.array([digest for each in digests for digest in each], "S64"),
    }
    write_file(path, lambda file: np.savez(file, **arrays))


def chunks(part: pathlib.Path) -> Iterator[dict[str, np.ndarray]]:
    """Yields indices [n], features [n, D] and digests [n] of each file in turn."""
    for path in sorted(part.glob("*.npz")):
        yield _chunk(path)


def _chunk(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except (OSError, ValueError) as error:
        hint = "Remove it; its features are computed again."
        received = quoted(str(error))
        raise InputError(str(path), "features so far", received, hint) from error


def remove_outdated(part: pathlib.Path, pictures: Pictures) -> None:
    """Removes chunks with a file that was replaced, so that they are redone."""
    if pictures.images is not None or pictures.are_texts:
        return
    for path in sorted(part.glob("*.npz")):
        arrays = _chunk(path)
        items = [pictures.items[index] for index in arrays["indices"]]
        for item, digest in zip(items, arrays["digests"]):
            with contextlib.suppress(InputError):
                if digest_of(pictures.root, item) == digest.decode():
                    continue
            path.unlink()
            break
