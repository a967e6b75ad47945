"""Trains the runs of a job here, in worker processes, or by Ray."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

from leo_tf.configs import rules
from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.environment import cores
from leo_tf.errors import FlagError, LeoError, Stopped
from leo_tf.experiments.runner import local, machines, worker
from leo_tf.experiments.runner.tasks import Runner, Task
from leo_tf.experiments.runner.view import View
from leo_tf.training.interrupts import StopRequest

_WATCH_SECONDS = 0.5
_CACHE_FLAG = "--tf_xla_persistent_cache_directory"


@dataclasses.dataclass(frozen=True)
class Engine:
    """Place to train the runs of a job, and resources of each run.

    The last digits of a run's results depend on `run_cpus`. With 0 `jobs` they are
    those of as many cores as there are. They depend on no other attribute.

    Attributes:
      jobs: number of runs at a time, in worker processes; None for as many as fit the
        cores or GPUs; 0 for one at a time in this process.
      cluster: address of a Ray cluster, or "auto" for the one on this machine; "" for
        worker processes here.
      run_cpus: threads per run.
      run_gpus: number or share of GPUs per run; None for one, if there are any.
    """

    jobs: int | None = 0
    cluster: str = ""
    run_cpus: int = 1
    run_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None:
            rules.integer(0).checked(self.jobs, "--jobs")
        rules.integer(1).checked(self.run_cpus, "--run_cpus")
        if self.run_gpus is not None:
            share = rules.above_zero().checked(self.run_gpus, "--run_gpus")
            if share > 1 and share != int(share):
                expected = "a whole number, or a share of one GPU below 1"
                raise FlagError("--run_gpus", expected, f"{share:g}")
        if self.cluster and self.jobs:
            expected = "none with --cluster, where --run_cpus and --run_gpus decide"
            raise FlagError("--jobs", expected, str(self.jobs))
        usual = {"run_cpus": 1, "run_gpus": None}
        for name, value in usual.items():
            if self.is_here and getattr(self, name) != value:
                expected = "none with --jobs=0, where a run has the whole machine"
                hint = f"--{name} needs --jobs=1 or more."
                raise FlagError(f"--{name}", expected, str(getattr(self, name)), hint)

    @property
    def is_here(self) -> bool:
        """True if runs are trained in this process."""
        return self.jobs == 0 and not self.cluster

    def check(self, config: Config) -> None:
        """Raises a FlagError for resources that a run cannot be given."""
        strategy = config.run.strategy
        if strategy != "none" and (self.cluster or (self.jobs or 0) > 1):
            where = "--cluster" if self.cluster else "--jobs"
            expected = f"1 with --strategy={strategy}: a run takes all devices"
            raise FlagError(where, expected, self.cluster or str(self.jobs))
        if strategy != "none" and self.run_gpus is not None:
            expected = f"none with --strategy={strategy}: a run takes all GPUs"
            raise FlagError("--run_gpus", expected, f"{self.run_gpus:g}")
        if self.cluster:
            machines.check_installed()
        elif not self.is_here and (self.run_gpus or 0) > (count := len(_gpus())):
            expected = f"{count} or less, as here" if count else "none: no GPU is here"
            raise FlagError("--run_gpus", expected, f"{self.run_gpus:g}")

    def start(self, config: Config, path: pathlib.Path, console: Console) -> Runner:
        """Starts the runner for the runs of a job in a directory."""
        if self.cluster:
            from leo_tf.experiments.runner.cluster import RayRunner

            return RayRunner(self.cluster, self.run_cpus, self.run_gpus or 0.0, path)
        gpus = _gpus()
        share = self.run_gpus or (1.0 if gpus else 0.0)
        jobs = self.jobs or max(1, cores() // self.run_cpus)
        if gpus and self.jobs is None:
            jobs = min(jobs, _places_on(gpus, share))
        if config.run.strategy != "none":
            jobs, share = 1, float(len(gpus))
        common = {**worker.threads(self.run_cpus), **_compile_cache(path)}
        places = [{**common, **_gpu_of(slot, gpus, share)} for slot in range(jobs)]
        each = f"{self.run_cpus} core{'s' * (self.run_cpus > 1)}"
        console.say(f"Runs at a time: {jobs}, {each} each; logs: {path / 'workers'}.")
        return local.LocalRunner(places, path / "workers")


def train_all(
    runner: Runner, tasks: Sequence[Task], console: Console, later: float = 0.0
) -> dict[str, LeoError | None]:
    """Trains all runs. Returns name -> error, or None for a finished run.

    `later` is as in `View`.

    Raises:
      Stopped: if a signal was received. Training so far is saved.
    """
    outcomes: dict[str, LeoError | None] = {}
    with StopRequest() as request, View(tasks, console, later) as view:
        for task in sorted(tasks, key=_place_in_line):
            runner.submit(task)
        runner.keep_for(len(tasks))
        if any(task.to_test and task.steps for task in tasks):
            # The results need it, and it takes seconds to load.
            import leo_tf.model.leo  # noqa: F401
        is_told, stopped = False, list[int]()
        while len(outcomes) < len(tasks):
            if request.signal is not None and not is_told:
                view.say("Stopping; each run is saved first.")
                runner.cancel()
                is_told = True
            sign = runner.watch(_WATCH_SECONDS)
            view.show(sign)
            if sign is not None and sign.has_ended:
                outcome = sign.outcome
                if isinstance(outcome, Stopped):
                    stopped.append(outcome.signal)
                    outcome = None
                outcomes[sign.name] = outcome
    if request.signal is not None:  # a worker may have received one, too
        stopped.insert(0, request.signal)
    if stopped:
        console.say("Stopped. The same command resumes.")
        raise Stopped(stopped[0])
    return outcomes


def _place_in_line(task: Task) -> tuple[bool, float]:
    """Sorts short untrained runs first, then long runs, so that all end together."""
    return task.steps > 0, -task.steps * task.step_cost


def _gpus() -> list[str]:
    """Returns the visible GPUs, by their names in CUDA_VISIBLE_DEVICES."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    named = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n]
    return named[: len(found)] or [str(number) for number in range(len(found))]


def _places_on(gpus: list[str], share: float) -> int:
    """Returns the number of runs that fit on the GPUs, none of them divided in two."""
    return int(len(gpus) / share) if share > 1 else int(1 / share) * len(gpus)


def _gpu_of(slot: int, gpus: list[str], share: float) -> dict[str, str]:
    """Returns the environment of a worker with its own GPUs or a share of one."""
    if not gpus:
        return {}
    count = max(1, int(share))
    first = slot * count if share >= 1 else slot // int(1 / share)
    mine = [gpus[(first + i) % len(gpus)] for i in range(count)]
    # Otherwise the first worker on a shared GPU would take all of its memory.
    grows = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine), **grows}


def _compile_cache(path: pathlib.Path) -> dict[str, str]:
    """Returns the environment that shares code compiled by XLA between workers."""
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if _CACHE_FLAG in flags:
        return {}
    # Quoted, because TensorFlow would end the path at a blank.
    quoted = re.sub(r'(["\\])', r"\\\1", str(path / "shared" / "xla"))
    mine = f'{_CACHE_FLAG}="{quoted}"'
    kinds = "--tf_xla_persistent_cache_device_types=CPU,GPU"
    return {"TF_XLA_FLAGS": f"{flags} {mine} {kinds}".strip()}
