"""Writes a training's metrics to TensorBoard.

Scalars are computed from numbers that `run_steps` returns anyway, without a second
forward pass, and without extra waits of the host.
"""

from typing import NamedTuple

import keras
import numpy as np

from leo_tf.configs.schema import Config
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import remark
from leo_tf.model.learner import Learner
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.tags import ACCURACY, BEST_ACCURACY, LOSS, NOT_FINITE, tag_of
from leo_tf.runs.training_state import Averages, TrainingState


class _Snapshot(NamedTuple):
    """State of training: updates made, name -> variable, name -> first moment."""

    updates: int
    variables: dict[str, np.ndarray]
    momenta: dict[str, np.ndarray]


class TrainingMonitor:
    """Monitors a training by Adam. The optimizer must be built."""

    def __init__(
        self,
        monitor: EventWriter,
        learner: Learner,
        optimizer: keras.optimizers.Adam,
        config: Config,
    ):
        self.monitor, self.optimizer, self.config = monitor, optimizer, config
        variables = learner.trainable_variables
        # Without the learner's own name: "encoder/kernel".
        self._variables = {v.path.split("/", 1)[-1]: v for v in variables}
        self._means, self._calls = Averages(), list[tuple[int, float, float]]()
        self._before: _Snapshot | None = None
        self._has_begun, self._was_finite = False, True

    def before_single_step(self, step: int) -> None:
        """Records the state after `step` steps if the next step is to be shown."""
        run = self.config.run
        every = run.log_every, run.validate_every
        if step + 1 == run.num_steps or any((step + 1) % n == 0 for n in every):
            self._before = self._snapshot()

    def add(
        self, steps: int, metrics: dict[str, float], seconds: float, input_wait: float
    ) -> None:
        """Adds the results of a call of `run_steps` to the next point.

        Args:
          steps: number of its steps.
          metrics: sums over the steps, see `make_run_steps`.
          seconds: duration of the call, until its results are there.
          input_wait: seconds in which a step waited for its data.
        """
        self._means.add(metrics, steps)
        self._was_finite = not metrics["non_finite"]
        if self._has_begun:  # excludes the first call, which traces and compiles
            self._calls.append((steps, seconds, input_wait))
        self._has_begun = True

    def show(self, state: TrainingState) -> dict[str, float]:
        """Writes means since the last point, and the state. Returns tag -> number."""
        means, now = self._means.means(), self._snapshot()
        scalars = {tag_of(name): mean for name, mean in means.items() if "/" in name}
        if means:
            scalars |= {ACCURACY: means["accuracy"], LOSS: means["loss"]}
        scalars |= {**self._movement(now), **self._speed()}
        for name, value in now.variables.items():
            if name.endswith("_lr"):
                scalars[f"optimisation/{name}"] = np.mean(value)
        scalars[NOT_FINITE] = state.non_finite
        self.monitor.scalars("train", state.step, scalars)
        self._means, self._calls = Averages(), []
        return {tag: float(value) for tag, value in scalars.items()}

    def show_validation(
        self, state: TrainingState, accuracy: Interval, loss: float
    ) -> None:
        """Writes a validation's results, and histograms of variables and gradients."""
        scalars = {ACCURACY: accuracy.mean, LOSS: loss}
        if state.best_step is not None:
            scalars[BEST_ACCURACY] = state.best_accuracy
        self.monitor.scalars("validation", state.step, scalars)
        if remark(state.share_not_finite):
            many = f"**{state.non_finite} of {state.step} steps were non-finite.**"
            text = f"{many} {state.advice(self.config)}"
            self.monitor.texts({"steps_not_finite": text}, state.step)
        now = self._snapshot()
        arrays = {f"tensors_variables/{n}": value for n, value in now.variables.items()}
        if before := self._step_before(now):
            # Gradients after clipping: m' = beta m + (1 - beta) g, solved for g.
            # Returning them from every compiled step would double the cost here.
            decay = float(self.optimizer.beta_1)
            for name, old in before.momenta.items():
                gradient = (now.momenta[name] - decay * old) / (1.0 - decay)
                arrays[f"tensors_gradients/{name}"] = gradient
        self.monitor.histograms("train", state.step, arrays)

    def _snapshot(self) -> _Snapshot:
        adams = self.optimizer.variables
        momenta = [v.numpy() for v in adams if v.path.endswith("_momentum")]
        values = {name: v.numpy() for name, v in self._variables.items()}
        updates = int(self.optimizer.iterations.numpy())
        return _Snapshot(updates, values, dict(zip(values, momenta)))

    def _step_before(self, now: _Snapshot) -> _Snapshot | None:
        """Returns the recorded state if exactly one finite step was made since."""
        noted = self._before if self._was_finite else None
        return noted if noted and noted.updates + 1 == now.updates else None

    def _movement(self, now: _Snapshot) -> dict[str, float]:
        """Returns the last step's update of each variable, relative to its length."""
        before, moved = self._step_before(now), dict[str, float]()
        if before is None:
            return moved
        for name, old in before.variables.items():
            if length := float(np.linalg.norm(old)):
                way = float(np.linalg.norm(now.variables[name] - old))
                moved[f"optimisation_update_to_weight/{name}"] = way / length
        return moved

    def _speed(self) -> dict[str, float]:
        if not self._calls:
            return {}
        steps, seconds, waiting = map(sum, zip(*self._calls))
        rate, size = steps / seconds, self.config.episodes.meta_batch_size
        return {
            "speed/steps_per_second": rate,
            "speed/episodes_per_second": rate * size,
            "speed/share_of_time_waiting_for_input": waiting / seconds,
        }
