"""Training state saved with a checkpoint besides the variables."""

import dataclasses
import math
from collections.abc import Callable

from leo_tf.configs.schema import Config
from leo_tf.errors import CheckpointError, quoted
from leo_tf.evaluation.intervals import Interval
from leo_tf.files import finite
from leo_tf.runs.checkpoints import Checkpoint

_ASTRAY = "non_finite:"  # prefix of a metric, see `meta_step.make_update`
_LARGEST_INTEGER = 2**63 - 1  # TensorFlow's


@dataclasses.dataclass
class Averages:
    """Means of metrics over the finite steps since its creation."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0

    def add(self, sums: dict[str, float], count: int) -> None:
        """Adds sums that `run_steps` returned for `count` steps."""
        self.steps += count - round(sums["non_finite"])
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Name -> mean; empty if no step was finite."""
        if not self.steps:
            return {}
        return {name: value / self.steps for name, value in self.sums.items()}


@dataclasses.dataclass
class TrainingState:
    """State of a training besides the variables.

    Attributes:
      step: meta-steps done.
      history: one record per validation, see `record`.
      best_step, best_accuracy: of the best validation.
      non_finite: non-finite steps so far.
      astray: name of an inner rate's setting -> number of non-finite steps in which
        the support loss grew in the inner loop of that rate.
      seconds: training time over all sessions.
      non_finite_surplus: recent excess of non-finite over finite steps; never below 0.
      since_validation: metrics of the steps after the last validation.
    """

    step: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    best_step: int | None = None
    best_accuracy: float = -1.0
    non_finite: int = 0
    astray: dict[str, int] = dataclasses.field(default_factory=dict)
    non_finite_surplus: int = 0
    seconds: float = 0.0
    since_validation: Averages = dataclasses.field(default_factory=Averages)

    def add_steps(self, count: int, sums: dict[str, float], seconds: float) -> None:
        """Counts `count` more steps, with the sums of their metrics."""
        non_finite = round(sums["non_finite"])
        self.step += count
        self.seconds += seconds
        self.non_finite += non_finite
        for name, value in sums.items():
            if name.startswith(_ASTRAY):
                setting = name.removeprefix(_ASTRAY)
                self.astray[setting] = self.astray.get(setting, 0) + round(value)
        surplus = self.non_finite_surplus + non_finite - (count - non_finite)
        self.non_finite_surplus = max(0, surplus)

    @property
    def best_validation(self) -> Interval | None:
        """Accuracy of the best validation; None before the first."""
        for row in self.history:
            if row["step"] == self.best_step:
                width = row["val_half_width"]
                return Interval(
                    row["val_accuracy"], math.inf if width is None else width
                )
        return None

    @property
    def share_not_finite(self) -> float:
        """Share of non-finite steps among all steps."""
        return self.non_finite / max(1, self.step)

    def advice(self, config: Config) -> str:
        """Returns advice against the most frequent cause of non-finite steps.

        It is a lower rate: of the inner loop in which the support loss grew, else of
        the outer loop.
        """
        astray, rates = self.astray, config.flat()
        name = max(astray, key=lambda name: astray[name], default="")
        if 2 * astray.get(name, 0) <= self.non_finite:
            rate = min(rates["outer_lr"] / 10, Config().optimizer.outer_lr)
            return f"Try a lower --outer_lr in another --workdir, for example {rate:g}."
        cause = "The support's loss grew from inner step to inner step: try a lower"
        rate = (rates[name] or 1.0) / 10 if name in rates else None  # 1 by default
        example = f", for example {rate:g}" if rate else ""
        return f"{cause} --{name} in another --workdir{example}."

    def record(
        self, accuracy: Interval, loss: float, training: dict[str, float]
    ) -> None:
        """Adds a validation and the means of training; non-finite values as None."""
        values = {
            "train_accuracy": training.get("accuracy"),
            "train_loss": training.get("loss"),
            "val_accuracy": accuracy.mean,
            "val_half_width": accuracy.half_width,
            "val_loss": loss,
        }
        finite_ones = {name: finite(value) for name, value in values.items()}
        self.history.append({"step": self.step, **finite_ones})

    def find_best(self, is_whole: Callable[[int], bool]) -> None:
        """Chooses the best of the remaining checkpoints if the best one is lost.

        Args:
          is_whole: returns whether the checkpoint of a step exists undamaged.
        """
        if self.best_step is None or is_whole(self.best_step):
            return
        finite_ones = (r for r in self.history if r["val_accuracy"] is not None)
        left = (record for record in finite_ones if is_whole(record["step"]))
        best = max(left, key=lambda record: record["val_accuracy"], default=None)
        # If none is left, the current step stands in until the next validation.
        self.best_step = best["step"] if best else self.step
        self.best_accuracy = best["val_accuracy"] if best else -1.0

    def is_at_plateau(self, patience: int) -> bool:
        """Returns whether the last `patience` validations, if not 0, were no better."""
        if not patience or self.best_step is None:
            return False
        later = sum(record["step"] > self.best_step for record in self.history)
        return later >= patience

    def line(self) -> str:
        """Returns step, loss and accuracy as a line."""
        means = self.since_validation.means()
        text = f"step {self.step}"
        if "loss" in means:
            share = 100 * means["accuracy"]
            text += f"  loss {means['loss']:.3f}  accuracy {share:.1f} %"
        return text + self._not_finite()

    def validation_line(self, accuracy: Interval, mark: str) -> str:
        """Returns the result of a validation as a line that ends with `mark`."""
        text = f"step {self.step}: validation accuracy {accuracy} %{mark}"
        return text + self._not_finite()

    def _not_finite(self) -> str:
        return f"  {self.non_finite} non-finite steps" if self.non_finite else ""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "TrainingState":
        """Returns the training state in a checkpoint.

        Raises:
          CheckpointError: if another program or version of leo-tf wrote it.
        """
        where = f"{checkpoint.path}: `progress`"
        try:
            fields = dict(checkpoint.manifest["progress"])
            averages = Averages(**fields.pop("since_validation"))
            averages.sums = {n: _number(v) for n, v in dict(averages.sums).items()}
            averages.steps = _integer(averages.steps)
            for name in ("step", "best_step", "non_finite", "non_finite_surplus"):
                if name != "best_step" or fields[name] is not None:
                    fields[name] = _integer(fields[name])
            astray = dict(fields["astray"]).items()
            fields["astray"] = {str(name): _integer(value) for name, value in astray}
            for name in ("best_accuracy", "seconds"):
                fields[name] = _number(fields[name])
            fields["history"] = [_checked(record) for record in fields["history"]]
            progress = cls(**fields, since_validation=averages)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            expected = "the fields of this version of leo-tf"
            received = quoted(f"{type(error).__name__}: {error}")
            raise CheckpointError(where, expected, received) from error
        if progress.step != checkpoint.step:
            expected, received = f"step {checkpoint.step}", f"step {progress.step}"
            raise CheckpointError(where, expected, received)
        return progress


def _checked(record) -> dict:
    """Returns a record of the history after checking its fields."""
    names = ("train_accuracy", "train_loss", "val_accuracy", "val_half_width")
    values = {name: finite(_number(record[name])) for name in (*names, "val_loss")}
    if len(record) != len(values) + 1:
        raise ValueError(f"a validation of {len(record)} fields")
    return {"step": _integer(record["step"]), **values}


def _integer(value) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_INTEGER:
        raise TypeError(f"{quoted(value)} for an integer")
    return value


def _number(value) -> float:
    """Returns a number, with NaN for null, because JSON has no NaN."""
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise TypeError(f"{quoted(value)} for a number")
    return float(value)
