"""Mixed precision: products in bfloat16, all else in float32.

That it learns as well is in test_synthetic_gate.py.
"""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import D, K, N, Z, make_episode, make_leo

from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.methods import registry as methods
from leo_tf.model.learner import adapt_and_score
from leo_tf.training.meta_step import meta_gradients


def pair(**settings):
    """The same LEO in float32 and with mixed precision, and an episode."""
    whole = make_leo(dtype="float32", **settings)
    mixed = make_leo(dtype="mixed_bfloat16", **settings)
    for mine, its in zip(mixed.variables, whole.variables, strict=True):
        mine.assign(its)
    return whole, mixed, make_episode(dtype="float32")


def test_variables_gradients_and_answers_stay_in_float32():
    _, mixed, episode = pair()
    noise = mixed.draw_noise(episode, 1, 2)
    loss, gradients, metrics = meta_gradients(mixed, episode, noise)
    adapted, logits = adapt_and_score(mixed, episode)
    held = [*mixed.variables, *gradients, *metrics.values(), adapted.classifier, logits]
    assert {tf.as_dtype(x.dtype) for x in [*held, loss, *noise.weights]} == {tf.float32}


@pytest.mark.parametrize("residual", ["centroid", "ridge"])
def test_a_residual_is_added_to_a_closed_form_in_float32(residual):
    whole, mixed, episode = pair(residual=residual)
    support = tf.reshape(episode.support_inputs, [-1, N * K, D])
    targets = tf.one_hot(tf.reshape(episode.support_labels, [-1, N * K]), N)
    exact = whole.closed_form(support, targets)
    np.testing.assert_array_equal(mixed.closed_form(support, targets), exact)
    given = episode.support_inputs, episode.support_labels, episode.query_inputs
    called = mixed(*given)  # in which Keras casts to 16 bits
    np.testing.assert_allclose(tf.cast(called, tf.float32), whole(*given), atol=0.2)


def test_every_product_of_data_is_in_bfloat16_and_nothing_else_is():
    _, mixed, episode = pair()
    graph = (
        tf.function(lambda: adapt_and_score(mixed, episode)[1])
        .get_concrete_function()
        .graph
    )
    operations = graph.get_operations()
    products = [op for op in operations if "MatMul" in op.type]
    whole = [op for op in products if op.inputs[0].dtype != tf.bfloat16]
    assert len(products) > 10
    # The orthogonality of the decoder's rows is a matter of variables alone.
    assert [op.outputs[0].shape for op in whole] == [[Z, Z]]
    narrow = {
        op.type for op in operations for x in op.outputs if x.dtype == tf.bfloat16
    }
    moving = {"Cast", "Reshape", "Transpose", "Split", "StridedSlice", "Const"}
    assert {kind for kind in narrow if "MatMul" not in kind} <= moving


def test_answers_and_gradients_are_those_of_float32_up_to_rounding():
    whole, mixed, episode = pair()
    noise = whole.draw_noise(episode, 1, 2)
    expected, logits = (
        adapt_and_score(whole, episode)[1],
        adapt_and_score(mixed, episode)[1],
    )
    rounding = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 1e-5 < rounding < 0.03  # bfloat16 has 8 bits
    for mine, its in zip(
        meta_gradients(mixed, episode, noise)[1],
        meta_gradients(whole, episode, noise)[1],
        strict=True,
    ):
        mine, its = np.ravel(mine), np.ravel(its)
        cosine = mine @ its / np.linalg.norm(mine) / np.linalg.norm(its)
        assert cosine > 0.99


@pytest.mark.parametrize(
    "changes, received",
    [({"dtype": "float64"}, "float64"), ({"method": "maml"}, "maml")],
)
def test_what_it_cannot_be_combined_with_is_refused(changes, received):
    config = Config().replace(mixed_precision=True, **changes)
    with pytest.raises(FlagError, match=f"--mixed_precision: .*{received}"):
        methods.build(config, 7)
