"""The outer loop over time: steps, validations, checkpoints, and what is shown of them.

Shapes: B tasks in the meta-batch.
"""

import dataclasses
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from configs.errors import DiskError, DivergedError
from configs.schema import Config
from leo_tf.checkpoints import Checkpoint, Checkpoints, restore
from leo_tf.evaluation import EpisodeScores, Interval, interval
from leo_tf.history import Averages, Progress
from leo_tf.learner import Learner
from leo_tf.meta_step import make_meta_step, make_run_steps, meta_gradients
from leo_tf.monitoring import Monitor
from leo_tf.progress import ProgressLine
from leo_tf.signals import StopRequest

# As many steps a call as take about this long: the progress line moves smoothly, a
# signal is heeded soon, and the host does nothing in between.
_SECONDS_PER_CALL = 0.5
# So many failed saves in a row end a run: more work would only be lost with it.
_FAILED_SAVES = 3
# XLA takes seconds to compile, and pays from about this many steps on.
_JIT_PAYS_AFTER = 300


class Trainer:
    """Trains a learner, validates it, keeps its checkpoints.

    Args:
      learner: a built method.
      optimizer: of its trainable variables.
      config: of the run.
      episodes: start -> endless dataset of training episodes from that step on.
      validate: () -> `EpisodeScores` of the learner on the validation episodes.
      checkpoints: where to save.
      monitor: where to show.
      facts: what every manifest holds besides: configuration, data, versions.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: keras.optimizers.Optimizer,
        config: Config,
        *,
        episodes: Callable[[int], tf.data.Dataset],
        validate: Callable[[], EpisodeScores],
        checkpoints: Checkpoints,
        monitor: Monitor,
        facts: dict,
    ):
        self.learner, self.optimizer, self.config = learner, optimizer, config
        self.episodes, self.validate = episodes, validate
        self.checkpoints, self.monitor, self.facts = checkpoints, monitor, facts
        self.progress = Progress()
        self.stopped_by: int | None = None
        self._failed_saves = 0
        self._resumed: Checkpoint | None = None
        meta_step = make_meta_step(
            learner,
            optimizer,
            gradient_threshold=config.optimizer.gradient_threshold,
            gradient_norm_threshold=config.optimizer.gradient_norm_threshold,
            jit=uses_jit(config),
        )
        self._run_steps = make_run_steps(meta_step, config.run.seed)
        self._gradients = tf.function(self._gradients_eagerly, autograph=False)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint: variables, best so far and history.

        If the best of its time is lost, the best of those that are left takes over.

        Raises:
          CheckpointError: if it does not fit; then nothing has changed.
        """
        progress = Progress.of(checkpoint)
        restore(checkpoint, self._variables())
        self.progress, self._resumed = progress, checkpoint
        if progress.best_step is not None:
            progress.find_best(self.checkpoints.is_whole)
            # It may not have been marked, or one marked since may be lost.
            self.checkpoints.mark_best(progress.best_step)

    def run(self, line: ProgressLine) -> Progress:
        """Trains up to the configured number of steps, or until a signal.

        SIGTERM or SIGINT ends the running steps, saves and returns, with the signal
        in `stopped_by`; a second one ends the process at once.

        Raises:
          DiskError: if the last checkpoint, or three in a row, cannot be written.
          DivergedError: if too many steps are not finite.
        """
        run, progress = self.config.run, self.progress
        iterator = iter(self.episodes(progress.step))
        since_log = Averages()
        steps_per_call, started = 1, progress.step
        with StopRequest() as request:
            if progress.step >= run.num_steps and not self._is_validated():
                self._validate(line)  # stopped here, before it was due
            while progress.step < run.num_steps and request.signal is None:
                count = min(steps_per_call, self._steps_to_next_event())
                metrics, seconds = self._timed(iterator, count)
                since_log.add(metrics, count)
                progress.since_validation.add(metrics, count)
                steps_per_call = max(1, round(count / seconds * _SECONDS_PER_CALL))
                if progress.step == started + count:
                    line.skip_time(seconds)  # tracing and compiling are no rate
                line.advance(count, progress.line())
                self._check_finite()
                if progress.step % run.log_every == 0:
                    self._log(since_log.means())
                    since_log = Averages()
                if self._is_validation_due():
                    self._validate(line)
            self.stopped_by = request.signal
            if self.stopped_by is not None:
                self._save()
        return progress

    def _steps_to_next_event(self) -> int:
        step, run = self.progress.step, self.config.run
        events = [run.log_every, run.validate_every]
        return min(run.num_steps - step, *(every - step % every for every in events))

    def _is_validation_due(self) -> bool:
        step, run = self.progress.step, self.config.run
        # The release never validates after the last step; we do.
        return step % run.validate_every == 0 or step == run.num_steps

    def _is_validated(self) -> bool:
        history = self.progress.history
        return bool(history) and history[-1]["step"] == self.progress.step

    def _timed(self, iterator, count: int) -> tuple[dict, float]:
        start = time.monotonic()
        metrics = self._run_steps(
            iterator,
            tf.constant(self.progress.step, tf.int64),
            tf.constant(count, tf.int64),
        )
        metrics = {name: float(value) for name, value in metrics.items()}  # waits
        seconds = time.monotonic() - start
        self.progress.add_steps(count, round(metrics["non_finite"]), seconds)
        return metrics, seconds

    def _gradients_eagerly(self, episode, step):
        seed = tf.constant(self.config.run.seed, tf.int64)
        noise = self.learner.draw_noise(episode, seed, step)
        return meta_gradients(self.learner, episode, noise)[1]

    def _validate(self, line: ProgressLine):
        start = time.monotonic()
        scores, progress = self.validate(), self.progress
        accuracy, train = interval(scores.accuracy), progress.since_validation.means()
        progress.since_validation = Averages()
        progress.history.append(
            {
                "step": progress.step,
                "train_accuracy": train.get("accuracy"),
                "train_loss": train.get("loss"),
                "val_accuracy": accuracy.mean,
                "val_half_width": accuracy.half_width,
                "val_loss": scores.loss,
            }
        )
        # With the validation classes trained on there is nothing to select by: the
        # newest is as good as any. A NaN is never better.
        is_best = (
            self.config.data.train_on_val or accuracy.mean > progress.best_accuracy
        )
        best_before = progress.best_step, progress.best_accuracy
        if is_best:
            progress.best_step, progress.best_accuracy = progress.step, accuracy.mean
        mark = "  best so far" if is_best else ""
        if self.config.data.train_on_val:
            mark = "  of classes that are trained on, too"
        line.note(progress.validation_line(accuracy, mark))
        self._save_or_go_on(line, best_before)
        self._show_validation(accuracy, scores.loss)
        line.skip_time(time.monotonic() - start)

    def _save_or_go_on(self, line: ProgressLine, best_before: tuple):
        """Saves, or says why not: the next validation tries again, but not forever."""
        progress = self.progress
        try:
            self._save()
            self._failed_saves = 0
        except DiskError as error:
            self._failed_saves += 1
            is_last = progress.step >= self.config.run.num_steps
            if is_last or self._failed_saves >= _FAILED_SAVES:
                raise
            line.warn(f"not saved, training goes on: {error}")
            if not self.checkpoints.has(progress.step):  # it cannot be the best, then
                progress.best_step, progress.best_accuracy = best_before

    def _save(self):
        progress = self.progress
        manifest = {**self.facts, "progress": dataclasses.asdict(progress)}
        if self._resumed and self._resumed.step == progress.step:
            self.checkpoints.annotate(self._resumed, manifest)
        else:
            self.checkpoints.save(progress.step, self._variables(), manifest)
        if progress.best_step is not None:  # again, in case it failed the last time
            self.checkpoints.mark_best(progress.best_step)
        self.checkpoints.prune()

    def _check_finite(self):
        """Ends a run that has lost its way; its last checkpoint stays as it is."""
        limit, progress = self.config.run.non_finite_limit, self.progress
        if progress.non_finite_surplus > limit:
            raise DivergedError(
                f"step {progress.step}",
                f"at most {limit} more steps that are not finite than others",
                f"{progress.non_finite_surplus} more ({progress.non_finite} in all)",
                "Try a lower --outer_lr in another --workdir, or go on from the last "
                "checkpoint with a higher --non_finite_limit.",
            )

    def _log(self, means: dict):
        rates = {
            name: float(np.mean(variable.numpy()))
            for name, variable in self._named_variables().items()
            if name.endswith("_lr")
        }
        step, non_finite = self.progress.step, self.progress.non_finite
        self.monitor.training(step, means, learning_rates=rates, non_finite=non_finite)

    def _show_validation(self, accuracy: Interval, loss: float):
        step, variables = self.progress.step, self._named_variables()
        # Drawn apart: taken from the training's own iterator, it would be missing
        # there, and a resumed run would see other episodes than an uninterrupted one.
        episode = next(iter(self.episodes(step)))
        gradients = self._gradients(episode, tf.constant(step, tf.int64))
        self.monitor.validation(
            step,
            accuracy=accuracy.mean,
            loss=loss,
            variables={name: variable.value for name, variable in variables.items()},
            gradients=dict(zip(variables, gradients)),
        )

    def _named_variables(self) -> dict:
        """Variables without the learner's own name: "encoder/kernel"."""
        variables = self.learner.trainable_variables
        return {variable.path.split("/", 1)[-1]: variable for variable in variables}

    def _variables(self) -> dict[str, tf.Variable]:
        variables = [*self.learner.trainable_variables, *self.optimizer.variables]
        return {variable.path: variable.value for variable in variables}


def uses_jit(config: Config) -> bool:
    """Whether XLA compiles the meta-step; "auto" wherever the run is long enough."""
    if config.run.jit == "auto":
        return config.run.num_steps > _JIT_PAYS_AFTER
    return config.run.jit == "on"
