"""Fixtures that read hostile files in processes of their own."""

import json
import pathlib
import subprocess
import sys

import pytest


class Reader:
    """Reads files, each in a process of its own; see reading_process.py.

    Args:
      arguments: of that program.
    """

    def __init__(self, *arguments: str):
        program = pathlib.Path(__file__).with_name("reading_process.py")
        self._process = subprocess.Popen(
            [sys.executable, program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(self, job: str, argument, allowed: int, seconds: int = 60) -> list:
        """Returns how a process ended that may take `allowed` more bytes.

        Returns:
          "read", or "refused" and the exit status of the error, or anything else, which
          is a broken promise; the result or the message; the peak of memory in bytes.
        """
        request = json.dumps([job, argument, allowed, seconds])
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def reader() -> Reader:
    """Reads data without TensorFlow."""
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def tensorflow_reader() -> Reader:
    """Reads TFRecord files and checkpoints, and runs the program."""
    reader = Reader("tensorflow")
    yield reader
    reader.close()
