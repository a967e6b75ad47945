"""Pictures in, files of features out: what `--data_path` takes.

train.npz, val.npz, test.npz   features, classes and names
embedding.json                 by which backbone, of what; written last
sources.sha256                 digest of every file, as `sha256sum -c` reads it
.part/                         what is done so far, until it is

Shapes: n pictures, D numbers a picture.
"""

import hashlib
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.feature_files import EMBEDDING_FILE, save_npz
from leo_tf.data_pipeline.images.decoding import decode, say_bad
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.embedding.backbones import Backbone, check_features
from leo_tf.embedding.views import decoded_side, embed_views
from leo_tf.environment import versions
from leo_tf.errors import FlagError, InputError
from leo_tf.files import AnyPath, read_json, to_json, write_file

SOURCES_FILE = "sources.sha256"
_PART, _JOB = ".part", "job.json"
_MOST_JSON_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_BATCH = 64
_CHUNK = 1024  # pictures a file of `.part`: so much is done again after a kill


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
    """Writes the features of pictures, a file a split, going on where it was stopped.

    Of pictures of the same names and content, and the same backbone and views, a
    finished directory is left as it is.

    Args:
      pictures: each class in a split.
      directory: where the files go.
      views: of `views.VIEWS`.
      skip_bad: whether to leave out pictures that cannot be read, and say so.
      check: asked after every batch; what it raises ends the job, and what is done is
        kept.

    Returns:
      What is in embedding.json.

    Raises:
      InputError: naming the picture that cannot be read or has no features, or the
        directory if it holds features of others.
    """
    directory = pathlib.Path(directory)
    job = _job(pictures, backbone, views)
    if (found := embedding_of(directory)) is not None:
        return _unchanged(found, job, pictures, directory)
    part = directory / _PART
    _begin(part, job)
    bad: list[InputError] = []
    noted = bad if skip_bad else None
    _embed_chunks(pictures, backbone, part, views, noted, check, console)
    say_bad(bad, len(pictures.items), console)
    sizes = {}
    for split in SPLITS:
        table = _table(pictures, split, part, directory)
        save_npz(directory / f"{split}.npz", table)
        sizes[split] = {"classes": table.num_classes, "rows": len(table.labels)}
    sources = _sources(pictures, part)
    write_file(directory / SOURCES_FILE, sources)
    result = {
        **job,
        "embedding_size": table.embedding_size,
        "sizes": sizes,
        "left_out": len(pictures.items) - sum(s["rows"] for s in sizes.values()),
        "sources": hashlib.sha256(sources).hexdigest(),
        "versions": versions(),
    }
    write_file(directory / EMBEDDING_FILE, to_json(result))
    shutil.rmtree(part, ignore_errors=True)
    return result


def embedding_of(directory: AnyPath) -> dict[str, Any] | None:
    """Returns what the `embedding.json` of a directory says; None if there is none."""
    path = pathlib.Path(directory, EMBEDDING_FILE)
    return read_json(path, _MOST_JSON_BYTES) if path.is_file() else None


def _job(pictures: Pictures, backbone: Backbone, views: str) -> dict[str, Any]:
    """What the features depend on, but for the content of the files."""
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
        "pictures": described.hexdigest(),
    }


def _unchanged(found, job, pictures, directory) -> dict[str, Any]:
    for name, value in job.items():
        if found.get(name) != value:
            where, hint = f"{directory}: `{name}`", "Give another --features_dir."
            raise InputError(where, str(value), str(found.get(name)), hint)
    _check_sources(pictures, directory)
    return found


def _check_sources(pictures: Pictures, directory: pathlib.Path) -> None:
    """Sees that the files are still those whose features these are."""
    if pictures.images is not None or pictures.are_texts:  # the items say it all
        return
    then: dict[str, str] = {}
    with open(directory / SOURCES_FILE, encoding="utf-8") as lines:
        for line in lines:
            digest, _, name = line.rstrip("\n").partition("  ")
            then[name] = digest
    for name, item in zip(pictures.names, pictures.items):
        path = os.path.join(pictures.root, item)
        if name in then and _digest_of(path) != then[name]:
            hint = f"Give another --features_dir, or remove {directory}."
            raise InputError(path, "the file as it was embedded", "another", hint)


def _begin(part: pathlib.Path, job: dict[str, Any]) -> None:
    """Makes `.part`, or keeps it if it is of this job."""
    path = part / _JOB
    if part.is_dir() and not (
        path.is_file() and read_json(path, _MOST_JSON_BYTES) == job
    ):
        shutil.rmtree(part)
    write_file(path, to_json(job))


def _embed_chunks(pictures, backbone, part, views, bad, check, console) -> None:
    """Writes the chunks that are not there yet."""
    splits = np.array(pictures.splits)
    chosen = np.flatnonzero((splits != "")[pictures.labels])
    starts = [s for s in range(0, len(chosen), _CHUNK) if not _path(part, s).is_file()]
    if not starts:
        return
    wanted = np.concatenate([chosen[s : s + _CHUNK] for s in starts])
    held: list[tuple[np.ndarray, np.ndarray, list[str]]] = []
    first, done = starts[0], len(chosen) - len(wanted)
    with console.progress("embedding", len(chosen), done, "pictures") as line:
        # Batches do not straddle chunks: their sizes divide.
        for batch in _features(pictures, backbone, views, wanted, bad):
            check()
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
    """Yields numbers of pictures, their features [n, D] and digests of their files."""
    if backbone.side is None:
        yield from _features_of_files(pictures, backbone, wanted)
        return
    if pictures.are_texts:
        expected = "module:callable, which gets texts, without --image_size"
        raise FlagError("--backbone", expected, backbone.name)
    side = decoded_side(backbone.side, views)
    batches = decode(pictures, side, indices=wanted, bad=bad, batch_size=_BATCH)
    for indices, pixels, digests in batches:
        features = embed_views(backbone.embed, pixels, backbone.side, views)
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


def _features_of_files(pictures, backbone, wanted):
    """As `_features`, by a callable that reads the files itself, or gets texts."""
    for first in range(0, len(wanted), _BATCH):
        indices = wanted[first : first + _BATCH]
        items = [os.path.join(pictures.root, pictures.items[i]) for i in indices]
        features = check_features(backbone.embed(items), len(indices), backbone.name)
        digests = [_digest_of(item, pictures.are_texts) for item in items]
        yield indices, features, digests


def _digest_of(path: str, is_text: bool = False) -> str:
    if is_text:
        return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
    try:
        sha = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                sha.update(block)
        return sha.hexdigest()
    except OSError as error:
        raise InputError(path, "a file that can be read", str(error)) from error


def _path(part: pathlib.Path, first: int) -> pathlib.Path:
    return part / f"{first:09d}.npz"


def _write_chunk(path, batches) -> None:
    indices, features, digests = (list(each) for each in zip(*batches))
    content = io.BytesIO()
    np.savez(
        content,
        indices=np.concatenate(indices),
        features=np.concatenate(features),
        digests=np.array([digest for each in digests for digest in each], "S64"),
    )
    write_file(path, content.getbuffer())


def _chunks(part: pathlib.Path) -> Iterator[dict[str, np.ndarray]]:
    for path in sorted(part.glob("*.npz")):
        with np.load(path) as arrays:
            yield dict(arrays)


def _table(
    pictures: Pictures, split: str, part: pathlib.Path, directory: pathlib.Path
) -> EmbeddingTable:
    """The table of a split, whose features stay in a file of `.part`."""
    indices = np.concatenate([chunk["indices"] for chunk in _chunks(part)])
    kept = np.isin(indices, pictures.of_split(split))
    if not kept.any():
        received = "none that can be read"
        raise InputError(f"{pictures.source}: {split}", "pictures", received)
    size = next(_chunks(part))["features"].shape[1]
    path, shape = part / f"{split}.npy", (int(kept.sum()), size)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    first = 0
    for chunk in _chunks(part):
        mine = chunk["features"][np.isin(chunk["indices"], indices[kept])]
        rows[first : first + len(mine)] = mine
        first += len(mine)
    chosen, names = indices[kept], pictures.names
    classes = [pictures.class_names[label] for label in pictures.labels[chosen]]
    source = str(directory / f"{split}.npz")
    return EmbeddingTable.of(
        rows, classes, [names[i] for i in chosen], source, "float32"
    )


def _sources(pictures: Pictures, part: pathlib.Path) -> bytes:
    """Lines of digest and name, in the order of the pictures."""
    names = pictures.names
    lines = [
        f"{digest.decode()}  {names[index]}\n"
        for chunk in _chunks(part)
        for index, digest in zip(chunk["indices"], chunk["digests"])
    ]
    return "".join(lines).encode()
