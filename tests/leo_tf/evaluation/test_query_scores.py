"""Scoring class by class gives what gathering every query gives.

Shapes: B episodes, N way, K shot, Q queries per class, D embedding size.
"""

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import ModelConfig
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable, gather
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.query_scores import ClassRows, query_scores
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.model.learner import adapt_and_score, class_scores
from leo_tf.model.leo import LEO

N, K, Q, D, Z = 3, 2, 4, 7, 5
SIZES = [6, 9, 7, 11, 6]  # rows of each class


def table() -> FeatureTable:
    """Classes of uneven sizes, their rows mixed up."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    embeddings = rng.normal(size=[len(labels), D]).astype(np.float32)
    names = tuple("abcde")
    return FeatureTable.from_embeddings(
        EmbeddingTable(embeddings, labels, names, source="tiny")
    )


def episodes(features, batch_size=5, num_episodes=12, **shape) -> EpisodesByRow:
    shape = {"way": N, "shot": K, "num_query": Q, **shape}
    options = {"batch_size": batch_size, "num_episodes": num_episodes}
    return EpisodesByRow(features, **shape, **options, seed=3, split="test")


def make_leo():
    leo = LEO(ModelConfig(num_latents=Z), seed=1)
    leo.build([None, None, None, D])
    leo.decoder.kernel.assign(3 * leo.decoder.kernel)
    return leo


@pytest.mark.parametrize("learner", [make_leo(), NearestCentroid()], ids=["leo", "nc"])
@pytest.mark.parametrize("num_query", [1, Q])
def test_scores_by_class_equal_those_of_gathered_queries(learner, num_query):
    features = table()
    by_class = ClassRows.of(features)
    for rows in episodes(features, num_query=num_query).rows:
        adapted, expected = adapt_and_score(learner, gather(features, rows))
        scores = query_scores(learner, adapted.classifier, rows, by_class)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_evaluation_by_row_equals_that_of_gathered_episodes():
    features = table()
    learners = {"leo": make_leo(), "centroid": NearestCentroid()}
    drawn = episodes(features)
    for by_row, gathered in zip(
        evaluate(learners, drawn).values(), evaluate(learners, iter(drawn)).values()
    ):
        np.testing.assert_array_equal(by_row.accuracy, gathered.accuracy)
        np.testing.assert_allclose(by_row.loss, gathered.loss, rtol=1e-6)
        assert len(by_row.accuracy) == 12 and 0 < by_row.accuracy.mean() < 1


def test_the_size_of_batches_does_not_change_the_scores():
    features, learners = table(), {"leo": make_leo()}
    scores = [
        evaluate(learners, episodes(features, batch_size))["leo"].accuracy
        for batch_size in (1, 4, 12)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("size", [D, D + 1], ids=["weights", "and-bias"])
def test_inputs_shared_by_all_tasks_are_scored_as_if_each_had_its_own(size):
    rng = np.random.default_rng(1)
    classifier = tf.constant(rng.normal(size=[4, N, size]))
    inputs = tf.constant(rng.normal(size=[1, 6, D]))
    own = class_scores(classifier, tf.tile(inputs, [4, 1, 1]))
    shared = class_scores(classifier, inputs)
    np.testing.assert_allclose(shared, own, rtol=1e-12)
    assert shared.shape == [4, 6, N]


def test_no_embedding_of_a_query_is_gathered_for_an_episode():
    # 12 episodes of Q = 4 would be 12 * N * Q rows of D; a class has 11 at the most.
    features, leo = table(), make_leo()
    by_class = ClassRows.of(features)
    [rows] = episodes(features, batch_size=12).rows
    classifier = tf.zeros([12, N, D])
    sizes = []

    class Watched:
        def logits(self, classifier, inputs):
            sizes.append(inputs.shape)
            return leo.logits(classifier, inputs)

    query_scores(Watched(), classifier, rows, by_class)
    assert sorted(shape[1] for shape in sizes) == sorted(SIZES)
