"""What a run knows besides its variables; a checkpoint's manifest holds it."""

import dataclasses


@dataclasses.dataclass
class Averages:
    """Means of metrics over the finite steps since it was made."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0
    non_finite: int = 0

    def add(self, sums: dict[str, float], count: int) -> None:
        """Adds what `run_steps` summed over `count` steps."""
        non_finite = round(sums["non_finite"])
        self.non_finite += non_finite
        self.steps += count - non_finite
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
      since_validation: metrics of the steps after the last validation.
    """

    step: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    best_step: int | None = None
    best_accuracy: float = -1.0
    non_finite: int = 0
    seconds: float = 0.0
    since_validation: Averages = dataclasses.field(default_factory=Averages)
