"""Runs on a cluster are restarted and reported; Ray is replaced by a double here.

tests/leo_tf/experiments/runner/test_jobs.py has the real one.
"""

import importlib.machinery
import json
import sys
import types

import pytest

from leo_tf.errors import FlagError, InputError, Stopped, WorkerError
from leo_tf.experiments.runner import cluster, machines
from leo_tf.experiments.runner.cluster import RayRunner
from leo_tf.experiments.runner.tasks import HUNG_SECONDS, Sign, Task


class Lost(Exception):
    """Stands for all errors of Ray's."""


class Cancelled(Lost):
    pass


class Ray(types.ModuleType):
    """One machine of four cores and one GPU. Tests end tasks, and say how."""

    def __init__(self):
        super().__init__("ray")
        self.__spec__ = importlib.machinery.ModuleSpec("ray", None)
        self.exceptions = types.SimpleNamespace(
            RayError=Lost, TaskCancelledError=Cancelled
        )
        affinity = lambda *unused, **unused_too: None  # noqa: E731
        self.util = types.SimpleNamespace(
            scheduling_strategies=types.SimpleNamespace(
                NodeAffinitySchedulingStrategy=affinity
            )
        )
        self.options, self.works, self.outcomes = [], [], {}
        self.cancelled, self.is_open, self.is_board_lost = [], False, False
        self.failing, self.alive = None, {"a": True}

    def is_initialized(self):
        return self.is_open

    def init(self, **unused_options):
        self.is_open = True

    def shutdown(self):
        self.is_open = False

    def nodes(self):
        resources = {"CPU": 4.0, "GPU": 1.0}
        return [
            {"NodeID": name, "Alive": is_alive, "Resources": resources}
            for name, is_alive in self.alive.items()
        ]

    def get_runtime_context(self):
        return types.SimpleNamespace(get_node_id=lambda: "a")

    def remote(self, what):
        def options(**options):
            self.options.append(options)
            return types.SimpleNamespace(remote=lambda *given: self._begun(what, given))

        return types.SimpleNamespace(options=options)

    def _begun(self, what, given):
        if what is cluster._Board:
            self.board = cluster._Board()
            take = types.SimpleNamespace(remote=self.board.take)
            return types.SimpleNamespace(take=take)
        if what is cluster._work:
            self.works.append(given)
            return len(self.works)
        if isinstance(self.failing, Exception):
            failing, self.failing = self.failing, None
            return failing
        return what(*given)

    def wait(self, references, **unused_options):
        return [r for r in references if r in self.outcomes], []

    def get(self, value, **unused_options):
        if value == [] and self.is_board_lost:
            raise Lost("the actor died")
        if isinstance(value, Exception):
            raise value
        if not isinstance(value, int):
            return value
        outcome = self.outcomes[value]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self, reference, force=False):
        self.cancelled.append((reference, force))


@pytest.fixture
def ray(monkeypatch):
    found = Ray()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.0)
    return found


@pytest.fixture
def runner(ray, tmp_path):
    return RayRunner("auto", 1, 0.25, tmp_path)


def task(name) -> Task:
    return Task(name, "", {}, "", "", "", {})


def signs(runner) -> list[Sign]:
    found = []
    while (sign := runner.watch(0.05)) is not None:
        found.append(sign)
    return found


def done(name) -> str:
    return json.dumps(Sign(name, has_ended=True))


def test_a_lost_run_is_restarted_thrice_and_then_named(ray, runner):
    runner.submit(task("a"))
    for reference in (1, 2, 3):
        ray.outcomes[reference] = Lost("the node died")
        [sign] = signs(runner)
        assert sign.is_warning and "lost ('the node died'); resuming" in sign.text
    ray.outcomes[4] = Lost("the node died")
    [sign] = signs(runner)
    assert isinstance(sign.outcome, WorkerError) and len(ray.works) == 4
    assert "4 that ended: 'the node died'" in str(sign.outcome)


def test_a_run_that_goes_on_to_the_next_rung_begins_anew(ray, runner):
    for reference in range(1, 7):
        runner.submit(task("a"))
        ray.board.put(reference, Sign("a", "step 3", 3, 9))
        ray.outcomes[reference] = done("a")
        found = signs(runner)
        assert [sign.is_warning for sign in found] == [False, False]
        assert found[-1].has_ended and found[-1].error is None
    ray.board.put(2, Sign("a", "step 4", 4, 9))  # of a worker that was lost
    assert signs(runner) == []


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set; each look at it takes a hundredth of a second."""
    found = types.SimpleNamespace(now=0.0)

    def monotonic():
        found.now += 0.01
        return found.now

    monkeypatch.setattr(cluster.time, "monotonic", monotonic)
    return found


def test_a_hung_run_is_ended_and_restarted(ray, runner, clock):
    runner.submit(task("a"))
    runner.submit(task("waits for a core"))
    ray.board.put(1, Sign("a", "step 3", 3, 9))
    signs(runner)
    clock.now += HUNG_SECONDS - 1
    assert signs(runner) == [] and not ray.cancelled
    clock.now += 1
    [sign] = signs(runner)
    assert sign.is_warning and "no sign of life" in sign.text
    assert ray.cancelled == [(1, True)] and len(ray.works) == 3


def test_without_the_board_silence_is_no_fault_but_is_counted_again(ray, runner, clock):
    runner.submit(task("a"))
    runner.submit(task("waits for a core"))
    ray.board.put(1, Sign("a", "step 3", 3, 9))
    signs(runner)
    clock.now += 2 * HUNG_SECONDS
    ray.is_board_lost = True
    assert signs(runner) == []
    ray.is_board_lost = False
    assert signs(runner) == [] and not ray.cancelled
    clock.now += HUNG_SECONDS
    signs(runner)
    assert ray.cancelled == [(1, True)]


def test_a_hung_run_is_not_restarted_once_all_are_to_stop(ray, runner, clock):
    runner.submit(task("a"))
    ray.board.put(1, Sign("a", "step 3", 3, 9))
    signs(runner)
    runner.cancel()
    clock.now += HUNG_SECONDS
    [sign] = signs(runner)
    assert isinstance(sign.outcome, Stopped) and len(ray.works) == 1


def test_runs_that_are_cancelled_were_stopped(ray, runner):
    runner.submit(task("a"))
    runner.submit(task("b"))
    runner.cancel()
    assert ray.cancelled == [(1, False), (2, False)]
    ray.outcomes |= {1: Cancelled("cancelled"), 2: Lost("the worker died")}
    assert all(isinstance(sign.outcome, Stopped) for sign in signs(runner))
    assert len(ray.works) == 2
    runner.close()
    assert not ray.is_open


def test_a_run_has_its_share_and_is_restarted_by_nobody_else(ray, runner):
    [of_work] = [each for each in ray.options if "max_retries" in each]
    assert of_work["num_cpus"] == 1 and of_work["num_gpus"] == 0.25
    assert of_work["max_retries"] == 0
    environment = of_work["runtime_env"]["env_vars"]
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert environment["TF_NUM_INTRAOP_THREADS"] == "1"


def test_a_machine_lost_while_it_is_checked_is_left_out(ray, tmp_path, monkeypatch):
    ray.failing, ray.alive = Lost("not schedulable: the node died"), {"a": True, "b": 1}
    slept = []

    def sleep(seconds):  # Ray notices later
        slept.append(seconds)
        ray.alive["a"] = len(slept) < 2

    monkeypatch.setattr(machines.time, "sleep", sleep)
    RayRunner("auto", 1, 0.0, tmp_path)
    assert len(slept) == 2 and not list(tmp_path.iterdir())


def test_a_machine_that_cannot_be_checked_is_refused(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "_LOSS_SECONDS", 0.0)
    ray.failing = Lost("trace\nModuleNotFoundError: leo_tf")
    with pytest.raises(InputError, match=r"imported, received 'Module.*leo_tf'"):
        RayRunner("auto", 1, 0.0, tmp_path)
    assert not ray.is_open and not list(tmp_path.iterdir())


def test_a_session_of_the_users_stays_open_and_ours_does_not(ray, tmp_path):
    with pytest.raises(FlagError, match="--run_cpus: expected 4 or less"):
        RayRunner("auto", 5, 0.0, tmp_path)
    assert not ray.is_open
    ray.init()
    RayRunner("auto", 1, 0.0, tmp_path).close()
    assert ray.is_open
