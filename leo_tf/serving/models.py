"""Models for a `Classifier`: an exported model, a server, or a closed form.

All are called with the name of a signature and its inputs, and return its outputs.
TensorFlow is imported when an exported model is loaded.
"""

import contextlib
import functools
import json
import operator
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from leo_tf.errors import (
    RequestError,
    check_not_forked,
    one_line,
    refusal,
    refused,
    without_secrets,
)
from leo_tf.serving.closed_forms import CLOSED_FORMS, ClosedForm
from leo_tf.serving.rest_model import RestModel

_SHOWN_CHARACTERS = 200
_MOST_METADATA_BYTES = 2**22  # hundreds of times their size
Source = str | os.PathLike[str]


def connect(
    source: Source, timeout: float = 60.0, headers: Mapping[str, str] | None = None
) -> "Model":
    """Returns the model at `source`; for the arguments see `Classifier`.

    Raises:
      ValueError: if there is no exported model at a path, or an argument is wrong.
      ForkError: if a model is at a path, and TensorFlow would hang in this process.
    """
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return RestModel(source, timeout, headers)
    if isinstance(source, str) and source in CLOSED_FORMS and not os.path.isdir(source):
        return ClosedForm(source)
    path = newest(source).resolve()
    try:
        status = (path / "saved_model.pb").stat()
    except OSError:
        if not (path / "model.tflite").is_file():
            received = f"{path} without saved_model.pb"
            raise refused("source", "a complete export", received) from None
        return LocalModel(path)  # says what is wrong
    return _loaded(str(path), (status.st_ino, status.st_mtime_ns))


def newest(source: Source) -> pathlib.Path:
    """Returns the directory of the model at `source`: itself, or its newest version.

    Raises:
      ValueError: if there is no model.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise refused("source", "a path or a URL of a server", repr(source))
    path = pathlib.Path(source)
    if any((path / name).is_file() for name in ("saved_model.pb", "model.tflite")):
        return path
    found = versions(path)
    if not found:
        expected = "a directory of exported versions, one of them, http://HOST:PORT, "
        expected += " or ".join(CLOSED_FORMS)
        raise refused("source", expected, repr(without_secrets(source)))
    return found[max(found)]


def versions(directory: Source) -> dict[int, pathlib.Path]:
    """Returns number -> directory of the versions in `directory`, complete or not."""
    try:
        entries = list(pathlib.Path(directory).iterdir())
        names = (entry for entry in entries if re.fullmatch("[0-9]{1,18}", entry.name))
        return {int(entry.name): entry for entry in names if entry.is_dir()}
    except OSError:
        return {}


class LocalModel:
    """An exported model in this process.

    Raises an OSError if `path`, a version, is no exported model, and a RequestError if
    it is one of TensorFlow Lite.

    Attributes:
      signatures: name -> function.
      tested: way and shot of the test in export.json, or without one of the validation
        episodes that confidence was fitted to; None if it has neither.
    """

    def __init__(self, path: Source):
        check_not_forked()
        if pathlib.Path(path, "model.tflite").is_file():
            received = "one of TensorFlow Lite"
            raise refused(str(path), "an export as a SavedModel", received)
        import tensorflow as tf

        self._tf = tf
        # Kept, because its functions do not keep its variables alive.
        self._loaded = tf.saved_model.load(str(path))
        self.signatures = self._loaded.signatures
        metadata = _metadata(pathlib.Path(path))
        self.tested, self._embedding = _tested(metadata), metadata.get("embedding")

    def embedding(self) -> Any:
        """Returns what export.json records of the features; None if nothing."""
        return self._embedding

    def beyond_test(self, labels: np.ndarray) -> str:
        """Returns a warning if labels exceed way or shot of `tested`, else "".

        The accuracy there is unknown.
        """
        counts = np.unique(labels, return_counts=True)[1]
        if self.tested is None or not len(counts):
            return ""
        (way, shot), (classes, examples) = self.tested, (len(counts), counts.max())
        more = [f"{classes} classes"] if classes > way else []
        more += [f"{examples} examples of a class"] if examples > shot else []
        if not more:
            return ""
        tested = f"the model was measured on {way}-way {shot}-shot episodes, and so "
        tested += "were `unknown` and `predict_set`"
        flags = f"--mode=evaluate --test_way={classes} --test_shot={examples}"
        return f"{' and '.join(more)}; {tested}. `{flags}` measures the accuracy."

    def inputs(self, signature: str) -> dict[str, Any]:
        """Returns name -> TensorSpec of a signature's inputs.

        Raises:
          RequestError: if there is no such signature.
        """
        if signature not in self.signatures:
            expected = f"one of {', '.join(sorted(self.signatures))}"
            received = repr(signature[:80])
            if signature == "adapt":
                received += ", which transductive methods lack"
            raise refused("signature_name", expected, received)
        return self.signatures[signature].structured_input_signature[1]

    def __call__(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Returns name -> output of a signature for arrays of the right types.

        Raises:
          RequestError: if the model refuses the inputs.
          ForkError: if TensorFlow would hang in this process.
        """
        check_not_forked()
        specs = self.inputs(signature)
        for name, spec in specs.items():
            if not spec.shape.is_compatible_with(inputs[name].shape):
                expected = f"shape {_shown_shape(spec.shape.as_list())}"
                raise refused(name, expected, _shown_shape(inputs[name].shape))
        make = self._tf.constant
        tensors = {name: make(inputs[name], spec.dtype) for name, spec in specs.items()}
        try:
            outputs = self.signatures[signature](**tensors)
        except self._tf.errors.InvalidArgumentError as error:
            raise RequestError(_in_words(refusal(error.message), specs)) from None
        return {name: value.numpy() for name, value in outputs.items()}


def _in_words(said: str, inputs: Mapping[str, Any]) -> str:
    """Returns a refusal in our words; TensorFlow's own words name no field."""
    if ": expected " in said:
        return said
    line = one_line(said.strip().partition("\n")[0])[:_SHOWN_CHARACTERS]
    pictures = sorted(n for n, spec in inputs.items() if spec.dtype.name == "string")
    if pictures:
        return str(refused(" or ".join(pictures), "undamaged pictures", line))
    return str(refused(", ".join(inputs), "numbers the model can compute with", line))


def _metadata(path: pathlib.Path) -> dict[str, Any]:
    try:
        with (path / "export.json").open("rb") as file:
            return dict(json.loads(file.read(_MOST_METADATA_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}  # another SavedModel has none


def _tested(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    for places in ("test_accuracy", "test"), ("fitted_on_validation",):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            test = functools.reduce(operator.getitem, places, metadata)
            return int(test["way"]), int(test["shot"])
    return None


@functools.lru_cache(maxsize=4)  # shared by classifiers
def _loaded(path: str, unused_status: tuple[int, int]) -> LocalModel:
    return LocalModel(path)


def _shown_shape(sizes: Iterable[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in sizes)}]"


Model = LocalModel | RestModel | ClosedForm
