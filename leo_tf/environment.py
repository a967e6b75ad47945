"""The machine and the packages that computed a result."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

import leo_tf
from leo_tf.errors import FlagError

_PACKAGES = ("tensorflow", "tensorflow-probability", "keras", "numpy", "matplotlib")


def versions() -> dict[str, str]:
    """Returns the versions of packages and Python, and the kind of machine."""
    found = {"leo-tf": leo_tf.__version__}
    found |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def import_keras() -> None:
    """Imports Keras upon TensorFlow, whatever KERAS_BACKEND and keras.json say.

    FlagError if it is imported already, upon something else.
    """
    with _variable("KERAS_BACKEND", "tensorflow"):
        import keras
    backend = keras.backend.backend()
    if backend != "tensorflow":
        hint = "Unset it, or import leo_tf before keras."
        raise FlagError("KERAS_BACKEND", "tensorflow", backend, hint)


def import_matplotlib() -> Any:
    """Returns matplotlib, imported whatever MPLBACKEND says; we never use a backend.

    A notebook hands its own on to every command that is started from it.
    """
    with _variable("MPLBACKEND", ""):
        import matplotlib
    return matplotlib


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable for a while: other programs may need the user's."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def device() -> str:
    """Returns what TensorFlow computes on, in words."""
    import tensorflow as tf

    gpus = len(tf.config.list_logical_devices("GPU"))
    return f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else f"CPU, {os.cpu_count()} cores"
