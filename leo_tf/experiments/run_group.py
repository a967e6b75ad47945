"""Jobs made of several runs: each in a directory of its own, below that of the job."""

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
from leo_tf.experiments.train import describe, train_run
from leo_tf.files import AnyPath, to_json, write_file
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import JOB_FILE, job_of
from leo_tf.runs.run import (
    Run,
    default_workdir,
    load_run,
    open_run,
    with_absolute_path,
    with_data,
)
from leo_tf.training.replicas import Replicas, start

# What the default directories of jobs end in.
_ENDINGS = {"compare": "comparison", "search": "search", "reproduce": "reproduction"}


class RunGroup:
    """The runs of one job, on the same data; see `open_group`.

    Args:
      path: the directory of the job.
      config: of the job; each run changes some of it.
      splits: the data.
      replicas: what trains together.
      allow_changes: whether runs resume though settings or data differ from theirs.
      console: where to show progress.
    """

    def __init__(
        self,
        path: pathlib.Path,
        config: Config,
        splits: Mapping[str, Split],
        *,
        replicas: Replicas,
        allow_changes: bool = False,
        console: Console = SILENT,
    ):
        self.path, self.config, self.splits = path, config, splits
        self.replicas, self.allow_changes = replicas, allow_changes
        self.console = console

    def metadata(self, split: str) -> dict[str, Any]:
        """Returns what results of the job on a split hold besides."""
        return {
            "seed": self.config.run.seed,
            "data": {name: each.digest for name, each in self.splits.items()},
            "source": self.splits[split].source,
            "device": device(),
            "versions": versions(),
            "config": self.config.to_dict(),
        }

    def train(
        self, name: str, splits: Mapping[str, Split] | None = None, **settings: Any
    ) -> None:
        """Trains a run, or resumes it, or finds it done.

        Args:
          name: of its directory.
          splits: its data, if not the job's.
          settings: of its configuration that are not the job's.

        Raises:
          Stopped: if a signal stopped it.
          LeoError: for anything the user can mend.
        """
        with open_run(
            self.config.replace(**settings),
            self.path / name,
            allow_changes=self.allow_changes,
            console=self.console,
        ) as run:
            train_run(run, self.splits if splits is None else splits, self.replicas)
        if run.stopped_by is not None:
            raise Stopped(run.stopped_by)

    def finished(self, name: str) -> Run:
        """Returns a run that is done, its learner as it validated best."""
        run = load_run(self.path / name, self.console)
        run.load_state()
        run.restore_best()
        return run

    def checkpoints(self, name: str) -> Checkpoints:
        """Returns those of a run."""
        return Checkpoints(self.path / name)


def open_group(
    mode: str,
    config: Config,
    workdir: AnyPath | None = None,
    *,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
) -> RunGroup:
    """Loads the data of a job of several runs, and marks its directory.

    Args:
      mode: the kind of job: "compare", "search", "reproduce".
      config: of the job.
      workdir: its directory; None for one named by data, episodes and mode.
      data, allow_changes, console: as for `train`.

    Raises:
      LeoError: for anything the user can mend.
    """
    path = pathlib.Path(workdir or f"{default_workdir(config)}_{_ENDINGS[mode]}")
    config = with_absolute_path(with_data(config, data, path))
    if config.run.strategy == "multi_worker":
        expected = f"none or mirrored with --mode={mode}"
        raise FlagError("--strategy", expected, config.run.strategy)
    _check_directory(path, mode)
    replicas = start(config, console.say)
    splits = dataset.load(config, data=data, console=console)
    describe(config, splits, console)
    if job_of(path) is None:
        write_file(path / JOB_FILE, to_json({"mode": mode}))
    if data is not None and data.in_memory:
        write_data(data, path / "data")
    return RunGroup(
        path,
        config,
        splits,
        replicas=replicas,
        allow_changes=allow_changes,
        console=console,
    )


def _check_directory(path: pathlib.Path, mode: str) -> None:
    """Refuses that of one run, or of a job of another kind: it has results."""
    found = job_of(path)
    if (path / "config.json").exists():
        received = "that of one run"
    elif found not in (None, mode):
        received = f"that of --mode={found}"
    else:
        return
    hint = "Give another --workdir: this one has results of its own."
    raise InputError(str(path), f"a directory for --mode={mode}", received, hint)
