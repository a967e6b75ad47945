"""Describes the machine and packages of a run, and imports some of them safely."""

import atexit
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import logging
import os
import pathlib
import platform
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Any

import leo_tf
from leo_tf.errors import FlagError

_PACKAGES = ("tensorflow", "tensorflow-probability", "keras", "numpy", "matplotlib")
# Keras loads these, if they are installed, for arrays and models that we never give it.
_OPTIONAL = "grain", "matplotlib", "pandas", "sklearn"


# Callers that create functions for each job on purpose.
_MAKERS = re.compile(
    r"calls to <(bound method Workers|function "
    r"(_best_scale|_centroid_accuracies|adaptation_seconds|make_meta_step"
    r"|make_run_steps|make_scorer))\."
)


def is_news(record: logging.LogRecord) -> bool:
    """Tells whether a log record is of use to users; retracing of our functions is not.

    It filters TensorFlow's logger. Warnings about users' functions still appear.
    """
    message = str(record.msg)
    return "tf.function retracing" not in message or not _MAKERS.search(message)


def versions() -> dict[str, str]:
    """Returns the versions of packages and Python, and the kind of machine."""
    found = {"leo-tf": leo_tf.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # e.g. tensorflow-cpu
            found[name] = "unknown"
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


@functools.cache
def code() -> dict[str, str]:
    """Returns `versions`, and a digest of all modules of leo_tf as they are."""
    sha, files = hashlib.sha256(), dict[str, pathlib.Path]()
    for name in (".", "configs", "data_pipeline"):
        places = (pathlib.Path(place, name) for place in leo_tf.__path__)
        root = next(filter(pathlib.Path.is_dir, places))
        found = {file.relative_to(root): file for file in root.rglob("*.py")}
        files |= {str(name / path): file for path, file in found.items()}
    for path, file in sorted(files.items()):
        sha.update(path.encode())
        sha.update(file.read_bytes())
    return {**versions(), "modules": sha.hexdigest()}


def python() -> str:
    """Returns the command for this Python in this shell, quoted."""
    found, mine = shutil.which("python"), pathlib.Path(sys.executable)
    # Compares directories, because a virtual environment's python may be a link.
    if found and pathlib.Path(found).parent == mine.parent:
        return "python"
    return shlex.quote(min(os.path.relpath(mine), str(mine), key=len))


def program() -> str:
    """Returns the command for our command line here, for printed commands."""
    script = pathlib.Path(leo_tf.__file__).parents[1] / "run_leo.py"
    if script.exists():  # in a checkout, wherever it is
        return f"{python()} {shlex.quote(os.path.relpath(script))}"
    return f"{python()} -m leo_tf"


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def import_tensorflow() -> None:
    """Imports TensorFlow, and Keras with it, in two thirds of the usual time.

    Keras finds no optional packages; later imports of them work as usual. So this is
    for processes of our own, never for the user's, where Keras may get a DataFrame.
    """
    left_out = [name for name in _OPTIONAL if name not in sys.modules]
    hidden: Any = dict.fromkeys(left_out)  # None means "not installed"
    sys.modules.update(hidden)
    try:
        import tensorflow  # noqa: F401
    finally:
        for name in left_out:
            del sys.modules[name]


def quick_exit() -> threading.Event:
    """Returns an event. Once set, this process exits without unloading TensorFlow.

    Unloading takes a second. Call this first: exit handlers run in reverse order, so
    those registered later, such as ones that end child processes, still run.
    """
    succeeded = threading.Event()

    def leave() -> None:
        if succeeded.is_set():
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)

    atexit.register(leave)
    return succeeded


def import_keras() -> None:
    """Imports Keras on TensorFlow, whatever KERAS_BACKEND and keras.json say.

    Raises a FlagError if Keras is imported already, on another backend.
    """
    with _variable("KERAS_BACKEND", "tensorflow"):
        import keras
    backend = keras.backend.backend()
    if backend != "tensorflow":
        hint = "Unset it, or import leo_tf before keras."
        raise FlagError("KERAS_BACKEND", "tensorflow", backend, hint)


def import_matplotlib() -> Any:
    """Imports and returns matplotlib, whatever MPLBACKEND says.

    We never use a backend. A notebook passes its own on to every command it starts.
    """
    with _variable("MPLBACKEND", ""):
        import matplotlib
    return matplotlib


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable temporarily; other programs need the user's."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def device() -> str:
    """Returns the device that TensorFlow computes on, as words."""
    import tensorflow as tf

    gpus = len(tf.config.list_logical_devices("GPU"))
    return f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else f"CPU, {cores()} cores"


def import_users(module: str) -> Any:
    """Imports a user's module, which may lie in the current directory."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(module)
