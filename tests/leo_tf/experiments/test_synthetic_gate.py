"""LEO learns what it is for: which directions of features matter, from few tasks.

The set's nuisance is louder than its signal (`synthetic_set.py`), so nearest centroid
is lost. LEO and its generator alone train equally long, and briefly: the generator
catches up within some thousand steps, as nothing in the set is beyond it.
"""

import functools

import pytest
import tensorflow as tf
from synthetic_set import SIZE, synthetic_set

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.pipeline import episodes
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.methods import registry as methods
from leo_tf.training.meta_step import adam, make_meta_step
from leo_tf.training.step_loop import make_run_steps

pytestmark = pytest.mark.long

STEPS, TEST_EPISODES = 400, 1000
SHAPE = {"way": 5, "shot": 1, "num_query": 15}


@functools.cache
def percent(method: str, mixed_precision: bool = False) -> float:
    """Returns the test accuracy of a method after training, if it is trained."""
    config = Config().replace(
        method=method,
        mixed_precision=mixed_precision,
        outer_lr=1e-3,
        dropout_rate=0.3,
        score_scale=1.0,
    )
    tables, learner = synthetic_set(), methods.build(config, SIZE)
    if methods.METHODS[method].is_trained:
        train(learner, config, tables["train"])
    test = episodes(
        tables["test"],
        **SHAPE,
        batch_size=100,
        num_episodes=TEST_EPISODES,
        seed=0,
        split="test",
    )
    return 100 * evaluate({method: learner}, test)[method].accuracy.mean()


def train(learner, config, table):
    meta_step = make_meta_step(
        learner,
        adam(config.optimizer.outer_lr),
        gradient_threshold=config.optimizer.gradient_threshold,
        gradient_norm_threshold=config.optimizer.gradient_norm_threshold,
    )
    batch_size = config.episodes.meta_batch_size
    supply = episodes(table, **SHAPE, batch_size=batch_size, seed=0, split="train")
    first, count = tf.constant(0, tf.int64), tf.constant(STEPS, tf.int64)
    totals = make_run_steps(meta_step, seed=0)(iter(supply), first, count)
    assert totals["non_finite"] == 0


@pytest.mark.parametrize("method", ["centroid", "centroid_euclidean"])
def test_nearest_centroid_is_lost(method):
    assert 30 < percent(method) < 50  # chance is 20


def test_leo_reaches_92_percent():
    assert percent("leo") >= 92


def test_leo_is_two_and_a_half_points_better_than_its_generator_alone():
    assert percent("leo") >= percent("generator") + 2.5


@pytest.mark.slow
def test_fine_tuning_moves_the_generator_by_no_more_than_a_point():
    assert abs(percent("generator_finetuning") - percent("generator")) <= 1


@pytest.mark.slow
def test_products_in_bfloat16_cost_less_than_a_point():
    assert abs(percent("leo", mixed_precision=True) - percent("leo")) <= 1
