"""The update of a learner: Adam, XLA, seeds, NaN, and many steps in one call."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import make_episode, make_leo

from leo_tf.model.learner import adapt_and_score
from leo_tf.training import step_loop
from leo_tf.training.meta_step import adam, make_meta_step, meta_gradients
from leo_tf.training.step_loop import make_run_steps

NOTHING_CLIPPED = {"gradient_threshold": 0.0, "gradient_norm_threshold": 0.0}
RATE = 0.01


def make(leo, jit=False, **thresholds):
    return make_meta_step(leo, adam(RATE), jit=jit, **{**NOTHING_CLIPPED, **thresholds})


def make_small_leo(**settings):
    return make_leo(inner_unroll_length=1, **settings)


def make_clipped(leo, jit=False):
    return make(leo, jit, gradient_threshold=0.1, gradient_norm_threshold=0.1)


def values_of(leo) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in leo.trainable_variables}


def int64(*numbers):
    return [tf.constant(number, tf.int64) for number in numbers]


def first_adam_step(gradient):
    """Returns the first step: Adam's two averages cancel except for epsilon."""
    return RATE * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))


def spoiled(episode):
    """Returns the meta-batch with one NaN among its support inputs."""
    support = episode.support_inputs.numpy()
    support[1, 2, 0, 3] = np.nan
    return episode._replace(support_inputs=tf.constant(support))


def five_episodes():
    episodes = [make_episode(step) for step in range(5)]
    return [*episodes[:3], spoiled(episodes[3]), episodes[4]]


@functools.cache
def five_steps(jit=False):
    """Returns the metrics of five meta-steps, and the variables after each.

    The fourth meta-batch holds a NaN.
    """
    leo = make_small_leo()
    meta_step, metrics, variables = make_clipped(leo, jit), [], []
    for step, episode in enumerate(five_episodes()):
        metrics.append(meta_step(episode, *int64(0, step)))
        variables.append(values_of(leo))
    return metrics, variables


def test_adam_divides_by_the_root_plus_ten_to_the_minus_eight():
    # The first step is rate * g / (|g| + epsilon / sqrt(1 - beta_2)), so a gradient of
    # that size makes half a step. Keras's epsilon would make an eleventh.
    gradient = 1e-8 / np.sqrt(1 - 0.999)
    variable = tf.Variable([1.0], dtype=tf.float64)
    optimizer = adam(RATE)
    optimizer.build([variable])
    optimizer.apply([tf.constant([gradient], tf.float64)], [variable])
    np.testing.assert_allclose(1 - variable.numpy(), [RATE / 2], rtol=1e-5)


@pytest.fixture
def eager():
    """Traces no graph, which is faster for a step or two."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eager")
def test_a_meta_step_is_one_adam_step_on_the_clipped_gradients():
    leo, episode = make_small_leo(), make_episode()
    noise = leo.draw_noise(episode, *int64(5, 7))
    _, gradients, _ = meta_gradients(leo, episode, noise)
    before = values_of(leo)
    make(leo, gradient_threshold=0.02)(episode, *int64(5, 7))
    for variable, gradient in zip(leo.trainable_variables, gradients, strict=True):
        step = first_adam_step(np.clip(gradient, -0.02, 0.02))
        moved = before[variable.path] - variable.numpy()
        np.testing.assert_allclose(moved, step, rtol=1e-4)


def test_a_meta_step_changes_every_trainable_variable():
    _, variables = five_steps()
    for path, before in values_of(make_small_leo()).items():
        assert np.all(variables[0][path] != before), path


def test_metrics_are_those_of_the_loss_they_describe():
    leo, episode = make_small_leo(), make_episode(0)
    metrics = five_steps()[0][0]
    noise = leo.draw_noise(episode, *int64(0, 0))
    _, gradients, _ = meta_gradients(leo, episode, noise)
    _, logits = adapt_and_score(leo, episode, training=True, noise=noise)
    right = np.argmax(logits, axis=-1) == episode.query_labels
    np.testing.assert_allclose(metrics["accuracy"], np.mean(right))
    parts = [value for name, value in metrics.items() if name.startswith("loss_parts")]
    np.testing.assert_allclose(metrics["loss"], sum(parts), rtol=1e-12)
    assert len(parts) == 5 and metrics["non_finite"] == 0
    for variable, gradient in zip(leo.trainable_variables, gradients, strict=True):
        norm = metrics["gradient_norm/" + variable.path.removeprefix("leo/")]
        np.testing.assert_allclose(norm, np.linalg.norm(gradient), rtol=1e-10)


def test_xla_gives_the_same_metrics_and_variables():
    (metrics, variables), (compiled, its) = five_steps(), five_steps(jit=True)
    for mine, other in zip(metrics, compiled, strict=True):
        for name in mine:
            np.testing.assert_allclose(
                mine[name], other[name], rtol=1e-7, err_msg=name, atol=1e-12
            )
    for path, value in variables[-1].items():
        np.testing.assert_allclose(value, its[-1][path], rtol=1e-6, atol=1e-8)


def test_seed_and_step_decide_the_update_bit_for_bit():
    leo, (metrics, variables) = make_small_leo(), five_steps()
    start, meta_step = values_of(leo), make_clipped(leo)
    episode = make_episode(0)
    again = meta_step(episode, *int64(0, 0))
    for path, value in values_of(leo).items():
        np.testing.assert_array_equal(value, variables[0][path])
    assert again["loss"] == metrics[0]["loss"]
    for seed, step in ((1, 0), (0, 1)):
        for variable in leo.trainable_variables:
            variable.assign(start[variable.path])
        other = meta_step(episode, *int64(seed, step))
        assert abs(other["loss"] - again["loss"]) > 1e-6


def test_the_waits_of_all_steps_of_a_call_are_summed(monkeypatch):
    half = tf.constant(0.5, tf.float64)
    taken = lambda iterator, previous: (next(iterator), half)  # noqa: E731
    monkeypatch.setattr(step_loop, "next_timed", taken)
    stacked = tf.nest.map_structure(lambda *x: tf.stack(x), *five_episodes())
    iterator = iter(tf.data.Dataset.from_tensor_slices(stacked))
    totals = make_run_steps(make_clipped(make_small_leo()), 0)(iterator, *int64(0, 4))
    assert float(totals["input_wait"]) == 4 * 0.5


def test_many_steps_in_one_call_equal_single_steps_wherever_they_are_cut():
    leo, (singles, variables) = make_small_leo(), five_steps()
    run_steps = make_run_steps(make_clipped(leo), seed=0)
    stacked = tf.nest.map_structure(lambda *x: tf.stack(x), *five_episodes())
    iterator = iter(tf.data.Dataset.from_tensor_slices(stacked))
    for first, count in ((0, 1), (1, 4)):
        totals = run_steps(iterator, *int64(first, count))
        assert totals.pop("input_wait") >= 0
        last = first + count
        for path, value in values_of(leo).items():
            np.testing.assert_array_equal(value, variables[last - 1][path])
        # Step 3 is non-finite: only its "non_finite" metrics count.
        finite = [metrics for step, metrics in enumerate(singles[:last]) if step != 3]
        for name, total in totals.items():
            expected = sum(float(metrics[name]) for metrics in finite[first:])
            expected += name == "non_finite" and last > 3
            np.testing.assert_allclose(total, expected, rtol=1e-9, err_msg=name)


@pytest.mark.usefixtures("eager")
def test_a_nan_episode_pulls_the_kernels_and_spoils_nothing():
    # With an L2 weight of 0 the release would divide by zero here.
    leo = make_small_leo(l2_penalty_weight=0.0)
    before, meta_step = values_of(leo), make(leo)
    metrics = meta_step(spoiled(make_episode()), *int64(0, 0))
    assert metrics["non_finite"] == 1
    for path, value in values_of(leo).items():
        if "kernel" in path:
            step = first_adam_step(1e-4 * before[path])
            np.testing.assert_allclose(before[path] - value, step, rtol=1e-4)
        else:
            np.testing.assert_array_equal(value, before[path])
    metrics = meta_step(make_episode(), *int64(0, 1))
    assert metrics["non_finite"] == 0 and np.isfinite(metrics["loss"])
    assert all(np.all(np.isfinite(value)) for value in values_of(leo).values())
