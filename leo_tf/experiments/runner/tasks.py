"""What a worker is asked to do, and what it tells: plain values, which JSON can hold.

A `Runner` does the tasks. There are two: `local.LocalRunner` and `cluster.RayRunner`.
"""

from typing import Any, NamedTuple, Protocol

from leo_tf import errors
from leo_tf.errors import LeoError, Stopped, WorkerError

# So often is a run started in all, if its worker dies.
STARTS = 4
# A worker that shows no sign of life for so long is ended. Compiling a large graph on a
# busy machine, the longest silence there is, takes minutes.
HUNG_SECONDS = 900.0


class Task(NamedTuple):
    """One run to train, or to go on with; all paths are absolute.

    Attributes:
      name: of the run's directory below that of the job.
      workdir: that directory.
      config: of the run, as `Config.to_dict` has it.
      features, splits: directory and name of the data, see `features.write`.
      digest: of that data, to be compared on another machine.
      code: digest of the program and versions of its packages, likewise.
      fitted: of the feature transform to begin with, if there is one: its settings,
        file and digest.
      to_test: whether to fit confidence after training.
      until: the step to train to, if that is not the last.
      log: what a worker prints besides goes there.
      steps: meta-steps that it takes at most, from its beginning.
    """

    name: str
    workdir: str
    config: dict[str, Any]
    features: str
    splits: str
    digest: str
    code: dict[str, str]
    fitted: dict[str, Any] | None = None
    allow_changes: bool = False
    to_test: bool = False
    until: int | None = None
    log: str = ""
    steps: int = 0


class Sign(NamedTuple):
    """What is told of a task while it runs, or when it has ended."""

    name: str
    text: str = ""
    step: int | None = None  # of `total`, in the work it is at
    total: int = 0
    is_warning: bool = False  # to be seen even where all else is quiet
    has_ended: bool = False
    error: dict[str, Any] | None = None  # why it is not done, see `as_dict`

    @property
    def outcome(self) -> LeoError | Stopped | None:
        """None if the run is done; `Stopped` if it was stopped, and saved."""
        return None if self.error is None else from_dict(self.error)


class Runner(Protocol):
    """What trains runs: it is given all of them, watched, and told to stop."""

    def submit(self, task: Task) -> None:
        """Trains the run as soon as there is room for it."""

    def watch(self, seconds: float) -> Sign | None:
        """The next sign of any task; None if there is none for so many seconds.

        Of each task one sign says that it has ended, whatever happens to its worker.
        """

    def cancel(self) -> None:
        """Asks all runs to stop; each is saved, and ends with `Stopped`."""

    def close(self) -> None:
        """Ends the workers; a run that is not done is saved first."""


def as_dict(error: LeoError | Stopped) -> dict[str, Any]:
    """Returns an error as JSON can hold it."""
    if isinstance(error, Stopped):
        return {"signal": error.signal}
    parts = [error.where, error.expected, error.received, error.hint]
    return {"type": type(error).__name__, "parts": parts}


def from_dict(values: dict[str, Any]) -> LeoError | Stopped:
    """Returns the error that `as_dict` was given."""
    if "signal" in values:
        return Stopped(values["signal"])
    kind = getattr(errors, values["type"], WorkerError)
    return kind(*values["parts"])


def gone(name: str, how: str, log: str) -> WorkerError:
    """The error of a run whose workers died once too often."""
    hint = f"{log} has what they printed. The same command goes on from the checkpoint."
    expected = "a worker that lives until the run is done"
    return WorkerError(name, expected, f"{STARTS} that ended: {how}", hint)
