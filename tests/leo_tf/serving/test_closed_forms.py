"""Closed forms such as `Classifier("lda")`, against scikit-learn and training code."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from served_models import clusters, write_model
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from leo_tf.methods.inductive import linear
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.serving import Classifier, closed_forms
from leo_tf.serving.closed_forms import CLOSED_FORMS

NAMES = tuple(CLOSED_FORMS)


def examples(size, shots=(4, 2, 5), seed=0):
    """Returns rows of length 1 with uneven scatter, and their classes."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(shots)), shots)
    centres = random.normal(size=(len(shots), size))
    noise = random.normal(size=(len(labels), size)) * random.uniform(0.1, 3, size)
    rows = centres[labels] + noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


@pytest.mark.parametrize("size", [3, 40])
def test_lda_is_scikit_learns_with_the_shrinkage_of_ledoit_and_wolf(size):
    rows, labels = examples(size)
    means = np.stack([rows[labels == k].mean(axis=0) for k in range(3)])
    covariance, shrinkage = ledoit_wolf(rows - means[labels], assume_centered=True)
    assert 0 < shrinkage <= 1

    class Estimator:
        def fit(self, x):
            self.covariance_ = covariance
            return self

    theirs = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Estimator(), priors=[1 / 3] * 3
    ).fit(rows, labels)
    queries = examples(size, seed=1)[0]
    expected = theirs.decision_function(queries)
    found = Classifier("lda").fit(rows, labels).decision_function(queries)
    for each in (found, expected):
        each -= each.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_without_shrinkage_lda_is_scikit_learns_too(monkeypatch):
    monkeypatch.setattr(closed_forms, "_ledoit_wolf", lambda x: (1e-7, 1.0))
    rows, labels = examples(3, shots=(25, 25))  # equal sizes, which it weights by
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(rows, labels)
    found = Classifier("lda").fit(rows, labels).predict_proba(rows)
    np.testing.assert_allclose(found, theirs.predict_proba(rows), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("centroid", NearestCentroid("cosine", scale=10.0)),
        ("ridge", linear.LinearRegression(linear.ridge, 1.0, scale=10.0)),
    ],
)
def test_the_answers_are_those_of_the_training_code(name, learner):
    rows, labels = examples(12)
    queries = examples(12, seed=1)[0]
    adapted = learner.adapt_uneven(tf.constant(rows), tf.constant(labels), 3)
    logits = learner.logits(adapted.classifier[tf.newaxis], queries[np.newaxis])[0]
    found = Classifier(name).fit(7 * rows, labels).decision_function(0.2 * queries)
    np.testing.assert_allclose(found, logits, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_classifier_like_any_other(name, tmp_path):
    support, labels = clusters(4, 3)
    names = np.array(list("wxyz"))[labels]
    classifier = Classifier(name).fit(support, names)
    assert classifier.score(support, names) == classifier.support_accuracy_ == 1.0
    probabilities = classifier.predict_proba(support)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    assert classifier.support_loss_ == pytest.approx(losses.mean(), rel=1e-4)
    classifier.save(tmp_path / "c.npz")
    loaded = Classifier.load(tmp_path / "c.npz", name)
    np.testing.assert_array_equal(loaded.predict(support), names)
    assert set(classifier.remove_class("x").predict(support)) <= set("wyz")
    more, _ = clusters(1, 2, seed=5)
    assert "new" in classifier.partial_fit(more, ["new", "new"]).predict(more)


@pytest.mark.parametrize("name", NAMES)
def test_one_example_a_class_is_enough_and_one_class_is_not(name):
    support, labels = clusters(3, 1)
    classifier = Classifier(name).fit(support, labels)
    assert classifier.predict(support).tolist() == labels.tolist()
    with pytest.raises(ValueError, match=r"^labels: expected at least 2 classes, rec"):
        Classifier(name).fit(support, [1, 1, 1])
    for bad, said in ((0.0, "length 0 in row 1"), (np.nan, "NaN or infinity in row 1")):
        wrong = support.copy()
        wrong[1] = bad
        with pytest.raises(ValueError, match=f"^support: expected .*{said}"):
            Classifier(name).fit(wrong, labels)
        with pytest.raises(ValueError, match=f"^queries: expected .*{said}"):
            classifier.predict(wrong)


def test_of_equal_examples_lda_is_the_nearest_mean():
    rows, _ = examples(32, shots=(1, 1, 1))
    several, labels = np.repeat(rows, 5, axis=0), np.repeat([0, 1, 2], 5)
    queries = examples(32, shots=(40, 40, 40), seed=1)[0]
    found = Classifier("lda").fit(several, labels)
    np.testing.assert_array_equal(
        found.predict(queries),
        Classifier("centroid").fit(rows, [0, 1, 2]).predict(queries),
    )
    assert np.abs(found.decision_function(queries)).max() < 20


@pytest.mark.parametrize("size", [2, 3, 5, 16])
@pytest.mark.parametrize("seed", range(3))
def test_lda_answers_right_where_differences_are_equal_and_need_no_shrinkage(
    size, seed
):
    """Two examples a class, whose difference is the same in both classes."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.normal(size=[size, min(size, 3)]))[0].T
    centres = np.cos(0.3) * np.stack([axes[1], -axes[1] if size == 2 else axes[2]])
    rows = np.concatenate([centres + np.sin(0.3) * s * axes[0] for s in (1, -1)])
    labels, queries = np.array([0, 1, 0, 1]), centres + 0.5 * axes[0]
    found = Classifier("lda").fit(rows, labels)
    assert found.support_accuracy_ == 1.0
    assert found.predict(queries).tolist() == [0, 1]
    assert np.abs(found.classifier_).max() < 1e7


def test_a_directory_of_that_name_is_a_model_as_before(tmp_path, monkeypatch):
    write_model(tmp_path / "ridge" / "1", scale=3.0)
    monkeypatch.chdir(tmp_path)
    support, labels = clusters(3, 2)
    found = Classifier("ridge").fit(support, labels).classifier_
    model = Classifier(tmp_path / "ridge").fit(support, labels).classifier_
    np.testing.assert_array_equal(found, model)


def test_no_tensorflow_is_loaded_for_it():
    code = "import sys\nfrom leo_tf.serving import Classifier\n"
    code += "Classifier('lda').fit([[1.0, 0], [0, 1.0]], [0, 1]).predict([[1.0, 1]])\n"
    code += "print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
