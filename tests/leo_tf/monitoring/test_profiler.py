"""A profile of given steps and no others, whose failure never stops the run."""

import logging

import pytest
import tensorflow as tf
import toy_training
from toy_training import run

from leo_tf.errors import FlagError
from leo_tf.monitoring.profiler import Profile
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.training_state import TrainingState


class Recorder:
    """A fake of TensorFlow's profiler."""

    def __init__(self, monkeypatch, learner_steps=None):
        self.calls, self.steps = [], learner_steps or (lambda: None)
        profiler = tf.profiler.experimental
        monkeypatch.setattr(profiler, "start", lambda path: self.note("start"))
        monkeypatch.setattr(profiler, "stop", lambda: self.note("stop"))

    def note(self, what):
        self.calls.append((what, self.steps()))


def profiled(tmp_path, monkeypatch, steps, **settings):
    trainer = toy_training.make_trainer(tmp_path / "run", log_every=100, **settings)
    trainer.profile = Profile(tmp_path / "events", steps)
    recorder = Recorder(monkeypatch, lambda: trainer.state.step)
    return trainer, recorder


def test_just_the_steps_asked_for_are_profiled(tmp_path, monkeypatch):
    monkeypatch.setattr("leo_tf.training.trainer._SECONDS_PER_CALL", 100.0)
    trainer, recorder = profiled(tmp_path, monkeypatch, None)
    for first, last in [(1, 1), (3, 7), (5, 5), (12, 12), (1, 12)]:
        # A run of its own, without compiling again.
        trainer.state, trainer._resumed = TrainingState(), None
        trainer.checkpoints = Checkpoints(tmp_path / f"{first} {last}", keep=10)
        trainer.profile = Profile(tmp_path / "events", (first, last))
        recorder.calls.clear()
        run(trainer)
        assert recorder.calls == [("start", first - 1), ("stop", last)]


def test_without_the_option_there_is_no_profile(tmp_path, monkeypatch):
    trainer, recorder = profiled(tmp_path, monkeypatch, None)
    run(trainer)
    assert recorder.calls == []


def test_a_run_that_ends_before_writes_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr("leo_tf.training.trainer._SECONDS_PER_CALL", 0.0)
    settings = {"broken_steps": (3, 4, 5), "non_finite_limit": 2}
    trainer, recorder = profiled(tmp_path, monkeypatch, (4, 12), **settings)
    with pytest.raises(Exception, match="non-finite"):
        run(trainer)
    assert [what for what, _ in recorder.calls] == ["start", "stop"]


@pytest.mark.parametrize("failing", ["start", "stop"])
def test_a_profiler_that_fails_costs_the_profile_and_not_the_run(
    tmp_path, monkeypatch, caplog, failing
):
    trainer, _ = profiled(tmp_path, monkeypatch, (3, 7))

    def fail(*unused):
        raise tf.errors.UnavailableError(None, None, "the profiler is busy")

    monkeypatch.setattr(tf.profiler.experimental, failing, fail)
    with caplog.at_level(logging.WARNING):
        run(trainer)
    [warning] = caplog.records
    assert "the profiler is busy" in warning.getMessage()
    assert trainer.state.step == 12


@pytest.mark.parametrize("steps", [(3, 13), (13, 14), (2, 4), (1, 1)])
def test_steps_that_are_not_to_be_made_are_refused(tmp_path, steps):
    with pytest.raises(FlagError, match="3 to 12") as caught:
        Profile(tmp_path, steps).check(done=2, num_steps=12)
    assert caught.value.where == "--profile_steps"


def test_steps_that_are_to_be_made_are_not_refused(tmp_path):
    for steps in ((3, 12), (3, 3), (12, 12), None):
        Profile(tmp_path, steps).check(done=2, num_steps=12)


@pytest.mark.usefixtures("quick_job")
def test_a_run_writes_a_profile_where_tensorboard_looks_for_it(train, tmp_path):
    flags = ["--method=generator", "--profile_steps=4-6", "--quiet"]
    assert train(tmp_path / "run", *flags) == 0
    profiles = tmp_path / "run" / "events" / "plugins" / "profile"
    [trace] = profiles.glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_a_run_that_is_past_the_steps_refuses_to_profile_them(
    trained_copy, train, capsys
):
    assert train(trained_copy, "--num_steps=14", "--profile_steps=3-5") == 2
    assert "--profile_steps" in capsys.readouterr().err
