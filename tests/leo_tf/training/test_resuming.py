"""Stopping and resuming: nothing is lost, and results stay the same."""

import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import saved_runs
import tensorflow as tf
import toy_training
from toy_training import Line, run, send

from leo_tf.errors import CheckpointError, DiskError
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.training import trainer as trainer_module


@pytest.fixture(autouse=True)
def eagerly():
    """Runs eagerly, because tracing these steps takes longer than running them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def graphs(eagerly):
    """Traces the steps, as in users' runs."""
    tf.config.run_functions_eagerly(False)


def outcome(trainer) -> dict:
    """Returns all results of a run except times and training means."""
    workdir = trainer.checkpoints.directory.parent
    return saved_runs.outcome(workdir, trainer.state.step)


def training_means(trainer) -> list[float]:
    return [
        record[name]
        for record in trainer.state.history
        for name in ("train_accuracy", "train_loss")
    ]


def test_every_optimizer_slot_is_in_a_checkpoint(make_trainer):
    variables = outcome(run(make_trainer(num_steps=1)))["variables"]
    # Kernel, its two moments, the count of steps and the learning rate.
    assert len(variables) == 5


@pytest.mark.parametrize("first", [5, 8])
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    graphs, make_trainer, first
):
    whole = run(make_trainer("whole"))
    run(make_trainer("halves"), Line(first, send(signal.SIGTERM)))
    halves = make_trainer("halves")
    assert halves.state.step == first
    assert outcome(run(halves)) == outcome(whole)
    # Training means, too, although the stop at 8 was between two validations.
    assert training_means(halves) == pytest.approx(training_means(whole), rel=1e-6)


def test_a_run_on_mixed_episodes_resumes_bit_for_bit_too(
    graphs, make_trainer, monkeypatch
):
    mixed = {"way": "3-4"}  # two graphs
    whole = run(make_trainer("whole", **mixed))
    run(make_trainer("halves", **mixed), Line(7, send(signal.SIGTERM)))
    assert outcome(run(make_trainer("halves", **mixed))) == outcome(whole)
    monkeypatch.setattr(trainer_module, "_SECONDS_PER_CALL", 1e9)
    assert outcome(run(make_trainer("many", **mixed))) == outcome(whole)


def test_a_compiled_run_resumes_bit_for_bit_too(graphs, make_trainer):
    settings = {"jit": "on", "num_steps": 3}
    whole = run(make_trainer("whole", **settings))
    run(make_trainer("halves", **settings), Line(2, send(signal.SIGTERM)))
    assert outcome(run(make_trainer("halves", **settings))) == outcome(whole)


def test_how_many_steps_a_call_makes_changes_nothing(graphs, make_trainer, monkeypatch):
    line = Line()
    single = outcome(run(make_trainer("single", log_every=100), line))
    assert len(line.details) == 12
    monkeypatch.setattr(trainer_module, "_SECONDS_PER_CALL", 1e9)
    line = Line()
    many = outcome(run(make_trainer("many", log_every=100), line))
    assert len(line.details) < 10
    assert many == single


def test_what_was_best_before_a_stop_must_be_beaten_after_it(make_trainer):
    run(make_trainer(accuracies=[0.9]), Line(7, send(signal.SIGTERM)))
    trainer = run(make_trainer(accuracies=[0.5, 0.8]))
    assert trainer.checkpoints.best().step == 5


def test_if_the_best_could_not_be_marked_resuming_marks_it(make_trainer, monkeypatch):
    def no_space(*unused):
        raise DiskError("best", "to write a file", "No space left on device")

    trainer = make_trainer(accuracies=[0.3, 0.9, 0.5])
    mark_best, marked = Checkpoints.mark_best, []

    def fails_at_10(checkpoints, step):
        marked.append(step)
        (no_space if step == 10 else mark_best)(checkpoints, step)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "mark_best", fails_at_10)
        with pytest.raises(DiskError):
            run(trainer)
    assert marked == [5, 10, 10] and trainer.checkpoints.best().step == 5
    resumed = run(make_trainer(accuracies=[0.5]))
    assert resumed.checkpoints.best().step == 10


def test_training_that_falls_back_behind_the_best_forgets_that_best(make_trainer):
    trainer = run(make_trainer(accuracies=[0.3, 0.9, 0.5]))
    for step in (10, 12):  # damages both: only step 5 is left to resume from
        (trainer.checkpoints.directory / f"step-{step:08d}/manifest.json").unlink()
    trainer.resume(trainer.checkpoints.newest(lambda reason: None, set_aside=True))
    assert trainer.state.best_step == 5
    assert trainer.checkpoints.best().step == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_running_steps_saves_and_says_which_it_was(
    make_trainer, number
):
    trainer = run(make_trainer(), Line(7, send(number)))
    assert trainer.stopped_by == number and trainer.state.step == 7
    newest = trainer.checkpoints.newest(pytest.fail)
    assert newest.step == 7
    assert [r["step"] for r in newest.manifest["progress"]["history"]] == [5]
    assert trainer.checkpoints.best().step == 5, "a stop is no validation"


def test_a_signal_during_the_last_step_leaves_its_validation_to_do(make_trainer):
    whole = run(make_trainer("whole"))
    trainer = run(make_trainer(), Line(12, send(signal.SIGTERM)))
    assert trainer.stopped_by == signal.SIGTERM
    line = Line()
    again = run(make_trainer(), line)
    assert line.details == [] and again.stopped_by is None
    assert outcome(again) == outcome(whole), "but for the validation"


def test_a_stopped_run_that_is_told_to_end_there_is_validated_first(make_trainer):
    run(make_trainer(), Line(4, send(signal.SIGTERM)))
    trainer = run(make_trainer(num_steps=4))
    assert [record["step"] for record in trainer.state.history] == [4]
    assert trainer.checkpoints.best().step == 4


def test_the_time_of_all_sessions_is_added_up(make_trainer):
    first = run(make_trainer(), Line(7, send(signal.SIGTERM))).state.seconds
    resumed = make_trainer()
    assert resumed.state.seconds == first > 0
    assert run(resumed).state.seconds > first


def test_a_disk_that_fails_ends_training_with_the_older_checkpoint_whole(
    make_trainer, monkeypatch
):
    def no_space(self, target):
        raise OSError(28, "No space left on device")

    run(make_trainer("run"), Line(7, send(signal.SIGTERM)))
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", no_space)
        with pytest.raises(DiskError, match="No space left"):
            run(make_trainer("run"))
    whole = outcome(run(make_trainer("whole")))
    assert outcome(run(make_trainer("run"))) == whole


def test_a_checkpoint_of_another_learner_is_refused(make_trainer, monkeypatch):
    run(make_trainer(num_steps=1))
    monkeypatch.setattr(toy_training, "SIZE", toy_training.SIZE + 1)
    with pytest.raises(CheckpointError, match=r"`projection/kernel`: .*\[6, 6\]"):
        make_trainer()


def test_if_the_best_is_lost_the_best_that_is_left_takes_over(make_trainer):
    trainer = run(make_trainer(accuracies=[0.5, 0.9, 0.3]))
    shutil.rmtree(trainer.checkpoints.directory / "step-00000010")
    resumed = make_trainer()
    assert (resumed.state.best_step, resumed.state.best_accuracy) == (5, 0.5)
    assert resumed.checkpoints.best().step == 5


def test_a_damaged_best_is_told_of_and_kept_aside(make_trainer):
    trainer = run(make_trainer(accuracies=[0.5, 0.9, 0.3]))
    checkpoints, told = trainer.checkpoints, []
    path = checkpoints.directory / "step-00000010"
    data = path / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    trainer.resume(checkpoints.newest(pytest.fail), told.append)
    assert told[0].startswith(f"skipped: {path}")
    assert told[1] == "The best checkpoint is now that of step 5."
    aside = checkpoints.directory / "unusable-step-00000010-0"
    assert (aside / data.name).exists() and not path.exists()
    assert checkpoints.best().step == 5


def test_if_no_validated_checkpoint_is_left_the_next_validation_is_the_best(
    make_trainer,
):
    trainer = run(make_trainer(accuracies=[0.9]), Line(7, send(signal.SIGTERM)))
    shutil.rmtree(trainer.checkpoints.directory / "step-00000005")
    resumed = run(make_trainer(accuracies=[0.2, 0.1]))
    assert resumed.checkpoints.best().step == 10
    assert resumed.state.best_accuracy == 0.2


def test_if_the_disk_fails_to_read_the_best_it_is_not_taken_for_lost(
    make_trainer, monkeypatch
):
    trainer = run(make_trainer(accuracies=[0.5, 0.9, 0.3]))
    best = trainer.checkpoints.directory / "step-00000010"
    with monkeypatch.context() as patched:
        opened = pathlib.Path.open

        def fails(path, *arguments):
            if path.parent == best:
                raise OSError(5, "Input/output error")
            return opened(path, *arguments)

        patched.setattr(pathlib.Path, "open", fails)
        with pytest.raises(CheckpointError, match="Input/output error"):
            make_trainer()
    assert trainer.checkpoints.best().step == 10
    assert make_trainer().state.best_step == 10


@pytest.mark.parametrize("first", [5, 10, 12])
def test_a_signal_during_a_validation_ends_it_and_resuming_does_it_again(
    make_trainer, first
):
    whole = run(make_trainer("whole"))
    validated = []

    def stop(step):
        validated.append(step)
        if step == first:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = run(make_trainer("halves", validating=stop))
    assert stopped.stopped_by == signal.SIGTERM and validated[-1] == first
    newest = stopped.checkpoints.newest(pytest.fail)
    steps = [record["step"] for record in newest.manifest["progress"]["history"]]
    assert newest.step == first and first not in steps, "no half validation counts"
    again = run(make_trainer("halves"))
    assert outcome(again) == outcome(whole)
    assert training_means(again) == pytest.approx(training_means(whole), rel=1e-6)


def test_a_signal_in_the_repeated_validation_only_puts_it_off_again(make_trainer):
    whole = run(make_trainer("whole"))

    def stop(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(3):
        trainer = run(make_trainer("halves", validating=stop))
        assert trainer.state.step == 5 and not trainer.state.history
    assert outcome(run(make_trainer("halves"))) == outcome(whole)


def test_one_validation_episode_has_no_interval_and_the_manifest_stays_json(
    make_trainer, monkeypatch
):
    def one(on_batch):
        return EpisodeScores(np.array([0.5]), loss=float("nan"))

    whole, halves = make_trainer("whole"), make_trainer("halves")
    whole.validate = halves.validate = one
    run(halves, Line(7, send(signal.SIGTERM)))
    resumed = make_trainer("halves")
    resumed.validate = one
    assert outcome(run(resumed)) == outcome(run(whole))
    path = whole.checkpoints.directory / "step-00000012" / "manifest.json"
    [*_, last] = json.loads(path.read_text(), parse_constant=pytest.fail)["progress"][
        "history"
    ]
    assert last["val_accuracy"] == 0.5
    assert last["val_half_width"] is None and last["val_loss"] is None


def test_a_validation_of_the_checkpoint_it_resumes_from_is_kept(make_trainer):
    run(make_trainer(), Line(7, send(signal.SIGTERM)))
    first = run(make_trainer(num_steps=7, accuracies=[0.6]))
    variables = saved_runs.values_of(first.checkpoints.directory.parent, 7)
    again = make_trainer(num_steps=7)
    assert again.state.history[-1]["step"] == again.state.best_step == 7
    kernel = variables["projection/kernel"]
    assert kernel.tobytes() == again.learner.kernel.numpy().tobytes()


@pytest.mark.parametrize("damage", ["format", "progress", "field"])
def test_a_checkpoint_of_another_version_is_refused_in_one_line(make_trainer, damage):
    trainer = run(make_trainer(num_steps=1))
    path = trainer.checkpoints.directory / "step-00000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    if damage == "field":
        manifest["progress"]["of_the_future"] = 1
    else:
        del manifest[damage]
    path.write_text(json.dumps(manifest))
    if damage == "format":
        with pytest.raises(CheckpointError, match="format 1, received format None"):
            trainer.checkpoints.load(1)
    else:
        with pytest.raises(CheckpointError, match="this version of leo-tf"):
            trainer.resume(trainer.checkpoints.load(1))
