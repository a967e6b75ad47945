"""Jobs made of several runs: each in a directory of its own, below that of the job."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.sources import Data, write_data
from leo_tf.environment import device, versions
from leo_tf.errors import FlagError, InputError, Stopped
from leo_tf.evaluation.validation_tuning import Fitted
from leo_tf.experiments.train import describe, fitting_confidence, train_run
from leo_tf.files import AnyPath, to_json, write_file
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import JOB_FILE, RunDirectory, job_of
from leo_tf.runs.run import Run, default_workdir, load_run, open_run, with_data
from leo_tf.runs.training_state import TrainingState
from leo_tf.training.replicas import Replicas, start

# What the default directories of jobs end in.
_ENDINGS = {"compare": "comparison", "search": "search", "reproduce": "reproduction"}


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """The runs of one job, below its directory and on the same data."""

    path: pathlib.Path
    config: Config
    splits: Mapping[str, Split]
    replicas: Replicas
    allow_changes: bool
    console: Console

    def write(self, split: str, values: Mapping[str, Any], markdown: str) -> None:
        """Writes results of the job on a split, as JSON and for people."""
        common = {
            "seed": self.config.run.seed,
            "data": {name: each.digest for name, each in self.splits.items()},
            "source": self.splits[split].source,
            "device": device(),
            "versions": versions(),
            "config": self.config.to_dict(),
        }
        write_file(self.path / "results.json", to_json({**values, **common}))
        write_file(self.path / "results.md", markdown.encode())

    def train(
        self,
        name: str,
        splits: Mapping[str, Split] | None = None,
        *,
        to_test: bool = False,
        fitted: Fitted | None = None,
        **settings: Any,
    ) -> Run:
        """Trains a run, or resumes it, or finds it done; `Stopped` if a signal came.

        `splits` and `settings` are its own, where they are not the job's; `fitted` is
        as of `train_run`. Confidence is fitted only if `to_test`.
        """
        config, workdir = self.config.replace(**settings), self.path / name
        options: Any = {"allow_changes": self.allow_changes, "console": self.console}
        with open_run(config, workdir, **options) as run:
            data = self.splits if splits is None else splits
            with contextlib.ExitStack() as stack:
                if to_test:
                    stack.enter_context(fitting_confidence(run, data["val"]))
                train_run(run, data, self.replicas, fitted=fitted)
        if run.stopped_by is not None:
            raise Stopped(run.stopped_by)
        return run

    def finished(self, name: str) -> Run:
        """Returns a run that is done, its learner as it validated best."""
        run = load_run(self.path / name, self.console)
        newest = run.checkpoints.newest(self.console.warn)
        if newest:
            run.state = TrainingState.of(newest)
        run.restore_best()
        return run

    def checkpoints(self, name: str) -> Checkpoints:
        """Returns those of a run."""
        return Checkpoints(self.path / name)


def open_group(
    mode: str,
    config: Config,
    workdir: AnyPath | None = None,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> RunGroup:
    """Loads the data of a job of several runs, and marks its directory.

    Arguments are those of `train`, and the kind of job, which names its directory too.
    """
    path = RunDirectory(workdir or f"{default_workdir(config)}_{_ENDINGS[mode]}").path
    config = with_data(config, data, path)
    if config.run.strategy == "multi_worker":
        expected = f"none or mirrored with --mode={mode}"
        raise FlagError("--strategy", expected, config.run.strategy)
    found, is_run = job_of(path), (path / "config.json").exists()
    if is_run or found not in (None, mode):
        received = "that of one run" if is_run else f"that of --mode={found}"
        hint = "Give another --workdir: this one has results of its own."
        raise InputError(str(path), f"a directory for --mode={mode}", received, hint)
    replicas = start(config, console.say)
    splits = dataset.load(config, data=data, console=console)
    describe(config, splits, console)
    if found is None:
        write_file(path / JOB_FILE, to_json({"mode": mode}))
    if data is not None and data.in_memory:
        write_data(data, path / "data")
    return RunGroup(path, config, splits, replicas, allow_changes, console)
