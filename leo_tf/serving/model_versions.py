"""Loads the exported versions in a directory, and serves the newest that works."""

import base64
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from leo_tf.console import SILENT, Console
from leo_tf.errors import InputError
from leo_tf.serving.models import LocalModel, Source, versions

_POLL_SECONDS = 2.0
_SHOWN_CHARACTERS = 400  # enough for a long path and an error
_DEFAULT = "serving_default"
# A chessboard of 8 x 8 pixels, as PNG.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAFklEQVR42mNgYPj/H4JhDHQ+AwMRagB8"
    "BB/hYvPoCQAAAABJRU5ErkJggg=="
)
_NEEDED = ("adapt", "predict", _DEFAULT)
_OF_PICTURES = ("embed_images", "classify_images")


class Served(NamedTuple):
    """A version that has been loaded and tested."""

    version: int
    model: LocalModel
    metadata: dict[str, Any]  # export.json; empty if it has none
    signature_def: dict[str, Any]  # as TensorFlow Serving's metadata shows it


class Versions:
    """Serves the newest version that works, and the previous one while it loads.

    A version that does not load or answer is skipped with one warning, and is tried
    again when its files change. `current` is the served version, or None.

    Args:
      directory: directory of versions, named by integers.
      console: reports versions that do not work, and changes of the served version.
    """

    def __init__(self, directory: Source, console: Console = SILENT):
        self._directory, self._console = pathlib.Path(directory), console
        # version -> (its files, error)
        self._failed: dict[int, tuple[list, str]] = {}
        self._ended, self._warned = set[int](), set[int]()
        self._stop = threading.Event()
        self.current: Served | None = None

    def refresh(self) -> None:
        """Looks once for a newer version, and loads it."""
        found = versions(self._directory)
        if found:  # else the directory may be out of reach for once
            for removed in self._failed.keys() - found.keys():
                del self._failed[removed]
        for version in sorted(found, reverse=True):
            if self.current and version == self.current.version:
                return
            files = _files(found[version])
            if self._failed.get(version, [None])[0] == files:
                continue
            try:
                served = _load(version, found[version])
            # A broken version may raise anything. The current one continues.
            except Exception as error:
                if version not in self._failed:
                    reason = f"version {version} is not served: {_inline(error)}"
                    self._console.warn(f"warning: {reason}")
                self._failed[version] = files, str(error)
                continue
            if self.current:
                self._ended.add(self.current.version)
                self._console.say(f"Serving version {version} from now on.")
            self._ended.discard(version)
            self._failed.pop(version, None)
            self.current = served
            return

    def require(self) -> Served:
        """Returns the served version; raises an InputError if there is none."""
        if self.current:
            return self.current
        received, hint, failed = "none", "", self._failed.copy()
        if failed:
            newest = max(failed)
            received = f"version {newest}: {_inline(failed[newest][1])}"
        try:
            if "saved_model.pb" in os.listdir(self._directory):
                hint = f"Give {self._directory.parent}: this is a single version."
        except OSError as error:
            received = str(error.strerror)
        expected = "a directory with an exported version that works"
        raise InputError(str(self._directory), expected, received, hint)

    def states(self) -> dict[int, tuple[str, str]]:
        """Returns version -> (state in TensorFlow Serving's words, error)."""
        states = {version: ("END", "") for version in self._ended.copy()}
        states |= {n: ("END", wrong) for n, (_, wrong) in self._failed.copy().items()}
        if self.current:
            states[self.current.version] = "AVAILABLE", ""
        return dict(sorted(states.items(), reverse=True))

    def warn_beyond_test(self, served: Served, beyond: str) -> None:
        """Warns once per version of requests beyond way or shot of its test."""
        if served.version not in self._warned:
            self._warned.add(served.version)
            where = f"warning: version {served.version}, shown once"
            self._console.warn(f"{where}: {beyond}")

    def watch(self, seconds: float = _POLL_SECONDS) -> None:
        """Starts a thread that refreshes every `seconds` until `close`."""

        def poll() -> None:
            while not self._stop.wait(seconds):
                self.refresh()

        threading.Thread(target=poll, name="versions", daemon=True).start()

    def close(self) -> None:
        """Ends `watch`."""
        self._stop.set()


def _inline(error: object) -> str:
    """Returns an error's text as one short line."""
    text = ascii(str(error))[1:-1]
    most = _SHOWN_CHARACTERS
    return text if len(text) <= most else f"{text[:most]}..."


def _files(directory: pathlib.Path) -> list[tuple[str, int, int]]:
    """Returns paths, sizes and times of a version's files, to detect changes."""
    try:
        found = [(file, file.stat()) for file in sorted(directory.rglob("*"))]
    except OSError:  # it is being removed
        return []
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found]


def _load(version: int, path: pathlib.Path) -> Served:
    """Loads a version and tests that it is complete and answers; may raise anything."""
    metadata, model = _checked_metadata(path), LocalModel(path)
    # Methods that see all queries together have no others.
    only = set(model.signatures) <= {"classify", _DEFAULT, *_OF_PICTURES}
    for signature in (_DEFAULT,) if only else _NEEDED:
        model.inputs(signature)
    _try(model, metadata)
    graph = (path / "saved_model.pb").read_bytes()
    saved = saved_model_pb2.SavedModel.FromString(graph)
    signatures = saved.meta_graphs[0].signature_def
    described = {name: _described(signatures[name]) for name in sorted(signatures)}
    return Served(version, model, metadata, described)


def _checked_metadata(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of export.json, after checking the files' digests."""
    try:
        metadata = json.loads((path / "export.json").read_text("utf-8"))
    except FileNotFoundError:  # another SavedModel has none
        return {}
    for name, digest in metadata["files"].items():
        received = hashlib.sha256((path / name).read_bytes()).hexdigest()
        if received != digest:
            raise InputError(str(path / name), f"SHA-256 {digest}", received)
    return metadata


def _try(model: LocalModel, metadata: Mapping[str, Any]) -> None:
    """Makes a first request of each kind, the slowest one, before any user's."""
    if "embed_images" in model.signatures:
        model("embed_images", {"images": np.array([_PICTURE], object)})
    size = model.inputs(_DEFAULT)["support"].shape[-1] or metadata.get("embedding_size")
    if not size:
        return
    way = metadata.get("way") or 2  # some methods have only one
    support = np.random.default_rng(0).normal(size=(way, size)).astype(np.float32)
    inputs = {"support": support, "labels": np.arange(way)}
    model(_DEFAULT, {**inputs, "queries": support})
    if "adapt" not in model.signatures:
        return
    classifier = model("adapt", inputs)["classifier"]
    model("predict", {"classifier": classifier, "queries": support})
    if "embed" in model.signatures:
        model("embed", inputs)


def _described(signature: Any) -> dict[str, Any]:
    return {
        "inputs": {name: _tensor(info) for name, info in signature.inputs.items()},
        "outputs": {name: _tensor(info) for name, info in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {},
    }


def _tensor(info: Any) -> dict[str, Any]:
    dtype, rank = types_pb2.DataType.Name(info.dtype), info.tensor_shape.unknown_rank
    sizes = [{"size": str(d.size), "name": d.name} for d in info.tensor_shape.dim]
    shape = {"dim": sizes, "unknown_rank": rank}
    return {"dtype": dtype, "tensor_shape": shape, "name": info.name}
