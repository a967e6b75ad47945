"""What a trainer shows of itself in TensorBoard while it trains.

Scalars come with the numbers that a call of `run_steps` returns anyway: no second
forward pass, and nothing that the host must wait for in between.
"""

from typing import NamedTuple

import keras
import numpy as np

from leo_tf.configs.schema import Config
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import remark
from leo_tf.model.learner import Learner
from leo_tf.monitoring.event_writer import Monitor
from leo_tf.monitoring.tags import ACCURACY, BEST_ACCURACY, LOSS, NOT_FINITE, tag_of
from leo_tf.runs.training_state import Averages, TrainingState


class _Snapshot(NamedTuple):
    """Where training stands: updates made, name -> variable, name -> first moment."""

    updates: int
    variables: dict[str, np.ndarray]
    momenta: dict[str, np.ndarray]


class TrainingMonitor:
    """Shows a training by Adam; the optimizer is built."""

    def __init__(
        self,
        monitor: Monitor,
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
        """Notes how things are after `step` steps, if something is shown after it."""
        run = self.config.run
        every = run.log_every, run.validate_every
        if step + 1 == run.num_steps or any((step + 1) % n == 0 for n in every):
            self._before = self._snapshot()

    def add(
        self, steps: int, metrics: dict[str, float], seconds: float, input_wait: float
    ) -> None:
        """Takes in what a call of `run_steps` brought; shows nothing yet.

        Args:
          steps: how many it made.
          metrics: sums over them, see `make_run_steps`.
          seconds: from its beginning until its results were there.
          input_wait: those in which a step could have begun, but for its data.
        """
        self._means.add(metrics, steps)
        self._was_finite = not metrics["non_finite"]
        if self._has_begun:  # the first call traced and compiled: no speed
            self._calls.append((steps, seconds, input_wait))
        self._has_begun = True

    def show(self, state: TrainingState) -> dict[str, float]:
        """Shows means since the last time, and where things stand: tag -> number."""
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
        """Shows what a validation found, and how variables and gradients spread."""
        scalars = {ACCURACY: accuracy.mean, LOSS: loss}
        if state.best_step is not None:
            scalars[BEST_ACCURACY] = state.best_accuracy
        self.monitor.scalars("validation", state.step, scalars)
        if remark(state.share_not_finite):
            many = f"**{state.non_finite} of {state.step} steps were not finite.**"
            text = f"{many} {state.advice(self.config)}"
            self.monitor.texts({"steps_not_finite": text}, state.step)
        now = self._snapshot()
        arrays = {f"tensors_variables/{n}": value for n, value in now.variables.items()}
        if before := self._step_before(now):
            # Gradients after clipping: m' = beta m + (1 - beta) g, solved for g. To
            # hand them out of every compiled step would cost as much as all else here.
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
        """What was noted, if just one step lies between it and now, a finite one."""
        noted = self._before if self._was_finite else None
        return noted if noted and noted.updates + 1 == now.updates else None

    def _movement(self, now: _Snapshot) -> dict[str, float]:
        """How far the last step moved each variable, in lengths of the variable."""
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
