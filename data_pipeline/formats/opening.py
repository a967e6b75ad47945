"""Opens input files, and refuses pipes, directories and empty files."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator

from leo_tf.errors import InputError
from leo_tf.files import AnyPath


@contextlib.contextmanager
def open_input(path: AnyPath) -> Iterator[io.BufferedReader]:
    """Opens a non-empty regular file for reading, as a context manager.

    Raises:
      InputError: if it is missing, not a regular file, empty or not readable; also
        if reading fails inside the block.
    """
    path = os.fspath(path)
    try:
        try:
            # Tested first: opening a pipe without a writer never returns.
            status = os.stat(path)
        except ValueError as error:  # a NUL in the path
            raise InputError(ascii(path), "a path", str(error)) from None
        if stat.S_ISDIR(status.st_mode):
            raise InputError(path, "a file", "a directory")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(path, "a file", "a device, a pipe or a socket")
        if not status.st_size:
            hint = "The program that wrote or copied it did not finish: run it again."
            raise InputError(path, "a file with data", "an empty file", hint)
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(path, "a file", "nothing there") from None
    except OSError as error:
        raise InputError(path, "a readable file", str(error.strerror)) from None
