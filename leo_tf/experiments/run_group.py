"""Jobs of several runs, each in its own directory below that of the job.

shared/                      during training: features, and code compiled by XLA
workers/                     output of the workers
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from leo_tf.configs.schema import Config
from leo_tf.configs.settings import FeatureConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.sources import Data, load_data, write_data
from leo_tf.environment import code, device, versions
from leo_tf.errors import DivergedError, FlagError, InputError, LeoError, Stopped
from leo_tf.evaluation.evaluate import EpisodeScores, load, save
from leo_tf.evaluation.validation_tuning import Fitted
from leo_tf.experiments.evaluate import score
from leo_tf.experiments.runner import features
from leo_tf.experiments.runner.engines import Engine, train_all
from leo_tf.experiments.runner.tasks import Runner, Task
from leo_tf.experiments.train import describe, fitting_confidence, train_run
from leo_tf.files import AnyPath, make_directory, to_json, write_file
from leo_tf.methods import transforms
from leo_tf.methods.registry import method_of
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import HINT, JOB_FILE, RunDirectory, check_job
from leo_tf.runs.run import Run, load_run, open_run
from leo_tf.runs.settings import DATA, default_workdir, named, with_data
from leo_tf.runs.training_state import TrainingState
from leo_tf.training.replicas import Replicas, start

# Endings of the default directories of jobs.
_ENDINGS = {"compare": "comparison", "search": "search", "reproduce": "reproduction"}
IN_THIS_PROCESS = Engine()
# Time for a file written on another machine to appear here.
_LATE_SECONDS = 5.0


class Planned(NamedTuple):
    """A run that a job is going to train.

    Attributes:
      settings: settings that differ from the job's.
      said: line to print when it begins.
      splits: key of its data in `RunGroup.data`.
      to_test: fit confidence after training, and test in a worker.
      fitted: fitted feature transform to begin with, see `train_run`.
      until: step to train to, if not the last.
      begun: step that this job has already trained it to.
    """

    settings: Mapping[str, Any]
    said: str = ""
    splits: str = "alone"
    to_test: bool = False
    fitted: Fitted | None = None
    until: int | None = None
    begun: int = 0


@dataclasses.dataclass(eq=False)
class RunGroup:
    """The runs of one job, below its directory and on the same data.

    Attributes:
      data: name -> splits; "alone" is the name of `splits`.
      runner: runner that trains the runs, once started.
      prefix: prefix of the runs' names, if several groups share a runner.
    """

    path: pathlib.Path
    config: Config
    data: dict[str, Mapping[str, Split]]
    replicas: Replicas
    engine: Engine
    _: dataclasses.KW_ONLY
    allow_changes: bool = False
    console: Console = SILENT
    runner: Runner | None = None
    prefix: str = ""
    _digests: dict[str, str] = dataclasses.field(default_factory=dict)
    _scores: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)

    @property
    def splits(self) -> Mapping[str, Split]:
        """The data of the job."""
        return self.data["alone"]

    def write(self, split: str, values: Mapping[str, Any], markdown: str) -> None:
        """Writes results of the job on a split, as JSON and as Markdown."""
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

    def train_all(
        self, plan: Mapping[str, Planned], later: float = 0.0
    ) -> dict[str, DivergedError | None]:
        """Trains runs. Returns name -> the error if it diverged, else None.

        A failed run does not stop the others. `later` is as in `View`.

        Raises:
          Stopped: if a signal was received. Training so far is saved.
          LeoError: the first other error of a run, if any.
        """
        return sorted_out(self._outcomes(plan, later))

    def _outcomes(
        self, plan: Mapping[str, Planned], later: float
    ) -> dict[str, LeoError | None]:
        if not self.engine.is_here:
            tasks = {name: self.task(name, each) for name, each in plan.items()}
            if self.runner is None:
                self.runner = self.engine.start(self.config, self.path, self.console)
            ended = train_all(self.runner, [*tasks.values()], self.console, later)
            return {name: ended[task.name] for name, task in tasks.items()}
        found: dict[str, LeoError | None] = {}
        for name, planned in plan.items():
            if planned.said:
                self.console.say(planned.said)
            try:
                train_one(
                    self.config.replace(**planned.settings),
                    self.path / name,
                    self.data[planned.splits],
                    self.replicas,
                    allow_changes=self.allow_changes,
                    console=self.console,
                    to_test=planned.to_test,
                    fitted=planned.fitted,
                    until=planned.until,
                )
                found[name] = None
            except LeoError as error:
                if not isinstance(error, DivergedError):
                    self.console.say(f"{name}: {error}")
                found[name] = error
        return found

    def task(self, name: str, planned: Planned) -> Task:
        """Returns the task of a worker for a run. Writes the data that it needs."""
        place, data = self.path / "shared", planned.splits
        if data not in self._digests:
            self.console.say("Writing the features that all workers share.")
            self._digests[data] = features.write(place, data, self.data[data])
            # Mapped files need no further memory.
            self.data[data] = features.read(place, data)
        config = self.config.replace(**planned.settings)
        steps, method = planned.until or config.run.num_steps, method_of(config)
        self._scores[name] = place / "scores" / f"{name}.npz"
        make_directory(self._scores[name].parent)
        self._scores[name].unlink(missing_ok=True)  # of a job that was killed
        return Task(
            name=self.prefix + name,
            workdir=str(self.path / name),
            config=config.to_dict(),
            features=str(place),
            splits=data,
            digest=self._digests[data],
            code=code(),
            fitted=_write_fitted(place, planned.fitted),
            allow_changes=self.allow_changes,
            to_test=planned.to_test,
            scores=str(self._scores[name]) if planned.to_test else "",
            until=planned.until,
            steps=steps if method.is_trained else 0,
            begun=planned.begun,
            step_cost=method.step_cost,
            said=planned.said,
        )

    def close(self) -> None:
        """Ends the workers, and removes their shared files."""
        if self.runner is not None:
            self.runner.close()
        shutil.rmtree(self.path / "shared", ignore_errors=True)

    def finished(self, name: str) -> Run:
        """Returns a finished run with the learner of its best checkpoint."""
        run = load_run(self.path / name, self.console)
        newest = run.checkpoints.newest(self.console.warn)
        if newest:
            run.state = TrainingState.of(newest)
        run.restore_best()
        return run

    def tested(self, names: Iterable[str]) -> dict[str, EpisodeScores]:
        """Returns test scores of runs that workers have trained and tested.

        Runs trained in this process, or whose scores are missing, are left out.
        """
        paths = {name: self._scores[name] for name in names if name in self._scores}
        deadline = time.monotonic() + _LATE_SECONDS
        while not all(map(_is_listed, paths.values())) and time.monotonic() < deadline:
            time.sleep(0.1)
        found = {}
        for name, path in paths.items():
            try:
                found[name] = load(path)
            except (OSError, ValueError):
                text = "its worker's test scores are missing, so it is tested again"
                self.console.warn(f"{name}: {text}: {path}")
        return found

    def checkpoints(self, name: str) -> Checkpoints:
        """Returns the checkpoints of a run."""
        return Checkpoints(self.path / name)

    def fitted_by(self, name: str) -> Fitted | None:
        """Returns the feature transform of a run that has begun, else None."""
        if RunDirectory(self.path / name).begun_config() is None:
            return None
        run = load_run(self.path / name, self.console)
        newest = run.checkpoints.newest(self.console.warn)
        if newest is not None:
            run.read_transform(newest)
        found, features = run.transform, run.config.features
        return Fitted(features, found) if found is not None else None


@contextlib.contextmanager
def open_group(
    mode: str,
    config: Config,
    workdir: AnyPath | None = None,
    data: Data | None = None,
    allow_changes: bool = False,
    console: Console = SILENT,
    engine: Engine = IN_THIS_PROCESS,
    is_trained: bool = True,
) -> Iterator[RunGroup]:
    """Loads the data of a job of several runs, and locks its directory.

    Arguments are those of `train`, the kind of job, which also names the directory,
    and whether any of its runs is trained.
    """
    config = with_data(named(config) if data is None else config, data)
    directory = RunDirectory(workdir or f"{default_workdir(config)}_{_ENDINGS[mode]}")
    path = directory.path
    if data is not None and data.in_memory:
        config = config.replace(data_path=str(path / DATA))
    if config.run.strategy == "multi_worker":
        expected = f"none or mirrored with --mode={mode}"
        raise FlagError("--strategy", expected, config.run.strategy)
    engine.check(config)
    found = check_job(path, mode)
    with directory.held():
        replicas = start(config, console.say)
        splits = dataset.load(config, data=data, console=console)
        describe(config, splits, is_trained, console)
        if found is None:
            write_file(path / JOB_FILE, to_json({"mode": mode}))
        if data is not None and data.in_memory:
            _keep(data, path / DATA, allow_changes)
        options: Any = {"allow_changes": allow_changes, "console": console}
        group = RunGroup(path, config, {"alone": splits}, replicas, engine, **options)
        del splits  # the group may map them from a file instead
        try:
            yield group
        finally:
            group.close()


def _keep(data: Data, place: pathlib.Path, allow_changes: bool) -> None:
    """Writes the arrays that a job began with; refuses others, unless allowed."""
    begun = itertools.chain.from_iterable(
        place.parent.glob(f"{below}/config.json") for below in ("*", "*/*")
    )
    if allow_changes or not any(begun):
        write_data(data, place)
        return
    kept = load_data(place, dtype=data.source.dtype)
    if any(kept[name].digest != data[name].digest for name in data):
        expected, hint = "the arrays that this job began with", HINT.format("data")
        raise InputError(str(place), expected, "others", hint)


def train_one(
    config: Config,
    workdir: AnyPath,
    splits: Mapping[str, Split],
    replicas: Replicas,
    *,
    allow_changes: bool = False,
    console: Console = SILENT,
    to_test: bool = False,
    fitted: Fitted | None = None,
    until: int | None = None,
) -> Run:
    """Trains or resumes a run of a job, or finds it finished.

    Arguments are those of `train_run`. Confidence is fitted only if `to_test`.

    Raises:
      Stopped: if a signal was received. Training so far is saved.
    """
    options: Any = {"allow_changes": allow_changes, "console": console}
    with open_run(config, workdir, **options) as run, contextlib.ExitStack() as stack:
        if to_test:
            stack.enter_context(fitting_confidence(run, splits["val"]))
        train_run(run, splits, replicas, fitted=fitted, until=until)
    if run.stopped_by is not None:
        raise Stopped(run.stopped_by)
    return run


def test_one(
    run: Run, config: Config, split: Split, path: AnyPath, console: Console
) -> None:
    """Writes the scores of a trained run's best checkpoint on the test episodes."""
    known = {"run": run.confidence(run.restore_best())}
    learners = {"run": run.learner}
    found = score(learners, config, split, console, fitted=known)["run"]
    write_file(path, save(found), lasts=False)


def _is_listed(path: pathlib.Path) -> bool:
    """Returns whether a file exists, even if NFS has cached that it does not.

    Listing its directory makes NFS ask the server again; `exists` does not.
    """
    try:
        return path.name in os.listdir(path.parent)
    except FileNotFoundError:
        return False


def _write_fitted(place: pathlib.Path, fitted: Fitted | None) -> dict[str, Any] | None:
    """Writes a fitted transform for workers. Returns its description for them."""
    if fitted is None:
        return None
    digest = fitted.transform.digest
    path = place / f"transform_{digest[:16]}.npz"
    if not path.exists():
        write_file(path, transforms.save(fitted.transform))
    settings = dataclasses.asdict(fitted.features)
    return {"settings": settings, "file": str(path), "digest": digest}


def read_fitted(values: Mapping[str, Any] | None) -> Fitted | None:
    """Returns the transform in a worker's task, if there is one."""
    if values is None:
        return None
    transform = transforms.load(pathlib.Path(values["file"]), values["digest"])
    return Fitted(FeatureConfig(**values["settings"]), transform)


def sorted_out(
    outcomes: Mapping[str, LeoError | None],
) -> dict[str, DivergedError | None]:
    """Returns outcomes of finished and diverged runs. Raises any other error."""
    found: dict[str, DivergedError | None] = {}
    for name, error in outcomes.items():
        if error is not None and not isinstance(error, DivergedError):
            raise error
        found[name] = error
    return found
