"""Standard output and standard error, whatever they are: closed, full, a pipe."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


def prepare_streams() -> None:
    """Sees that there are both, and that they take any character."""
    sys.stdout = sys.stdout or _null()  # None if closed by whoever started us
    sys.stderr = sys.stderr or _null()
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know our "±"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """Prints on standard error; where that fails, the exit status must do."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def flush_output() -> None:
    """Flushes standard output; where that fails, drops what is left."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def discard(stream: IO[str]) -> None:
    """Lets what is still to be written go nowhere, or Python fails at its exit."""
    with contextlib.suppress(OSError), _null() as null:  # not all have a descriptor
        os.dup2(null.fileno(), stream.fileno())


def _null() -> IO[str]:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


@contextlib.contextmanager
def without_start_up_messages() -> Iterator[None]:
    """Keeps what TensorFlow's libraries print while loading off the terminal.

    They write a dozen lines to file descriptor 2 before any setting of theirs is
    heeded (tensorflow issue 100442). If loading fails, everything is shown; and where
    XLA gets flags, always: at one that is unknown it ends the process by itself.
    """
    if {"XLA_FLAGS", "TF_XLA_FLAGS"} & {*os.environ}:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        sys.stderr.flush()
        terminal, messages = os.dup(2), _scratch_file()
    except OSError:  # without a terminal, or a place for them, nothing is hidden
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
    """An open file of text without a name; an OSError if there is no room for one."""
    if hasattr(os, "memfd_create"):  # needs no directory that can be written
        return os.fdopen(os.memfd_create("messages"), "w+", errors="replace")
    return tempfile.TemporaryFile("w+", errors="replace")
