"""A run: its directory opened once, its final settings, and its results.

Everything that depends on the run directory is resolved here, and nowhere else: paths,
settings (see `settings.py`), the checkpoint to resume from, the use of XLA.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.feature_files import made_by
from leo_tf.data_pipeline.sources import Data, write_data
from leo_tf.environment import device, versions
from leo_tf.errors import CheckpointError, FlagError, InputError, quoted
from leo_tf.evaluation import confidence
from leo_tf.evaluation.confidence import Confidence
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import Results
from leo_tf.evaluation.validation_tuning import fit_ensemble
from leo_tf.files import AnyPath, near, write_file
from leo_tf.methods.ensemble import Mix, without_other
from leo_tf.methods.registry import (
    build,
    ensemble,
    is_fitted,
    method_of,
    with_transform,
)
from leo_tf.methods.transformed import Transformed
from leo_tf.methods.transforms import Transform, load, save
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import HINT, Change, RunDirectory, check_changes
from leo_tf.runs.fitted import (
    CONFIDENCE,
    ENSEMBLE,
    basis_of,
    read_confidence,
    read_mix,
)
from leo_tf.runs.manifest import Checkpoint
from leo_tf.runs.settings import (
    DATA,
    default_workdir,
    uses_jit,
    with_choices_of,
    with_data,
)
from leo_tf.runs.training_state import TrainingState
from leo_tf.runs.variables import restore_variables

_TRANSFORM = "transform.npz"


class Run:
    """An open run: its configuration, directory, training state and results.

    Args:
      config: final configuration of the run.
      data: data to train on, if `config` does not name it.
      allow_changes: resume even if settings or data differ.

    Attributes:
      newest: checkpoint that training resumes from; None at the beginning.
      metadata: further content of every manifest and results.json: configuration, data
        digests, device, versions.
      state: state of the training.
      transform: transform of the features before the method; None without one.
      learner: the `Learner`, once built; at the end, the best on validation.
      results: test results; None before the test, or if training was stopped.
      stopped_by: number of the signal that stopped training, or None.
    """

    def __init__(
        self,
        directory: RunDirectory,
        config: Config,
        *,
        data: Data | None = None,
        allow_changes: bool = False,
        console: Console = SILENT,
    ):
        self.directory, self.path, self.config = directory, directory.path, config
        self.data, self.allow_changes, self.console = data, allow_changes, console
        self.checkpoints = Checkpoints(self.path, config.run.keep_checkpoints)
        self.newest: Checkpoint | None = None
        self.jit = uses_jit(config)
        self.metadata: dict[str, Any] = {}
        self.state = TrainingState()
        self.transform: Transform | None = None
        self.learner: Any = None
        self.results: Results | None = None
        self.stopped_by: int | None = None

    def __repr__(self) -> str:
        found = f", test accuracy {self.results.accuracy} %" if self.results else ""
        return f"Run({near(self.path)!r}, step {self.state.step}{found})"

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row of numbers per validation: step, accuracies, losses."""
        return self.state.history

    @property
    def validation(self) -> Interval | None:
        """Accuracy of the best checkpoint on the validation episodes; None without any.

        Once an ensemble is fitted, it is the accuracy of the ensemble.
        """
        found = self._mix_if_any()
        if found is None:
            return self.state.best_validation
        return Interval(*found.validation)

    def _mix_if_any(self) -> Mix | None:
        if self.config.methods.ensemble == "none":
            return None
        try:
            return self.mix(self.checkpoints.best())
        except CheckpointError:  # it is fitted after training
            return None

    @property
    def chosen(self) -> dict[str, Any]:
        """Setting -> value tuned on the validation episodes."""
        values, method = self.config.flat(), method_of(self.config)
        names = (*self.config.features.chosen, *method.chosen)
        found = {name: values[name] for name in names}
        mix = self._mix_if_any()
        found |= {**mix.settings, "ensemble_share": mix.share} if mix else {}
        return found

    def check_data(self, splits: Mapping[str, Split]) -> None:
        """Refuses data other than the run began with, unless changes are allowed."""
        begun = self.newest.entry("data", dict) if self.newest else {}
        other = [
            Change(f"data of {name}", begun.get(name), split.digest)
            for name, split in splits.items()
            if self.newest and split.digest != begun.get(name)
        ]
        if other:
            digest = quoted(other[0].before)
            expected = f"the data this run began with, of digest {digest}"
            received = f"data of digest {quoted(other[0].now)}"
            first = splits[other[0].field.removeprefix("data of ")]
            refusal = InputError(first.source, expected, received, HINT.format("data"))
            check_changes(other, self.allow_changes, refusal, self.console)

    def note_data(self, splits: Mapping[str, Split]) -> None:
        """Sets `metadata`. Call it when data, learner and settings are final."""
        self.metadata = {
            "config": self.config.to_dict(),
            "data": {name: split.digest for name, split in splits.items()},
            "classes": {name: len(each.class_names) for name, each in splits.items()},
            "embedding_size": next(iter(splits.values())).embedding_size,
            "jit": self.jit,
            "device": device(),
            "versions": versions(),
        }
        if (made := made_by(self.config.data.data_path)) is not None:
            self.metadata["embedding"] = made
        if self.transform is not None:
            self.metadata["transform"] = self.transform.digest

    def write_config(self) -> None:
        """Writes config.json before the first checkpoint, and data that has no file."""
        is_kept = self.newest is not None and not self.allow_changes
        if self.data is not None and self.data.in_memory and not is_kept:
            write_data(self.data, self.path / DATA)
        if self.transform is not None and self.newest is None:
            write_file(self.path / _TRANSFORM, save(self.transform))
        self.directory.write_config(self.config)

    def read_transform(self, checkpoint: Checkpoint) -> None:
        """Reads the transform fitted to the training classes, if there is one.

        Raises:
          CheckpointError: if it is damaged or lost.
        """
        if is_fitted(self.config):
            digest = checkpoint.entry("transform", str)
            self.transform = load(self.path / _TRANSFORM, digest)

    def confidence(self, best: Checkpoint) -> Confidence | None:
        """Returns the confidence fitted to a checkpoint; None if nothing was fitted.

        Raises:
          InputError: if the file is damaged.
        """
        return read_confidence(self.path, best.step)

    def fit_confidence(self, split: Split) -> None:
        """Fits confidence to the best checkpoint on validation data, if not done yet.

        An ensemble is fitted first. If the validation classes were trained on, nothing
        is fitted, because they do not represent new classes.
        """
        if self.config.data.train_on_val:
            return
        best = self.restore_best(alone=True)
        if self.config.methods.ensemble != "none":
            self._fit_ensemble(split, best)
            self.restore_best()
        known, basis = self.confidence(best), basis_of(self.config, split, best.step)
        if known is None or known.basis != basis:
            given = self.learner, self.config, split, best.step, basis, self.console
            found = confidence.fit(*given)
            if found is not None:
                self.directory.write_json(CONFIDENCE, found.as_dict())
            elif known is not None:
                (self.path / CONFIDENCE).unlink()

    def mix(self, best: Checkpoint) -> Mix | None:
        """Returns a checkpoint's mix with a closed form; None without an ensemble.

        Raises:
          CheckpointError: if the mix is missing or damaged.
        """
        if self.config.methods.ensemble == "none":
            return None
        return read_mix(self.path, best.step, self.config.methods.ensemble)

    def on_features(self, learner: Any) -> Any:
        """Returns the learner after the run's feature transform, if there is one."""
        transform = self.transform
        return learner if transform is None else Transformed(learner, transform)

    def _fit_ensemble(self, split: Split, best: Checkpoint) -> None:
        try:
            known = self.mix(best)
        except CheckpointError:
            known = None
        basis = basis_of(self.config, split, best.step)
        if known is None or known.basis != basis:
            given = self.learner, self.config, split, best.step, basis, self.transform
            found = fit_ensemble(*given, console=self.console)
            self.directory.write_json(ENSEMBLE, found.as_dict())
            text = f"With {100 * found.share:.0f} % of {self.config.methods.ensemble}: "
            accuracy = Interval(*found.validation)
            self.console.say(f"{text}validation accuracy {accuracy} %.")

    def restore_best(self, alone: bool = False) -> Checkpoint:
        """Restores the best checkpoint into the learner, which is built if needed.

        An ensemble gets its closed form, too, unless `alone`.

        Raises:
          CheckpointError: if it is missing or damaged, or does not fit.
        """
        best = self.checkpoints.best()
        if self.learner is None:
            self.read_transform(best)
            size = best.entry("embedding_size", int)
            self.learner = build(self.config, size, self.transform)
        mine = {v.path: v.value for v in self.learner.trainable_variables}
        try:
            restore_variables(best.path, mine)
        except CheckpointError:
            if not self.checkpoints.was_replaced(best.step):
                raise
            return self.restore_best(alone)
        found = None if alone else self.mix(best)
        self.learner = without_other(self.learner)
        if found is not None:
            size = best.entry("embedding_size", int)
            given = self.learner, self.config, found, size, self.transform
            self.learner = ensemble(*given)
        return best


def load_run(workdir: AnyPath, console: Console = SILENT) -> Run:
    """Opens a run directory for reading. Only its configuration is read yet."""
    directory = RunDirectory(workdir)
    config, kept = directory.config(), directory.path / DATA
    # The directory may have been moved together with its data.
    if not os.path.exists(config.data.data_path or kept) and kept.is_dir():
        config = config.replace(data_path=str(kept.absolute()))
    return Run(directory, config, console=console)


@contextlib.contextmanager
def open_run(
    config: Config,
    workdir: AnyPath | None = None,
    *,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> Iterator[Run]:
    """Opens and locks a run directory for training.

    Arguments are those of `train`. The `config` of the run may have more settings set.

    Raises:
      InputError: if it belongs to another run, or another process trains there.
      CheckpointError: if there were checkpoints, but none is whole.
      FlagError: if more steps are done than requested.
      DiskError: if it cannot be written.
    """
    config = with_transform(with_data(config, data, workdir))
    directory = RunDirectory(workdir or default_workdir(config))
    config = with_choices_of(directory, config, allow_changes)
    with directory.for_training(config, allow_changes, console):
        options: Any = {"allow_changes": allow_changes, "console": console}
        run = Run(directory, config, data=data, **options)
        run.newest = run.checkpoints.newest(console.warn)
        if run.newest:
            if run.newest.step > config.run.num_steps:
                expected = f"{run.newest.step} or more, the steps already done"
                raise FlagError("--num_steps", expected, str(config.run.num_steps))
            if config.run.jit == "auto":  # as the run began, whatever its length
                run.jit = run.newest.entry("jit", bool)
        yield run
