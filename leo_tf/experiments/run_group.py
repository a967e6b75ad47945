"""Jobs made of several runs: each in a directory of its own, below that of the job."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import numpy as np

from leo_tf.cli.flags import RunOptions
from leo_tf.configs.schema import Config
from leo_tf.console import Console, say
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.environment import device, versions
from leo_tf.errors import FlagError, InputError
from leo_tf.experiments.train import (
    default_workdir,
    describe,
    train,
    with_absolute_path,
)
from leo_tf.files import to_json, write_file
from leo_tf.methods import registry as methods
from leo_tf.model.learner import Learner
from leo_tf.runs.checkpoints import Checkpoints, restore
from leo_tf.runs.directory import JOB_FILE, RunDirectory, job_of
from leo_tf.runs.training_state import Progress
from leo_tf.training import replicas as distribute


class FinishedRun(NamedTuple):
    """A trained method and what its training took.

    Attributes:
      learner: with the variables of the best checkpoint.
      best_step: of that checkpoint.
      progress: at the end.
      chosen: name -> value of what was chosen on the validation episodes.
    """

    learner: Learner
    best_step: int
    progress: Progress
    chosen: dict[str, float]

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        shapes = (variable.shape for variable in self.learner.trainable_variables)
        return sum(int(np.prod(shape)) for shape in shapes)


class SeveralRuns:
    """The runs of one job, on the same data.

    Args:
      options: what was asked for.
      ending: of the job's directory, if it is not given.

    Attributes:
      config: of the job; each run changes some of it.
      path: the directory of the job.
      tell: shows a line to the user.

    Raises:
      LeoError: for anything the user can mend.
    """

    def __init__(self, options: RunOptions, ending: str):
        self.options, self.config = options, with_absolute_path(options.config)
        if self.config.run.strategy == "multi_worker":
            expected = f"none or mirrored with --mode={options.mode}"
            raise FlagError("--strategy", expected, self.config.run.strategy)
        self.tell = functools.partial(say, quiet=options.quiet)
        default = f"{default_workdir(self.config)}_{ending}"
        self.path = pathlib.Path(options.workdir or default)
        self._check_directory()
        self._replicas = distribute.start(self.config, self.tell)
        self.splits = datasets.load(self.config, console=Console(options.quiet))
        describe(self.config, self.splits, self.tell)
        if job_of(self.path) is None:
            write_file(self.path / JOB_FILE, to_json({"mode": options.mode}))

    def _check_directory(self):
        """Refuses that of one run, or of a job of another kind: it has results."""
        found = job_of(self.path)
        if (self.path / "config.json").exists():
            received = "that of one run"
        elif found not in (None, self.options.mode):
            received = f"that of --mode={found}"
        else:
            return
        expected = f"a directory for --mode={self.options.mode}"
        hint = "Give another --workdir: this one has results of its own."
        raise InputError(str(self.path), expected, received, hint)

    def facts(self, split: str) -> dict:
        """What results of the job on a split hold besides."""
        return {
            "seed": self.config.run.seed,
            "data": {name: each.digest for name, each in self.splits.items()},
            "source": self.splits[split].source,
            "device": device(),
            "versions": versions(),
            "config": self.config.to_dict(),
        }

    def train(self, name: str, splits=None, **settings) -> int:
        """Trains a run, or goes on with it, or finds it done.

        Args:
          name: of its directory.
          splits: its data, if not the job's.
          settings: of its configuration that are not the job's.

        Returns:
          0, or 128 plus the signal that stopped it.
        """
        options = dataclasses.replace(
            self.options,
            mode="train",
            workdir=str(self.path / name),
            config=self.config.replace(**settings),
            explicit={**self.options.explicit, **settings},
        )
        splits = self.splits if splits is None else splits
        return train(options, self._replicas, splits, is_tested=False)

    def finished(self, name: str, **settings) -> FinishedRun:
        """What a run that is done has come to; arguments as for `train`."""
        config, checkpoints = self.config_of(name, **settings), self.checkpoints(name)
        best = checkpoints.best()
        learner = methods.build(config, best.fact("embedding_size", int))
        restore(best, {v.path: v.value for v in learner.trainable_variables})
        values, method = config.flat(), methods.METHODS[config.methods.method]
        chosen = {setting: values[setting] for setting in method.chosen}
        progress = Progress.of(checkpoints.newest(say))
        return FinishedRun(learner, best.step, progress, chosen)

    def config_of(self, name: str, **settings) -> Config:
        """The configuration of a run that is done, with what it chose."""
        config = self.config.replace(**settings)
        theirs = RunDirectory(self.path / name).config().flat()
        names = methods.METHODS[config.methods.method].chosen
        return config.replace(**{setting: theirs[setting] for setting in names})

    def checkpoints(self, name: str) -> Checkpoints:
        """Those of a run."""
        return Checkpoints(self.path / name)
