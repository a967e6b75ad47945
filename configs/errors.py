"""The one family of errors this package raises for a user's mistake.

Every error says where (a path or a flag), what was expected, what was received and,
where it helps, what to do. The command line prints that line and exits with
`exit_code`; anything else that escapes is a bug of ours.
"""

_SHOWN_CHARACTERS = 80


def shown(value) -> str:
    """Text from a file or a flag, escaped and cut, fit for one line of an error."""
    text = ascii(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


class LeoError(ValueError):
    """Something the user can mend.

    Args:
      where: the path, the flag, or the path and field, e.g. "a.npz: `embeddings`".
      expected: what would have been right.
      received: what was found instead.
      hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, where: str, expected: str, received: str, hint: str = ""):
        self.where = str(where)
        self.expected = expected
        self.received = received
        self.hint = hint
        message = f"{where}: expected {expected}, received {received}."
        super().__init__(f"{message} {hint}" if hint else message)


class FlagError(LeoError):
    """A flag or a configuration field has a value it cannot have."""

    exit_code = 2


class InputError(LeoError):
    """A data file, or a run directory, is not what it should be."""

    exit_code = 3


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
