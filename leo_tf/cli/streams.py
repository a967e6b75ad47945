"""Standard output and standard error, even if closed, full or a pipe."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


def prepare_streams() -> None:
    """Ensures that both streams exist and accept any character."""
    sys.stdout = sys.stdout or _null()  # None if the parent process closed it
    sys.stderr = sys.stderr or _null()
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know our "±"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Prints on standard error. If that fails, only the exit status is left."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def flush_output() -> None:
    """Flushes standard output. If that fails, the rest is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def discard(stream: IO[str]) -> None:
    """Redirects unwritten output to nowhere, because else Python fails at exit."""
    with contextlib.suppress(OSError), _null() as null:  # some have no descriptor
        os.dup2(null.fileno(), stream.fileno())


def _null() -> IO[str]:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


@contextlib.contextmanager
def without_start_up_messages() -> Iterator[None]:
    """Hides messages that TensorFlow's libraries print while loading.

    They write a dozen lines to file descriptor 2 before their settings take effect
    (tensorflow issue 100442). If loading fails, everything is shown. With flags for
    XLA nothing is hidden, because XLA ends the process at an unknown flag.
    """
    if {"XLA_FLAGS", "TF_XLA_FLAGS"} & {*os.environ}:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        sys.stderr.flush()
        terminal, messages = os.dup(2), _scratch_file()
    except OSError:  # without a terminal or scratch file, nothing is hidden
        yield
        return
    with messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(terminal, 2)
            messages.seek(0)
            shutil.copyfileobj(messages, sys.stderr)
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _scratch_file() -> IO[str]:
    """Returns an open text file without a name. Raises an OSError without room."""
    if hasattr(os, "memfd_create"):  # needs no writable directory
        return os.fdopen(os.memfd_create("messages"), "w+", errors="replace")
    return tempfile.TemporaryFile("w+", errors="replace")
