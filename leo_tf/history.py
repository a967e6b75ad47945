"""What a run knows besides its variables; a checkpoint's manifest holds it."""

import dataclasses
from collections.abc import Callable

from configs.errors import CheckpointError, shown
from leo_tf.checkpoints import Checkpoint
from leo_tf.evaluation import Interval


@dataclasses.dataclass
class Averages:
    """Means of metrics over the finite steps since it was made."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0

    def add(self, sums: dict[str, float], count: int) -> None:
        """Adds what `run_steps` summed over `count` steps."""
        self.steps += count - round(sums["non_finite"])
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Name -> mean; empty if no step was finite."""
        if not self.steps:
            return {}
        return {name: value / self.steps for name, value in self.sums.items()}


@dataclasses.dataclass
class Progress:
    """What a checkpoint knows besides variables.

    Attributes:
      step: meta-steps done.
      history: one record a validation: step, accuracies and losses of train and val.
      best_step: step of the best validation, or None.
      best_accuracy: its accuracy.
      non_finite: steps that had to be mended so far.
      seconds: spent training, over all sessions.
      non_finite_surplus: by how many steps those not finite outnumber the others
        lately; never below 0.
      since_validation: metrics of the steps after the last validation.
    """

    step: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    best_step: int | None = None
    best_accuracy: float = -1.0
    non_finite: int = 0
    non_finite_surplus: int = 0
    seconds: float = 0.0
    since_validation: Averages = dataclasses.field(default_factory=Averages)

    def add_steps(self, count: int, non_finite: int, seconds: float) -> None:
        """Counts `count` more steps, of which `non_finite` had to be mended."""
        self.step += count
        self.seconds += seconds
        self.non_finite += non_finite
        surplus = self.non_finite_surplus + non_finite - (count - non_finite)
        self.non_finite_surplus = max(0, surplus)

    def find_best(self, is_whole: Callable[[int], bool]) -> None:
        """If the checkpoint of the best step is lost, the best that is left takes over.

        Args:
          is_whole: step -> whether its checkpoint is there and undamaged.
        """
        if is_whole(self.best_step):
            return
        left = [record for record in self.history if is_whole(record["step"])]
        best = max(left, key=lambda record: record["val_accuracy"], default=None)
        # With none left, where we are stands in until the next validation.
        self.best_step = best["step"] if best else self.step
        self.best_accuracy = best["val_accuracy"] if best else -1.0

    def line(self) -> str:
        """Where training is, in a line."""
        means = self.since_validation.means()
        text = f"step {self.step}"
        if "loss" in means:
            text += f"  loss {means['loss']:.3f}"
            text += f"  accuracy {100 * means['accuracy']:.1f} %"
        return text + self._not_finite()

    def validation_line(self, accuracy: Interval, mark: str) -> str:
        """What a validation found, in a line that ends with `mark`."""
        text = f"step {self.step}: validation accuracy {accuracy} %{mark}"
        return text + self._not_finite()

    def _not_finite(self) -> str:
        return f"  {self.non_finite} steps not finite" if self.non_finite else ""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Progress":
        """What a checkpoint says.

        Raises:
          CheckpointError: if another version of this package wrote it.
        """
        try:
            fields = dict(checkpoint.manifest["progress"])
            averages = Averages(**fields.pop("since_validation"))
            return cls(**fields, since_validation=averages)
        except (KeyError, TypeError, ValueError) as error:
            expected = "the fields of this version of leo-tf"
            raise CheckpointError(
                f"{checkpoint.path}: `progress`", expected, shown(str(error))
            ) from error
