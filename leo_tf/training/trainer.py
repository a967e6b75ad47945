"""The outer loop over time: steps, validations, checkpoints and monitoring.

Shapes: B tasks in the meta-batch.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, ProgressLine
from leo_tf.data_pipeline.dataset import steps_alike
from leo_tf.errors import DiskError, DivergedError, Stopped
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import interval
from leo_tf.model.learner import Learner
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.profiler import Profile
from leo_tf.monitoring.training import TrainingMonitor
from leo_tf.runs.checkpoints import Checkpoint, Checkpoints
from leo_tf.runs.training_state import Averages, TrainingState
from leo_tf.runs.variables import restore_variables
from leo_tf.training.callback import Callback, call_all
from leo_tf.training.interrupts import StopRequest
from leo_tf.training.replicas import Replicas, make_steps

# Target duration of a call of several steps: short enough for smooth progress and quick
# reaction to signals, long enough to keep the host idle.
_SECONDS_PER_CALL = 0.5
# Failed saves in a row that end a run, because further work would be lost, too.
_FAILED_SAVES = 3


@dataclasses.dataclass(eq=False, repr=False)
class Trainer:
    """Trains a learner, validates it and keeps its checkpoints.

    Attributes:
      learner, optimizer: built in the scope of `replicas`.
      episodes: start -> endless dataset of training episodes from that step on.
      validate: on_batch -> `EpisodeScores` of the learner on the validation episodes.
        `on_batch` is called after each batch, and may end it by an exception.
      metadata: further content of every manifest: configuration, data, versions.
      show_more: called after each validation with the step, and True for the last one.
      until: an intermediate step to stop at after its validation. Training can resume
        there later without any difference.
    """

    learner: Learner
    optimizer: keras.optimizers.Optimizer
    config: Config
    _: dataclasses.KW_ONLY
    episodes: Callable[[int], tf.data.Dataset]
    validate: Callable[[Callable], EpisodeScores]
    checkpoints: Checkpoints
    monitor: EventWriter
    metadata: dict
    until: int | None = None
    jit: bool = False
    show_more: Callable[[int, bool], None] = lambda step, is_last: None
    profile: Profile = dataclasses.field(default_factory=lambda: Profile(""))
    replicas: Replicas = dataclasses.field(default_factory=Replicas)
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        parts = self.learner, self.optimizer, self.config
        self.shown = TrainingMonitor(self.monitor, *parts)
        self._run_steps = make_steps(self.replicas, *parts, self.jit)
        self.state, self._failed_saves = TrainingState(), 0
        self._is_asked_to_end = False
        self.stopped_by: int | None = None
        self._resumed: Checkpoint | None = None

    @property
    def is_done(self) -> bool:
        """True if the last step is done and validated."""
        return self._is_over() and self._is_validated()

    @property
    def last_step(self) -> int:
        """Step at which this training ends or pauses."""
        last = self.config.run.num_steps
        return last if self.until is None else min(self.until, last)

    def resume(
        self, checkpoint: Checkpoint, warn: Callable[[str], None] = SILENT.warn
    ) -> None:
        """Resumes from a checkpoint: variables, best step so far and history.

        If the best checkpoint is lost, `warn` is called and the best remaining one
        replaces it.

        Raises:
          CheckpointError: if it does not fit. Nothing has changed then.
        """
        state = TrainingState.of(checkpoint)
        restore_variables(checkpoint.path, self._variables())
        # The configured rate, which may have been changed since the last start.
        self.optimizer.learning_rate = self.config.optimizer.outer_lr
        self.state, self._resumed = state, checkpoint
        if state.best_step is None:
            return
        wanted, reasons = state.best_step, list[str]()
        state.find_best(lambda step: self.checkpoints.is_whole(step, reasons.append))
        if state.best_step != wanted:
            warn(f"skipped: {reasons[0]}")
            warn(f"The best checkpoint is now that of step {state.best_step}.")
            self.checkpoints.set_aside(wanted)
        # It may not have been marked, or a later marked one may be lost.
        self.checkpoints.mark_best(state.best_step)

    def run(self, line: ProgressLine) -> TrainingState:
        """Trains up to the configured number of steps, to a plateau, or until a signal.

        SIGTERM or SIGINT finishes the running steps, saves and returns with the signal
        in `stopped_by`. A second one ends the process at once. A running validation is
        abandoned, and repeated when the run resumes. A signal to another worker counts
        as SIGTERM.

        Raises:
          DiskError: if the last checkpoint, or three in a row, cannot be written.
          DivergedError: if too many steps are non-finite.
        """
        with StopRequest() as request:
            self.replicas.workers.share(self.state.step, self._variables().values())
            with self.profile:
                self._run(line, request)
            self.stopped_by = request.signal
            if self.stopped_by is not None:
                self._save()
        return self.state

    def _run(self, line: ProgressLine, request: StopRequest):
        run, state = self.config.run, self.state
        iterator = iter(self.episodes(state.step))
        steps_per_call, started = 1, state.step
        if state.step and self._is_validation_due() and not self._is_validated():
            self._validate(line, request)  # the stop came before it was done
        while state.step < self.last_step:
            count = self._agree(steps_per_call, request)
            if not count:
                if reason := self._reason_to_end():
                    line.note(f"Ended early at step {state.step}{reason}")
                return
            metrics, seconds = self._call(iterator, count)
            state.since_validation.add(metrics, count)
            steps_per_call = max(1, round(count / seconds * _SECONDS_PER_CALL))
            if state.step == started + count:
                line.skip_time(seconds)  # tracing and compiling do not count
            line.advance(count, state.line())
            self._check_finite()
            if state.step % run.log_every == 0:
                shown = self.shown.show(state)
                call_all(self.callbacks, "on_log", state.step, shown)
            if self._is_validation_due():
                self._validate(line, request)

    def _agree(self, most: int, request: StopRequest) -> int:
        """Returns the number of steps all workers make next; 0 to stop."""
        is_over = bool(self._reason_to_end())
        most = min(most, self._steps_to_next_event())
        alike = steps_alike(self.config, self.state.step, most)
        count = 0 if is_over else alike
        stop = request.signal is not None
        agreed = self.replicas.workers.agree(count, stop)
        if not (agreed or stop or is_over):
            request.signal = signal.SIGTERM
        return agreed

    def _reason_to_end(self) -> str:
        """Returns why training ends before its last step; empty if it does not."""
        if self._is_asked_to_end:
            return ", as requested by a callback."
        if self.state.is_at_plateau(self.config.run.patience):
            return f": no validation since step {self.state.best_step} was better."
        return ""

    def _steps_to_next_event(self) -> int:
        step, run = self.state.step, self.config.run
        log, validation = (n - step % n for n in (run.log_every, run.validate_every))
        events = [log, validation, self.last_step - step]
        # The last step before an event runs alone, so that its own metrics are shown.
        return min([max(1, e - 1) for e in events] + self.profile.until_next(step))

    def _is_validation_due(self) -> bool:
        step, run = self.state.step, self.config.run
        # The release does not validate after the last step; we do.
        return step % run.validate_every == 0 or step == run.num_steps

    def _is_validated(self) -> bool:
        history = self.state.history
        return bool(history) and history[-1]["step"] == self.state.step

    def _call(self, iterator, count: int) -> tuple[dict[str, float], float]:
        step = self.state.step
        if count == 1:
            self.shown.before_single_step(step)
        self.profile.before(step)
        start = time.monotonic()
        first, number = (tf.constant(n, tf.int64) for n in (step, count))
        metrics = self._run_steps(iterator, first, number)
        metrics = {name: float(value) for name, value in metrics.items()}  # waits
        seconds = time.monotonic() - start
        self.state.add_steps(count, metrics, seconds)
        self.profile.after(self.state.step)
        self.shown.add(count, metrics, seconds, metrics.pop("input_wait"))
        return metrics, seconds

    def _validate(self, line: ProgressLine, request: StopRequest):
        start = time.monotonic()
        try:
            scores, state = self.validate(request.check), self.state
        except Stopped:
            return  # nothing has changed
        accuracy = interval(scores.accuracy)
        state.record(accuracy, scores.loss, state.since_validation.means())
        state.since_validation = Averages()
        # If the validation classes are trained on, they cannot select: the newest is
        # as good as any. A NaN is never better.
        joined = self.config.data.train_on_val
        best_before = state.best_step, state.best_accuracy
        is_best = joined or accuracy.mean > state.best_accuracy
        if is_best:
            state.best_step, state.best_accuracy = state.step, accuracy.mean
        mark = "  best so far" if is_best else ""
        mark = "  on classes that are also trained on" if joined else mark
        line.note(state.validation_line(accuracy, mark))
        self._save_or_go_on(line, best_before)
        self.shown.show_validation(state, accuracy, scores.loss)
        asks = call_all(self.callbacks, "on_validation", state.step, state.history[-1])
        self._is_asked_to_end |= asks
        self.show_more(state.step, self._is_over())
        line.skip_time(time.monotonic() - start)

    def _is_over(self) -> bool:
        is_last = self.state.step >= self.last_step
        return is_last or bool(self._reason_to_end())

    def _save_or_go_on(self, line: ProgressLine, best_before: tuple):
        """Saves, or warns: the next validation tries again, up to `_FAILED_SAVES`."""
        state = self.state
        try:
            self._save()
            self._failed_saves = 0
        except DiskError as error:
            self._failed_saves += 1
            if self._is_over() or self._failed_saves >= _FAILED_SAVES:
                raise
            line.warn(f"not saved, training continues: {error}")
            if not self.checkpoints.has(state.step):  # then it cannot be the best
                state.best_step, state.best_accuracy = best_before

    def _save(self):
        state = self.state
        manifest = {**self.metadata, "progress": dataclasses.asdict(state)}
        if self._resumed and self._resumed.step == state.step:
            self.checkpoints.annotate(self._resumed, manifest)
        else:
            self.checkpoints.save(state.step, self._variables(), manifest)
        if state.best_step is not None:  # repeated in case it failed last time
            self.checkpoints.mark_best(state.best_step)
        self.checkpoints.prune()

    def _check_finite(self):
        """Ends a diverged run. Its last checkpoint stays."""
        limit, state = self.config.run.non_finite_limit, self.state
        if state.non_finite_surplus > limit:
            self.shown.show(state)
            raise DivergedError(
                f"step {state.step}",
                f"at most {limit} more non-finite than finite steps",
                f"{state.non_finite_surplus} ({state.non_finite} non-finite in all)",
                state.advice(self.config),
            )

    def _variables(self) -> dict[str, tf.Variable]:
        variables = [*self.learner.trainable_variables, *self.optimizer.variables]
        return {variable.path: variable.value for variable in variables}
