"""The errors that this package raises for users' mistakes.

Every error says where (a path or a flag), what was expected, what was received and,
where it helps, what to do. The command line prints that line and exits with
`exit_code`; anything else that escapes is a bug of ours.
"""

import os
import re
import sys
from typing import Any

_SHOWN_CHARACTERS = 80
# Long enough for the longest path that Linux opens.
_LONGEST_PART = 4096


def quoted(value: object) -> str:
    """Returns text from a file or a flag, escaped and shortened for an error."""
    text = ascii(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def one_line(text: object) -> str:
    """Returns text on one line, escaped where unprintable and shortened if long.

    Paths in any script stay readable. Characters that would move a terminal's cursor
    are escaped.
    """
    line = str(text)
    if len(line) > _LONGEST_PART:
        half = _LONGEST_PART // 2
        line = f"{line[:half]}... ({len(line)} characters) ...{line[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class LeoError(ValueError):
    """An error that the user can fix.

    Each part may have text from a file, and is stored through `one_line`.

    Args:
      where: the path, the flag, or the path and field, e.g. "a.npz: `embeddings`".
      expected: description of valid values.
      received: the value found instead.
      hint: the next step; may be empty.
    """

    exit_code = 1

    def __init__(self, where: str, expected: str, received: str, hint: str = ""):
        parts = map(one_line, (where, expected, received, hint))
        self.where, self.expected, self.received, self.hint = parts
        message = f"{self.where}: expected {self.expected}, received {self.received}."
        super().__init__(f"{message} {self.hint}" if hint else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles all parts, so that a process pool can read the error back."""
        return type(self), (self.where, self.expected, self.received, self.hint)


class FlagError(LeoError):
    """A flag or a configuration field has an invalid value."""

    exit_code = 2


class InputError(LeoError):
    """A data file or a run directory is invalid."""

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
    """Another process of the same training is gone."""

    exit_code = 7


class DiskError(LeoError):
    """A file cannot be written."""

    exit_code = 5


class CallbackError(LeoError):
    """A user's callback raised an exception, which is this error's cause."""

    exit_code = 8


class RequestError(ValueError):
    """A model or `Classifier` refuses a request: field, expected, received."""


def refused(field: str, expected: str, received: object) -> RequestError:
    """Returns the error of a field."""
    return RequestError(f"{field}: expected {expected}, received {received}.")


def without_secrets(source: object) -> str:
    """Returns a path or URL with *** for user, password and query."""
    text = re.sub(r"(?s)^(\w+:/+|(?=[\w.%~-]+:)).*@", r"\1***@", str(source))
    return re.sub(r"(?s)^(\w+:/+[^?]*\?).*", r"\1***", text)


def refusal(message: str) -> str:
    """Returns the model's own message, without TensorFlow's location of it."""
    message = message.rpartition("<stack traces unavailable>\n")[2]
    message = message.partition("\n\t [[")[0].strip()
    said = re.fullmatch(r"assertion failed: \[(.*)\]", message, re.DOTALL)
    return said[1] if said else message


class ForkError(LeoError):
    """TensorFlow cannot compute in this forked process, and would hang."""


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop; everything is saved."""

    def __init__(self, signal: int):
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal

    def __reduce__(self) -> Any:
        return type(self), (self.signal,)


def check_not_forked() -> None:
    """Raises a ForkError if TensorFlow had computed before this process was forked."""
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
    """Tells whether TensorFlow's threads have started."""
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
    """Tells whether this process has one thread; False if that is unknown."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


# If the fork came before this import, TensorFlow has lost its threads.
_is_broken_fork = _is_alone() and _tensorflow_has_computed()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_note_fork)
