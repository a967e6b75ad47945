"""Classifiers of scikit-learn as methods: answers, parameters, refusals, whole runs.

Shapes: B tasks, N way, S support examples and M queries of a task, D embedding size.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from saved_runs import results_of
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from tiny_cases import D, N, make_episode

from leo_tf.cli import main as command_line
from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.methods.query_aware import estimators
from leo_tf.methods.registry import build, is_known, method_named
from leo_tf.model.learner import adapt_and_score

pytestmark = pytest.mark.long

SVC_NAME, LOGISTIC = "sklearn:sklearn.svm.SVC", "sklearn:sklearn.linear_model."
LOGISTIC += "LogisticRegression"


def configure(name, **settings):
    settings = {"way": N, "shot": 2, "score_scale": 1.0, **settings}
    return Config().replace(method=name, **settings)


def answered(name, episode, **settings):
    """[B, N, Q, N]"""
    learner = build(configure(name, **settings), D)
    return adapt_and_score(learner, episode)[1].numpy()


def tasks_of(episode):
    """(support [S, D], labels [S], queries [M, D]) of each task."""
    for support, labels, queries in zip(*episode[:3]):
        flat = (np.reshape(x, [-1, D]) for x in (support, queries))
        support, queries = flat
        yield support, np.ravel(labels), queries


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_are_those_of_calling_scikit_learn(dtype):
    episode = make_episode(dtype=dtype)
    logits = answered(LOGISTIC, episode, sklearn_parameters='{"C": 3.0}', dtype=dtype)
    assert logits.dtype == dtype
    for mine, (support, labels, queries) in zip(logits, tasks_of(episode)):
        model = LogisticRegression(C=3.0, random_state=0).fit(support, labels)
        expected = np.log(model.predict_proba(queries))
        np.testing.assert_allclose(mine.reshape([-1, N]), expected, rtol=1e-5)


@pytest.mark.parametrize("way", [2, 3])
def test_without_probabilities_scores_are_the_decision_function(way):
    episode = make_episode(way=way)
    logits = answered(SVC_NAME, episode, way=way, score_scale=2.0)
    for mine, (support, labels, queries) in zip(logits, tasks_of(episode)):
        model = SVC(random_state=0).fit(support, labels)
        expected = 2.0 * model.decision_function(queries)
        mine = mine.reshape([-1, way])
        classes = model.classes_[np.argmax(mine, axis=1)]
        np.testing.assert_array_equal(classes, model.predict(queries))
        if way == 2:
            np.testing.assert_allclose(mine.sum(axis=1), 0, atol=1e-12)
            mine = mine[:, 1] - mine[:, 0]
        np.testing.assert_allclose(mine, expected, rtol=1e-9)


class Backwards(ClassifierMixin, BaseEstimator):
    """Keeps its classes from the last to the first."""

    def __init__(self, random_state=None, sharpness=5.0):
        self.random_state, self.sharpness = random_state, sharpness

    def fit(self, rows, labels):
        self.classes_ = np.unique(labels)[::-1]
        self.means_ = np.stack([rows[labels == n].mean(axis=0) for n in self.classes_])
        return self

    def predict_proba(self, rows):
        scores = np.exp(self.sharpness * rows @ self.means_.T)
        return scores / scores.sum(axis=1, keepdims=True)


def test_columns_are_in_the_order_of_labels_whatever_the_estimators_is():
    [(support, labels, queries)] = tasks_of(make_episode(tasks=1))
    logits = estimators.answer_one(Backwards(), support, labels, queries, N)
    means = np.stack([support[labels == n].mean(axis=0) for n in range(N)])
    scores = 5.0 * queries @ means.T
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(logits, expected, rtol=1e-9)
    some = labels < 2  # a class without examples is never the answer
    logits = estimators.answer_one(Backwards(), support[some], labels[some], queries, N)
    assert np.all(np.isfinite(logits)) and np.all(logits.argmax(axis=1) < 2)


def test_graphs_and_worker_processes_give_the_same(monkeypatch):
    episode, learner = make_episode(), build(configure(SVC_NAME), D)
    once = adapt_and_score(learner, episode)[1]
    import joblib

    class Two(joblib.Parallel):
        def __init__(self, n_jobs):
            assert n_jobs == -1
            super().__init__(n_jobs=2)

    monkeypatch.setattr(joblib, "Parallel", Two)
    graph = tf.function(lambda e: adapt_and_score(learner, e)[1], autograph=False)
    np.testing.assert_array_equal(graph(episode), once)


def test_workers_do_not_load_tensorflow():
    code = "import sys, leo_tf.methods.query_aware.estimators\n"
    code += "print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_the_seed_is_the_random_state_unless_that_is_given():
    def state(**settings):
        return build(configure(SVC_NAME, **settings), D).estimator.random_state

    assert state(seed=7) == 7
    assert state(seed=7, sklearn_parameters='{"random_state": 3}') == 3
    name = "sklearn:sklearn.neighbors.KNeighborsClassifier"  # has none
    build(configure(name, sklearn_parameters='{"n_neighbors": 1}'), D)


def test_the_content_of_the_file_is_in_the_configuration(tmp_path):
    path = tmp_path / "svc.json"
    path.write_text('{\n "kernel": "linear",\n "C": 7\n}')
    config = configure(SVC_NAME, sklearn_parameters=str(path))
    path.write_text('{"C": 1}')
    assert config.methods.sklearn_parameters == '{"C": 7, "kernel": "linear"}'
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    estimator = build(config, D).estimator
    assert (estimator.C, estimator.kernel) == (7, "linear")


def test_what_is_known_of_it():
    method = method_named(SVC_NAME)
    assert method.query_aware and not method.transductive and not method.is_trained
    assert method.title == "SVC (scikit-learn)"
    assert is_known(SVC_NAME) and not is_known("sklearn:a b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sklearn:sklearn.svm.SVM", "has no attribute 'SVM'"),
        ("sklearn:sklearn.nowhere.SVC", "No module named 'sklearn.nowhere'"),
        ("sklearn:SVC", "expected a class to import, such as sklearn:sklearn.svm.SVC"),
        ("sklearn:sklearn.svm.SVR", "expected a classifier with `fit`"),
        ("sklearn:sklearn.base.clone", "received clone, which is not a"),
    ],
)
def test_what_is_no_classifier_is_refused_in_a_line(name, said):
    with pytest.raises(FlagError) as caught:
        method_named(name)
    assert str(caught.value).startswith(f"--method={name}: expected ")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(estimators.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlagError, match=r"pip install 'leo-tf\[sklearn\]'"):
        method_named(SVC_NAME)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ('{"D": 1}', "expected parameters of SVC, received .*unexpected keyword"),
        ('{"C": "much"}', "can be fitted to a 3-way 2-shot support, received The 'C'"),
        ('{"decision_function_shape": "ovo"}', "scores of classes, not of pairs"),
    ],
)
def test_parameters_that_it_does_not_take_are_refused_before_a_run(parameters, said):
    config = configure(SVC_NAME, sklearn_parameters=parameters)
    with pytest.raises(FlagError, match=f"^--sklearn_parameters: .*{said}"):
        build(config, D)


def test_what_cannot_answer_other_queries_than_its_support_is_refused():
    name = "sklearn:sklearn.neighbors.RadiusNeighborsClassifier"
    with pytest.raises(FlagError, match="fitted to a 3-way 2-shot support"):
        build(configure(name, sklearn_parameters='{"radius": 0.01}'), D)


def test_what_cannot_be_fitted_to_so_few_examples_is_refused():
    name = "sklearn:sklearn.neighbors.KNeighborsClassifier"
    build(configure(name, sklearn_parameters='{"n_neighbors": 6}'), D)
    with pytest.raises(FlagError, match="fitted to a 3-way 2-shot support"):
        build(configure(name, sklearn_parameters='{"n_neighbors": 7}'), D)


@pytest.mark.usefixtures("quick_job")
def test_it_is_run_tested_compared_and_not_exported(train, evaluate, tmp_path, capsys):
    path, run = tmp_path / "svc.json", tmp_path / "run"
    path.write_text('{"C": 5.0}')
    flags = f"--method={SVC_NAME}", f"--sklearn_parameters={path}", "--quiet"
    assert train(run, *flags) == 0
    assert results_of(run)["accuracy"][SVC_NAME]["mean"] > 0.4
    assert "score_scale" in (run / "config.json").read_text()
    assert evaluate(run, "--test_shot=2", "--quiet") == 0
    path.write_text('{"C": 6.0}')  # another run
    capsys.readouterr()
    assert train(run, *flags) == 3
    assert "sklearn_parameters" in capsys.readouterr().err
    out = tmp_path / "out"
    export = "--mode=export", f"--workdir={run}", f"--export_dir={out}", "--quiet"
    assert command_line.main(["run_leo.py", *export]) == 2
    said = capsys.readouterr().err
    assert "--mode=export: expected a method that runs in TensorFlow" in said
    assert SVC_NAME in said and not out.exists()
    job, mode = tmp_path / "job", ("--mode=compare", "--jobs=0")
    assert train(job, *mode, f"--methods={SVC_NAME},centroid", "--quiet") == 0
    found = json.loads((job / "results.json").read_text())["methods"]
    assert set(found) == {SVC_NAME, "centroid"}
    assert found[SVC_NAME]["transductive"] is False
