"""The one family of errors this package raises for a user's mistake.

Every error says where (a path or a flag), what was expected, what was received and,
where it helps, what to do. The command line prints that line and exits with
`exit_code`; anything else that escapes is a bug of ours.
"""

import os
import re
import sys
from typing import Any

_SHOWN_CHARACTERS = 80
# The longest path that Linux opens is read whole.
_LONGEST_PART = 4096


def shown(value: object) -> str:
    """Returns text from a file or a flag, escaped and cut, for a line of an error."""
    text = ascii(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def one_line(text: object) -> str:
    """Returns text on one line: escaped where it cannot be printed, cut if endless.

    A path in any script stays as it is; what would move a terminal's cursor does not.
    """
    line = str(text)
    if len(line) > _LONGEST_PART:
        half = _LONGEST_PART // 2
        line = f"{line[:half]}... ({len(line)} characters) ...{line[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class LeoError(ValueError):
    """Something the user can mend.

    Each part may hold text from a file; it is kept as `one_line` of it.

    Args:
      where: the path, the flag, or the path and field, e.g. "a.npz: `embeddings`".
      expected: what would have been right.
      received: what was found instead.
      hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, where: str, expected: str, received: str, hint: str = ""):
        parts = map(one_line, (where, expected, received, hint))
        self.where, self.expected, self.received, self.hint = parts
        message = f"{self.where}: expected {self.expected}, received {self.received}."
        super().__init__(f"{message} {self.hint}" if hint else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles all parts: a pool that cannot read an error back waits for ever."""
        return type(self), (self.where, self.expected, self.received, self.hint)


class FlagError(LeoError):
    """A flag or a configuration field has a value it cannot have."""

    exit_code = 2


class InputError(LeoError):
    """A data file, or a run directory, is not what it should be."""

    exit_code = 3


class HeldError(InputError):
    """Another process is at work in a run directory."""


class CheckpointError(LeoError):
    """A checkpoint cannot be used."""

    exit_code = 4


class DivergedError(LeoError):
    """Training no longer makes finite steps."""

    exit_code = 6


class WorkerError(LeoError):
    """Another process of the same training has gone."""

    exit_code = 7


class DiskError(LeoError):
    """Nothing can be written where it must be written."""

    exit_code = 5


class CallbackError(LeoError):
    """A callback of the user's has raised an exception, which is the cause of this."""

    exit_code = 8


class RequestError(ValueError):
    """What a model or a `Classifier` refuses: the field, the expected, the received."""


def refused(field: str, expected: str, received: object) -> RequestError:
    """Returns the error of a field."""
    return RequestError(f"{field}: expected {expected}, received {received}.")


def without_secrets(source: object) -> str:
    """Returns a path or URL with *** for user, password and query."""
    text = re.sub(r"(?s)^(\w+:/+|(?=[\w.%~-]+:)).*@", r"\1***@", str(source))
    return re.sub(r"(?s)^(\w+:/+[^?]*\?).*", r"\1***", text)


def refusal(message: str) -> str:
    """Returns what the model itself said, without where TensorFlow adds it happened."""
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = message.partition("\n\t [[")[0].strip()
    said = re.fullmatch(r"assertion failed: \[(.*)\]", message, re.DOTALL)
    return said[1] if said else message


class ForkError(LeoError):
    """TensorFlow cannot compute in this process, and would hang."""


class Stopped(Exception):
    """A signal, here by its number, has asked the process to stop; all is saved."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def check_not_forked() -> None:
    """Call it before TensorFlow computes: its threads do not live on in a fork.

    Raises:
      ForkError: if TensorFlow had computed anything before this process was forked.
    """
    if _is_broken_fork:
        raise ForkError(
            "TensorFlow",
            "a process that was not forked after TensorFlow had computed",
            f"such a fork, process {os.getpid()}, in which it would hang",
            'Start processes by multiprocessing.get_context("spawn") or by joblib\'s '
            '"loky"; fork (a web server: load) before TensorFlow is used; or ask a '
            'server, Classifier("http://HOST:PORT").',
        )


def _tensorflow_has_computed() -> bool:
    """Its number of threads can be changed until it starts them."""
    config = getattr(sys.modules.get("tensorflow"), "config", None)
    if config is None:
        return False
    count = config.threading.get_inter_op_parallelism_threads()
    try:
        config.threading.set_inter_op_parallelism_threads(count + 1)
    except RuntimeError:
        return True
    config.threading.set_inter_op_parallelism_threads(count)
    return False


def _note_fork() -> None:
    global _is_broken_fork
    _is_broken_fork = _is_broken_fork or _tensorflow_has_computed()


def _is_alone() -> bool:
    """Says whether this process has one thread only; where that is unknown, no."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


# A fork may have come before this import: then TensorFlow has lost its threads.
_is_broken_fork = _is_alone() and _tensorflow_has_computed()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_note_fork)
