"""Metrics of training: update and gradient of the last step, and speed."""

import time

import numpy as np
import pytest
import tensorflow as tf
import toy_training
from event_files import read, under
from toy_training import Line, run

from leo_tf.training.meta_step import clip_gradients, meta_gradients
from leo_tf.training.meta_step import clipping_metrics as clipping

KERNEL = "kernel"


def shown(trainer, name="train"):
    return read(trainer.shown.monitor.directory / name)


def gradient_at(trainer, step) -> np.ndarray:
    """Returns the clipped gradient of a toy's next step."""
    config = trainer.config
    learner, seed = trainer.learner, tf.constant(config.run.seed, tf.int64)
    episode = next(iter(toy_training.training_episodes(step)))
    noise = learner.draw_noise(episode, seed, tf.constant(step, tf.int64))
    _, gradients, _ = meta_gradients(learner, episode, noise)
    limits = config.optimizer
    return clip_gradients(
        gradients, limits.gradient_threshold, limits.gradient_norm_threshold
    )[0].numpy()


@pytest.mark.parametrize("validate_every", [1, 4])
def test_the_shown_gradient_is_the_last_steps_after_clipping(
    make_trainer, validate_every
):
    before = run(make_trainer(num_steps=3, log_every=100, validate_every=3))
    expected = gradient_at(before, 3)
    after = run(
        make_trainer("other", num_steps=4, log_every=100, validate_every=validate_every)
    )
    histogram = shown(after)[f"tensors_gradients/{KERNEL}"][4]
    assert histogram[:, 2].sum() == expected.size
    assert histogram[0, 0] == pytest.approx(expected.min(), rel=1e-4)
    assert histogram[-1, 1] == pytest.approx(expected.max(), rel=1e-4)


def test_movement_is_the_last_steps_in_lengths_of_the_variable(make_trainer):
    before = run(make_trainer(num_steps=5)).learner.kernel.numpy()
    trainer = run(make_trainer("other", num_steps=6, log_every=6))
    moved = np.linalg.norm(trainer.learner.kernel.numpy() - before)
    ratio = shown(trainer)[f"optimisation_update_to_weight/{KERNEL}"]
    assert ratio == {6: pytest.approx(moved / np.linalg.norm(before), rel=1e-4)}


def test_a_step_is_seen_by_itself_however_many_a_call_makes(tmp_path, monkeypatch):
    monkeypatch.setattr("leo_tf.training.trainer._SECONDS_PER_CALL", 100.0)
    line = Line()
    calls = toy_training.make_trainer(tmp_path / "long", num_steps=20, log_every=8)
    run(calls, line)
    steps = [int(detail.split()[1]) for detail in line.details]
    assert {7, 8, 15, 16, 19, 20} < set(steps), "before and after what is shown"
    assert len(steps) < 16, "all others are made many a call"
    events = shown(calls)
    assert list(events[f"optimisation_update_to_weight/{KERNEL}"]) == [8, 16]
    assert list(events[f"tensors_gradients/{KERNEL}"]) == [5, 10, 15, 20]


def test_a_run_that_goes_on_by_a_validation_has_no_gradient_to_show(make_trainer):
    trainer = make_trainer(validate_every=4, num_steps=8)
    trainer.validate = stop_at(trainer, 4)
    with pytest.raises(KeyboardInterrupt):
        run(trainer)
    # The checkpoint of a signal, without the validation that was due.
    trainer._save()
    again = run(make_trainer(validate_every=4, num_steps=8))
    events = shown(again)
    assert list(events[f"tensors_variables/{KERNEL}"]) == [4, 8]
    assert list(events[f"tensors_gradients/{KERNEL}"]) == [8]


def stop_at(trainer, step):
    validate = trainer.validate

    def interrupted(on_batch):
        if trainer.state.step == step:
            raise KeyboardInterrupt
        return validate(on_batch)

    return interrupted


def test_without_a_finite_step_there_is_no_mean_to_show(make_trainer):
    trainer = run(make_trainer(broken_steps=tuple(range(6))))
    events = shown(trainer)
    assert list(events["accuracy_and_loss/loss"]) == [9, 12]
    assert list(events["accuracy_and_loss/steps_not_finite"].values()) == [3, 6, 6, 6]


def test_a_run_that_diverges_shows_how_it_ended(make_trainer):
    trainer = make_trainer(
        broken_steps=(1, 2, 3), non_finite_limit=2, log_every=100, validate_every=100
    )
    with pytest.raises(Exception, match="non-finite"):
        run(trainer)
    events = shown(trainer)
    assert events["accuracy_and_loss/steps_not_finite"] == {4: 3}


def slow(dataset, seconds):
    def wait(inputs):
        time.sleep(seconds)
        return inputs

    def sleep(episode):
        inputs = episode.support_inputs
        [late] = tf.py_function(wait, [inputs], [inputs.dtype])
        return episode._replace(support_inputs=tf.ensure_shape(late, inputs.shape))

    return dataset.map(sleep)


@pytest.mark.parametrize(("seconds", "low", "high"), [(0.0, 0.0, 0.7), (0.1, 0.8, 1.0)])
def test_time_waiting_for_input_is_the_time_that_input_takes(
    make_trainer, seconds, low, high
):
    trainer = make_trainer(num_steps=6, log_every=6, validate_every=6)
    trainer.episodes = lambda start: slow(
        toy_training.training_episodes(start), seconds
    )
    run(trainer)
    events = shown(trainer)
    [share] = events["speed/share_of_time_waiting_for_input"].values()
    assert low <= share <= high
    [speed] = events["speed/steps_per_second"].values()
    if seconds:
        assert speed < 1 / seconds
    [episodes] = events["speed/episodes_per_second"].values()
    assert episodes == pytest.approx(12 * speed)  # meta_batch_size


def test_speed_is_of_all_calls_since_the_point_before(make_trainer):
    trainer = make_trainer()
    metrics = {"non_finite": 0.0, "accuracy": 1.0, "loss": 1.0}
    monitor, progress = trainer.shown, trainer.state
    monitor.add(1, metrics, seconds=60.0, input_wait=50.0)  # it compiles
    for step, calls in {
        3: [(40, 1.0, 0.3), (10, 1.5, 0.2)],
        6: [(8, 4.0, 4.0)],
    }.items():
        for count, seconds, wait in calls:
            monitor.add(count, metrics, seconds, wait)
        progress.step = step
        monitor.show(progress)
    events = shown(trainer)
    assert events["speed/steps_per_second"] == {3: 20.0, 6: 2.0}
    assert events["speed/episodes_per_second"] == {3: 240.0, 6: 24.0}
    share = events["speed/share_of_time_waiting_for_input"]
    assert share == {3: pytest.approx(0.2), 6: 1.0}


def test_the_first_call_which_compiles_is_no_speed(make_trainer):
    trainer = run(make_trainer(num_steps=2, log_every=1))
    events = shown(trainer)
    assert list(events["accuracy_and_loss/loss"]) == [1, 2]
    assert list(events["speed/steps_per_second"]) == [2]


def test_every_curve_of_training_is_in_a_group_that_is_explained(make_trainer):
    from leo_tf.monitoring.tags import DESCRIPTIONS

    for tag in shown(run(make_trainer())):
        assert tag in DESCRIPTIONS or tag.split("/")[0] in DESCRIPTIONS, tag


GRADIENTS = [
    np.array([[0.3, 0.4], [0.0, 0.0]], np.float32),  # length 0.5
    np.array([[0.03, 0.04]], np.float32),  # length 0.05
]


@pytest.mark.parametrize(
    ("value", "norm"),
    [(0.1, 0.1), (0.35, 0.1), (0.1, 0.2), (0.35, 0), (0, 0.1), (0, 0)],
)
def test_clipping_is_told_of_as_it_was_done(value, norm):
    gradients = [tf.constant(gradient) for gradient in GRADIENTS]
    clipped = clip_gradients(gradients, value, norm)
    told = clipping(("a", "b"), gradients, clipped, value, norm)
    told = {name: float(number) for name, number in told.items()}
    for name, gradient, rest in zip("ab", GRADIENTS, clipped):
        lengths = np.linalg.norm(gradient), np.linalg.norm(rest)
        assert told[f"gradient_norm/{name}"] == pytest.approx(lengths[0], rel=1e-6)
        assert told[f"clipped_norm/{name}"] == pytest.approx(lengths[1], rel=1e-6)
        is_clipped = bool(np.abs(gradient - rest).max() > 1e-6)
        assert told[f"clipped_share/{name}"] == is_clipped
    assert under(told, "clipped_share") == {"a", "b"}
