"""Scores over many episodes: intervals, batches, several methods at once.

Shapes: B episodes in a batch, N way, Q queries per class.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import make_episode, make_leo

from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import batch_size_for
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable
from leo_tf.evaluation.evaluate import evaluate, load, save
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.query_aware.bd_cspn import BDCSPN
from leo_tf.model.learner import adapt_and_score


def test_an_interval_is_196_standard_errors_to_each_side():
    values = np.random.default_rng(0).uniform(size=40)
    error = np.sqrt(np.sum((values - values.mean()) ** 2) / 39) / np.sqrt(40)
    mean, half_width = interval(values)
    np.testing.assert_allclose(mean, np.mean(values), rtol=1e-12)
    np.testing.assert_allclose(half_width, 1.959964 * error, rtol=1e-12)


def test_intervals_hold_the_true_mean_95_times_in_100():
    values = np.random.default_rng(0).binomial(20, 0.7, size=[4000, 50]) / 20
    intervals = [interval(row) for row in values]
    held = np.mean([abs(mean - 0.7) < half for mean, half in intervals])
    assert 0.93 < held < 0.96


def test_equal_values_have_an_interval_of_no_width():
    assert interval(np.full(5, 0.5)) == (0.5, 0.0)


def test_a_single_value_has_an_infinite_interval():
    assert interval(np.array([0.25])) == Interval(0.25, math.inf)


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_scores_are_read_as_they_were_saved(temperature, tmp_path):
    options = {"temperatures": {"it": temperature}} if temperature else {}
    made = [make_episode()]
    scores = evaluate({"it": NearestCentroid()}, made, calibrated=True, **options)["it"]
    (tmp_path / "scores.npz").write_bytes(save(scores))
    again = load(tmp_path / "scores.npz")
    assert type(again.bins) is type(scores.bins)
    assert (again.scaled_nll is None) == (temperature is None)
    tf.nest.map_structure(np.testing.assert_array_equal, again, scores)


def test_an_interval_reads_as_percent():
    assert str(Interval(0.61234, 0.00451)) == "61.23 ± 0.45"


def test_float32_values_are_averaged_in_float64():
    values = np.full(10_000, 0.1, np.float32)
    assert abs(interval(values).mean - float(np.float32(0.1))) < 1e-15


@pytest.mark.parametrize("limit", [10_000, 1_000_000])
@pytest.mark.parametrize("episodes", [1, 7, 97, 200, 2000])
def test_batches_fit_the_memory_and_divide_the_episodes_where_they_can(
    monkeypatch, episodes, limit
):
    monkeypatch.setattr(dataset, "_BATCH_BYTES", limit)
    way, shot, num_query, size = 3, 2, 4, 7
    for itemsize in (4, 8):
        batch = batch_size_for(episodes, way, shot, num_query, size, itemsize=itemsize)

        def fits(b, itemsize=itemsize):
            support, scores = 3 * 2 * 7, 4 * (3 * 4 * 3)
            return b <= episodes and b * (support + scores) * itemsize <= limit

        most = max(b for b in range(1, episodes + 1) if fits(b))
        assert fits(batch) and batch > most / 2
        divisors = [b for b in range(1, most + 1) if episodes % b == 0]
        assert batch == (divisors[-1] if divisors[-1] > most / 2 else most)


def test_one_episode_at_a_time_is_the_least():
    assert batch_size_for(10, 100, 1, 10_000, 10_000) == 1


def batches(*sizes):
    """Batches of different episodes, the last of which may be smaller."""
    return [make_episode(i, tasks=size) for i, size in enumerate(sizes)]


def dataset_of(episodes):
    spec = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), episodes[0]
    )
    return tf.data.Dataset.from_generator(lambda: iter(episodes), output_signature=spec)


def test_every_method_scores_every_episode_as_a_loop_over_episodes_does():
    learners = {"leo": make_leo(), "centroid": NearestCentroid()}
    episodes, seen = batches(3, 3, 1), []
    scores = evaluate(learners, dataset_of(episodes), on_batch=seen.append)
    assert list(scores) == list(learners) and seen == [3, 3, 1]
    for name, learner in learners.items():
        accuracies, losses = [], []
        for episode in episodes:
            adapted, logits = adapt_and_score(learner, episode)
            penalties = float(sum(adapted.penalties.values()))
            for scored, labels in zip(logits.numpy(), episode.query_labels.numpy()):
                accuracies.append(np.mean(np.argmax(scored, axis=-1) == labels))
                shares = np.exp(scored) / np.exp(scored).sum(axis=-1, keepdims=True)
                right = [
                    shares[n, q, labels[n, q]] for n, q in np.ndindex(labels.shape)
                ]
                losses.append(-np.mean(np.log(right)) + penalties)
        # The mean of seven episodes, not of three batches.
        np.testing.assert_allclose(scores[name].accuracy, accuracies, rtol=1e-12)
        np.testing.assert_allclose(scores[name].loss, np.mean(losses), rtol=1e-10)
    assert len(set(accuracies)) > 1
    assert not np.array_equal(scores["leo"].accuracy, scores["centroid"].accuracy)


def test_evaluating_twice_gives_the_same_scores_whatever_the_batches():
    learners, episode = {"leo": make_leo()}, make_episode(tasks=6)
    parts = [
        tf.nest.map_structure(lambda x, i=i: x[i : i + 4], episode) for i in (0, 4)
    ]
    whole = evaluate(learners, dataset_of([episode]))["leo"]
    again = evaluate(learners, dataset_of(parts))["leo"]
    np.testing.assert_array_equal(again.accuracy, whole.accuracy)
    np.testing.assert_allclose(again.loss, whole.loss, rtol=1e-12)


def test_the_pairs_of_the_relation_network_count_too():
    # 20-way 20-shot: 400 * 400 pairs of 128 numbers are 82 MB, thrice.
    few = batch_size_for(1000, 20, 20, 10, 640, num_latents=64)
    assert few == 1 < batch_size_for(1000, 20, 20, 10, 640)


def test_unbalanced_episodes_by_row_are_scored_as_their_episodes_are():
    random, sizes = np.random.default_rng(0), [9, 12, 10, 11]
    labels = np.repeat(np.arange(4), sizes)
    rows = 2 * random.normal(size=[4, 7])[labels]
    rows += random.normal(size=rows.shape)
    table = EmbeddingTable(rows, labels, tuple("abcd"), dtype="float64")
    shape = {"way": 3, "shot": 2, "num_query": 4, "seed": 1, "split": "test"}
    shape |= {"batch_size": 5, "num_episodes": 12, "query_dirichlet": 0.5}
    episodes = EpisodesByRow(FeatureTable.from_embeddings(table), **shape)
    learners = {"centroid": NearestCentroid(), "bd_cspn": BDCSPN()}
    by_row = evaluate(learners, episodes, calibrated=True)
    gathered = evaluate(learners, list(episodes), calibrated=True)
    for name in learners:
        mine, its = by_row[name], gathered[name]
        np.testing.assert_array_equal(mine.accuracy, its.accuracy)
        np.testing.assert_allclose(mine.nll, its.nll, rtol=1e-9)
        assert np.mean(mine.accuracy) > 0.5
