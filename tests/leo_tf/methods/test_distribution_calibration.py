"""Distribution calibration against plain NumPy, and what it keeps of training classes.

Shapes: B tasks in the meta-batch, N way, K shot, S = N * K, D embedding size, C
training classes, k nearest of them, M samples of an example.
"""

import numpy as np
import pytest
import tensorflow as tf
from tiny_cases import D, make_episode, training_classes

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.errors import FlagError, InputError
from leo_tf.methods import registry, transform_fitting, transforms
from leo_tf.methods.inductive.linear import LinearRegression, logistic
from leo_tf.methods.transforms import Transform

NEAREST, ALPHA = 2, 0.3
# One has more rows than D, one a single row.
SIZES = (4, 12, 1, 6, 5)


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(5), SIZES)
    rows = random.normal(size=[5, D])[labels] + random.normal(size=[len(labels), D])
    names = tuple(f"class{c}" for c in range(5))
    made = EmbeddingTable(rows, labels.astype(np.int32), names, source="rows")
    return FeatureTable.from_embeddings(made)


@pytest.fixture(scope="module")
def classes(table) -> Transform:
    same = Transform(1.0, np.zeros(D), np.zeros([0, 0]))
    return transform_fitting.with_classes(same, table)


def make(classes, **settings):
    """The method itself, on features as they are."""
    given = {
        "logistic_strength": 0.1,
        "score_scale": 3.0,
        "calibration_classes": NEAREST,
        "calibration_alpha": ALPHA,
        "dtype": "float64",
    }
    config = Config().replace(method="distribution_calibration", **given | settings)
    return registry.build(config, D, classes).learner


def gaussian(table, example):
    """Equations 6 and 7, with a divisor of n - 1 as in the authors' code."""
    ends = np.cumsum(SIZES)
    rows = [table.features.numpy()[end - n : end] for n, end in zip(SIZES, ends)]
    means = np.array([each.mean(axis=0) for each in rows])
    covariances = [np.cov(r.T) if len(r) > 1 else np.zeros([D, D]) for r in rows]
    alpha = ALPHA * np.mean([np.trace(c) / D for c in covariances])
    near = np.argsort(np.linalg.norm(means - example, axis=1))[:NEAREST]
    mean = (means[near].sum(axis=0) + example) / (NEAREST + 1)
    covariance = sum(covariances[c] for c in near) / NEAREST
    return mean, covariance, covariance + alpha * np.eye(D)


def test_gaussians_and_samples_are_those_of_the_paper_s_formulas(table, classes):
    count = 40_000
    learner = make(classes, calibration_samples=count)
    inputs = make_episode(tasks=1, way=3, shot=1).support_inputs[:, :, 0]  # [1, S, D]
    means, rows = learner.calibrated(inputs)
    samples = learner.sample(inputs, count).numpy()
    near = set()
    for s, example in enumerate(inputs[0].numpy()):
        mean, covariance, spread = gaussian(table, example)
        np.testing.assert_allclose(means[0, s], mean, atol=1e-7)
        mine = np.einsum("krd,kre->de", rows[0, s], rows[0, s]) / NEAREST
        np.testing.assert_allclose(mine, covariance, atol=1e-7)
        close = 4 * np.sqrt(np.diag(spread).max() / count)
        np.testing.assert_allclose(samples[0, s].mean(axis=0), mean, atol=close)
        apart = np.abs(np.cov(samples[0, s].T) - spread).max()
        assert apart < 0.03 * np.diag(spread).max() < np.diag(spread).min()
        near.add(mean.tobytes())
    assert len(near) == 3


def test_the_classifier_is_fitted_to_the_support_and_its_samples(classes):
    learner, episode = make(classes, calibration_samples=6), make_episode(shot=2)
    support, labels = episode.support_inputs, episode.support_labels
    tasks, way, shot, _ = support.shape
    samples = learner.sample(tf.reshape(support, [tasks, way * shot, D]), 3)  # 6 / K
    samples = tf.reshape(samples, [tasks, way, shot * 3, D])
    both = tf.concat([support, samples], axis=2)
    known = tf.tile(labels[..., :1], [1, 1, both.shape[2]])
    expected = LinearRegression(logistic, 0.1, 3.0).adapt(both, known).classifier
    found = learner.adapt(support, labels).classifier
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (
        np.abs(
            found - LinearRegression(logistic, 0.1, 3.0).adapt(*episode[:2])[0]
        ).max()
        > 0.1
    )


def test_too_few_training_classes_and_too_large_covariances_are_refused(
    table, classes, monkeypatch
):
    make(classes, calibration_classes=5)
    with pytest.raises(FlagError, match=r"^--calibration_classes: expected at most 5"):
        make(classes, calibration_classes=6)
    with pytest.raises(FlagError, match="statistics of the training classes"):
        make(None)
    same = classes._replace(centres=np.zeros([0, 0]), scatter=np.zeros([0, 0]))
    for limit in ("_MOST_SCATTER", "_MOST_NUMBERS"):
        with monkeypatch.context() as patch, pytest.raises(InputError) as caught:
            patch.setattr(transform_fitting, limit, 7 * D - 1)
            transform_fitting.with_classes(same, table)
        assert "received 5 of 7 x 7. --feature_transform=lda" in str(caught.value)


def test_what_is_kept_is_read_as_it_was(tmp_path):
    known, path = training_classes(), tmp_path / "transform.npz"
    path.write_bytes(transforms.save(known))
    read = transforms.load(path, known.digest)
    for mine, its in zip(read, known):
        np.testing.assert_array_equal(mine, its)
