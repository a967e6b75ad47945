"""Tasks of workers, and the signs that they send: plain values that fit JSON.

A `Runner` runs tasks. There are two: `local.LocalRunner` and `cluster.RayRunner`.
"""

from typing import Any, NamedTuple, Protocol

from leo_tf import errors
from leo_tf.errors import LeoError, Stopped, WorkerError

# Total number of starts of a run if its workers die.
STARTS = 4
# A worker without a sign of life for this long is ended. The longest normal silence,
# compiling a large graph on a busy machine, takes minutes.
HUNG_SECONDS = 900.0
# Time for a worker to save its run before it is killed.
LAST_SECONDS = 30.0


class Task(NamedTuple):
    """One run to train or resume. All paths are absolute.

    Attributes:
      name: name of the run's directory below that of the job.
      workdir: the run directory.
      config: result of `Config.to_dict`.
      features, splits: directory and name of the data, see `features.write`.
      digest: digest of the data, which other machines compare.
      code: digest of the program and versions of its packages, also compared.
      fitted: settings, file and digest of the feature transform to begin with, if any.
      to_test: fit confidence after training.
      scores: file for its test scores; "" for no test.
      until: step to train to, if not the last.
      log: file for other output of the worker.
      environment: further environment variables of its worker.
      steps: largest number of meta-steps, from the beginning.
      begun: number of these that earlier tasks of this job have made.
      step_cost: time of a step relative to LEO's, to estimate the time left.
      said: line to show when it begins.
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
    scores: str = ""
    until: int | None = None
    log: str = ""
    environment: dict[str, str] | None = None
    steps: int = 0
    begun: int = 0
    step_cost: float = 1.0
    said: str = ""


class Sign(NamedTuple):
    """A message about a task while it runs, or when it has ended."""

    name: str
    text: str = ""
    step: int | None = None  # of its training, out of `total`
    total: int = 0
    is_warning: bool = False  # shown even if quiet
    has_ended: bool = False
    error: dict[str, Any] | None = None  # if it is not done, see `as_dict`

    @property
    def outcome(self) -> LeoError | Stopped | None:
        """None if the run is done; `Stopped` if it was stopped and saved."""
        return None if self.error is None else from_dict(self.error)


class Runner(Protocol):
    """Interface of classes that train runs."""

    def submit(self, task: Task) -> None:
        """Trains the run as soon as there is room."""

    def keep_for(self, count: int) -> None:
        """Ends unused workers beyond those that `count` unfinished tasks need."""

    def watch(self, seconds: float) -> Sign | None:
        """Returns the next sign of any task; None if there is none in time.

        Each task sends one sign that it has ended, even if its worker dies.
        """

    def cancel(self) -> None:
        """Asks all runs to stop. Each is saved, and ends with `Stopped`."""

    def close(self) -> None:
        """Ends the workers. Unfinished runs are saved first."""


def as_dict(error: LeoError | Stopped) -> dict[str, Any]:
    """Returns an error as values that fit JSON."""
    if isinstance(error, Stopped):
        return {"signal": error.signal}
    parts = [error.where, error.expected, error.received, error.hint]
    names = [kind.__name__ for kind in type(error).__mro__]
    known = next(name for name in names if hasattr(errors, name))
    return {"type": known, "parts": parts}


def from_dict(values: dict[str, Any]) -> LeoError | Stopped:
    """Returns the error from the values of `as_dict`."""
    if "signal" in values:
        return Stopped(values["signal"])
    kind = getattr(errors, values["type"], WorkerError)
    return kind(*values["parts"])


def gone(name: str, how: str, log: str) -> WorkerError:
    """Returns the error of a run whose workers died too often."""
    hint = f"{log} has their output. The same command resumes from the checkpoint."
    expected = "a worker that runs until the end"
    return WorkerError(name, expected, f"{STARTS} that ended: {how}", hint)
