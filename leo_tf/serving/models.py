"""Where a `Classifier` gets its answers: from an exported model here, or a server.

Both are called with the name of a signature and its inputs, and give its outputs.
TensorFlow is imported when a model is loaded, and for a server not at all.
"""

import functools
import http.client
import json
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Source = str | os.PathLike[str]
_MODEL_PATH = "/v1/models/leo"
# Which answers of a server tell of a mistake of the request, not of the server.
_REFUSALS = (400, 413)


class RequestError(ValueError):
    """What a model or a `Classifier` refuses: the field, the expected, the received."""


def refused(field: str, expected: str, received: object) -> RequestError:
    """Returns the error of a field."""
    return RequestError(f"{field}: expected {expected}, received {received}.")


def connect(source: Source, timeout: float = 60.0) -> "Model":
    """Returns the model that `source` names; for both arguments see `Classifier`.

    Raises:
      ValueError: if there is no exported model at a path.
    """
    if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
        return RestModel(source, timeout)
    return _loaded(str(newest(source).resolve()))


def newest(source: Source) -> pathlib.Path:
    """Returns the directory of the model at `source`: itself, or its newest version.

    Raises:
      ValueError: if there is none.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise refused("source", "a path or a URL of a server", repr(source))
    path = pathlib.Path(source)
    if (path / "saved_model.pb").is_file():
        return path
    found = versions(path)
    if not found:
        expected = "a directory of exported versions, or one of them"
        raise refused("source", expected, repr(str(path)))
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
    """An exported model in this process; OSError if `path`, a version, is not one."""

    def __init__(self, path: Source):
        import tensorflow as tf

        self._tf = tf
        # Held whole: its functions do not keep its variables alive.
        self._loaded = tf.saved_model.load(str(path))
        self.signatures = self._loaded.signatures

    def inputs(self, signature: str) -> dict[str, Any]:
        """Returns name -> TensorSpec of a signature's inputs.

        Raises:
          RequestError: if there is no such signature.
        """
        if signature not in self.signatures:
            expected = f"one of {', '.join(sorted(self.signatures))}"
            raise refused("signature_name", expected, repr(signature[:80]))
        return self.signatures[signature].structured_input_signature[1]

    def __call__(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Returns name -> output of a signature for arrays of the right types.

        Raises:
          RequestError: if the model refuses the inputs.
        """
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
            raise RequestError(refusal(error.message)) from None
        return {name: value.numpy() for name, value in outputs.items()}


_loaded = functools.lru_cache(maxsize=4)(LocalModel)  # shared by classifiers


def _shown_shape(sizes: Iterable[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in sizes)}]"


def refusal(message: str) -> str:
    """Returns what the model itself said, without where TensorFlow adds it happened."""
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = message.partition("\n\t [[")[0].strip()
    said = re.fullmatch(r"assertion failed: \[(.*)\]", message, re.DOTALL)
    return said[1] if said else message


class RestModel:
    """A model behind TensorFlow Serving's REST interface, whoever answers.

    `url` is the server's, or a model's there, perhaps with "/versions/NUMBER".
    """

    def __init__(self, url: str, timeout: float):
        self.timeout = timeout
        path = urllib.parse.urlsplit(url).path.rstrip("/")
        self.url = url.rstrip("/") + ("" if path else _MODEL_PATH) + ":predict"

    def __call__(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Returns name -> output of a signature for arrays.

        Raises:
          RequestError: if the model refuses the inputs, or the server their size.
          ConnectionError: if the server does not answer.
        """
        lists = {name: np.asarray(value).tolist() for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": lists}).encode()
        outputs = {n: np.asarray(v) for n, v in self._post(body)["outputs"].items()}
        return {
            name: value.astype(np.float32) if value.dtype.kind == "f" else value
            for name, value in outputs.items()
        }

    def _post(self, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = _error_of(error)
            if error.code in _REFUSALS:
                raise RequestError(refusal(said)) from None
            received = f"{error.code}, {said}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            received = str(getattr(error, "reason", error) or type(error).__name__)
        raise ConnectionError(f"{self.url}: expected an answer, received {received}.")


Model = LocalModel | RestModel


def _error_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return error.reason
