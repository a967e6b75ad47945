"""Fits scikit-learn's classifiers on the host, in worker processes.

It imports no TensorFlow: workers import it, and the command line.

Shapes: B tasks, N way, S support examples and M queries of a task, D embedding size.
"""

import importlib
import importlib.util
import json
import warnings
from typing import Any

import numpy as np

from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.methods.method import Method

# Lower bound of probabilities, so that their logarithms are finite.
_LEAST_SHARE = 1e-12
_SETTING = "sklearn_parameters"
# Exceptions of other packages' classes for inputs they do not support.
_REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


def method_for(name: str, where: str) -> Method:
    """Returns the method of a class such as sklearn.svm.SVC.

    Raises:
      FlagError: beginning with `where`, if there is no such class, it is not a
        classifier, or scikit-learn is not installed.
    """
    kind = _class_of(name, where)

    def make(config, embedding_size):
        from leo_tf.methods.query_aware.scikit import ScikitLearn

        estimator = _estimator(kind, config)
        _try(estimator, config, embedding_size)
        return ScikitLearn(estimator, config.methods.score_scale)

    return Method(
        f"{kind.__name__} (scikit-learn)",
        f"the classifier {name}, fitted to the support alone",
        make,
        is_trained=False,
        query_aware=True,
        chosen=("score_scale",),
        settings=(_SETTING,),
        ranges={},
    )


def answer_all(
    estimator: Any,
    support: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    way: int,
) -> np.ndarray:
    """Returns logits [B, M, N] of queries [B, M, D], with one estimator per task.

    Args:
      estimator: it is copied, and stays as it is.
      support: [B, S, D].
      labels: [B, S].
      queries: [B, M, D].
      way: N.
    """
    # The pool does not fork, which TensorFlow requires. One processor needs no pool.
    from joblib import Parallel, delayed

    tasks = zip(support, labels, queries)
    jobs = (delayed(answer_one)(estimator, *task, way) for task in tasks)
    return np.stack(Parallel(n_jobs=-1)(jobs)).astype(queries.dtype)


def answer_one(
    estimator: Any,
    support: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    way: int,
) -> np.ndarray:
    """Returns [M, N] log-probabilities, or else decision values, of one task.

    Two classes have one decision: half of it, and minus half.
    """
    from sklearn.base import clone

    fitted = clone(estimator).fit(support, labels)
    if hasattr(fitted, "predict_proba"):
        found = np.log(np.clip(fitted.predict_proba(queries), _LEAST_SHARE, 1.0))
    else:
        found = np.asarray(fitted.decision_function(queries))
        if found.ndim == 1:
            found = found[:, np.newaxis] * [-0.5, 0.5]
    logits = np.full([len(queries), way], np.log(_LEAST_SHARE))
    logits[:, fitted.classes_] = found
    return logits


def _class_of(name: str, where: str) -> Any:
    if importlib.util.find_spec("sklearn") is None:
        hint = "pip install 'leo-tf[sklearn]' installs it."
        raise FlagError(where, "scikit-learn", "no such package", hint)
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        expected = "a class to import, such as sklearn:sklearn.svm.SVC"
        raise FlagError(where, expected, str(error)) from error
    scores = ("predict_proba", "decision_function")
    is_one = isinstance(found, type) and hasattr(found, "fit")
    if not is_one or not any(hasattr(found, each) for each in scores):
        expected = "a classifier with `fit`, and `predict_proba` or `decision_function`"
        raise FlagError(where, expected, f"{attribute}, which is not a classifier")
    return found


def _estimator(kind: Any, config: Config) -> Any:
    """Returns an estimator with the configured parameters and, if used, the seed."""
    given = json.loads(config.methods.sklearn_parameters or "{}")
    try:
        estimator = kind(**given)
        names = estimator.get_params()
    except _REFUSALS as error:
        expected = f"parameters of {kind.__name__}"
        raise FlagError(f"--{_SETTING}", expected, str(error)) from error
    if names.get("decision_function_shape") == "ovo":
        # Three classes have three pairs, so these would be mistaken for scores.
        expected = "scores of classes, not of pairs of them"
        raise FlagError(f"--{_SETTING}", expected, "decision_function_shape ovo")
    if "random_state" in names and "random_state" not in given:
        estimator.set_params(random_state=config.run.seed)
    return estimator


def _try(estimator: Any, config: Config, embedding_size: int) -> None:
    """Fits the estimator to random features, to see that it works.

    Raises a FlagError if it does not: a run would fail midway.
    """
    episodes, random = config.episodes, np.random.default_rng(0)
    labels = np.repeat(np.arange(episodes.evaluation_way), episodes.evaluation_shot)
    rows = random.normal(size=[2, len(labels), embedding_size])
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    support, queries = rows.astype(config.data.dtype)
    name, way = type(estimator).__name__, episodes.evaluation_way
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the random features
            logits = answer_one(estimator, support, labels, queries, way)
    except _REFUSALS as error:
        shape = f"{episodes.evaluation_way}-way {episodes.evaluation_shot}-shot"
        expected = f"parameters with which {name} can be fitted to a {shape} support"
        raise FlagError(f"--{_SETTING}", expected, str(error)) from error
    if not np.all(np.isfinite(logits)):
        expected = f"parameters with which {name} gives finite scores"
        raise FlagError(f"--{_SETTING}", expected, "NaN or infinity")
