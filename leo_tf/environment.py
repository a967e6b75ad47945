"""The machine and the packages that computed a result."""

import importlib.metadata
import os
import platform

import leo_tf
from leo_tf.errors import FlagError

_PACKAGES = ("tensorflow", "tensorflow-probability", "keras", "numpy", "matplotlib")


def versions() -> dict[str, str]:
    """Returns the versions of packages and Python, and the kind of machine."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found = {"leo-tf": leo_tf.__version__, **found}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def check_keras_backend() -> None:
    """Refuses another backend of Keras than TensorFlow.

    Raises:
      FlagError: naming the variable that chooses it.
    """
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise FlagError("KERAS_BACKEND", "tensorflow", backend, "Unset it.")


def device() -> str:
    """Returns what TensorFlow computes on, in words."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return f"{len(gpus)} GPU" + "s" * (len(gpus) > 1)
    return f"CPU, {os.cpu_count()} cores"
