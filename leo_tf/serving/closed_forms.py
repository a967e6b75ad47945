"""Classifiers computed from a support set alone, without training or an export.

They have the signatures of an exported model, in NumPy and float64. Rows are first
scaled to length 1, as everywhere here.

Shapes: S support examples, M queries, N classes, D features, P = D + 1 weights and bias
of a class.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_tf.errors import refused

# Scale of the logits, which changes confidence, not answers: cosines alone are small.
_SCALE = 10.0
_STRENGTH = 1.0  # of ridge regression's penalty
# Squared distance of rows of length 1 to their mean below which they count as equal.
_NO_SCATTER = 1e-12
# Rows whose differences are equal have none, or by rounding less. Without any,
# directions in which classes differ but no class scatters would count as nothing.
_LEAST_SHRINKAGE = 1e-4


def centroid(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits nearest centroid by cosine (Snell et al., arXiv:1703.05175).

    Args:
      rows: [S, D] of length 1.
      labels: [S], 0 to N - 1.

    Returns:
      A classifier [N, P], like all functions in `CLOSED_FORMS`.
    """
    return _with_bias(_SCALE * _unit(_means(rows, labels)), 0.0)


def ridge(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits least squares onto one-hot labels, with a penalty of 1 and a free bias."""
    centre, targets = rows.mean(axis=0), np.eye(labels.max() + 1)[labels]
    x, y = rows - centre, targets - targets.mean(axis=0)
    gram = x @ x.T + _STRENGTH * np.eye(len(x))  # [S, S]
    weights = (x.T @ np.linalg.solve(gram, y)).T  # [N, D]
    bias = targets.mean(axis=0) - weights @ centre
    return _SCALE * _with_bias(weights, bias[:, np.newaxis])


def lda(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits linear discriminant analysis of equally likely classes.

    The covariance within classes is that of the support around the class means, with
    the shrinkage of Ledoit and Wolf (2004). With one example per class, or equal ones,
    there is no scatter, and the answer is the nearest mean.
    """
    means = _means(rows, labels)  # [N, D]
    apart = rows - means[labels]
    shrinkage, level = _ledoit_wolf(apart)
    if level * apart.shape[1] < _NO_SCATTER:
        return _with_bias(_SCALE * means, -_SCALE / 2)  # means of length 1
    # ((1 - a) X'X / S + a l I)^-1 means, solved with S equations instead of D.
    ball, part = shrinkage * level, (1 - shrinkage) / len(apart)
    inner = ball * np.eye(len(apart)) + part * apart @ apart.T  # [S, S]
    across = part * np.linalg.solve(inner, apart @ means.T)  # [S, N]
    weights = (means - across.T @ apart) / ball
    bias = -0.5 * np.sum(weights * means, axis=1, keepdims=True)
    return _with_bias(weights, bias)


def _ledoit_wolf(x: np.ndarray) -> tuple[float, float]:
    """Returns the shrinkage a, up to 1, and the mean variance l, for centred x [S, D].

    Source: Ledoit and Wolf, 2004, "A well-conditioned estimator for large-dimensional
    covariance matrices"; as scikit-learn's `ledoit_wolf`.
    """
    count, size = x.shape
    squares = np.sum(x**2, axis=1)
    level = squares.sum() / (count * size)
    norm = np.sum((x @ x.T) ** 2) / count**2  # of the covariance, squared
    apart = norm / size - level**2
    error = (np.sum(squares**2) / count - norm) / (count * size)
    shrinkage = min(error, apart) / apart if apart > 0 else 1.0
    return max(_LEAST_SHRINKAGE, shrinkage), level


class ClosedForm:
    """A closed form as the model of a `Classifier`."""

    def __init__(self, name: str):
        self._fit = CLOSED_FORMS[name]
        self._known = {"model": np.array([*CLOSED_FORMS].index(name))}

    def __call__(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs of "adapt" or "predict", like an export.

        Raises:
          RequestError: if there is one class only, or a row is zero or non-finite.
        """
        if signature == "predict":
            queries = _checked(inputs, "queries")
            return _answers(inputs["classifier"], queries) | self._known
        rows, labels = _checked(inputs, "support"), inputs["labels"]
        if labels.max() < 1:
            raise refused("labels", "at least 2 classes", labels.max() + 1)
        classifier = self._fit(rows, labels)
        logits = _answers(classifier, rows)["logits"]
        likely = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        losses = -np.take_along_axis(likely, labels[:, np.newaxis], axis=1)
        right = logits.argmax(axis=1) == labels
        return {
            "classifier": classifier,
            "support_loss": losses.mean(),
            "support_accuracy": right.mean(),
            **self._known,
        }


CLOSED_FORMS = {"centroid": centroid, "ridge": ridge, "lda": lda}


def _answers(classifier: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    logits = rows @ classifier[:, :-1].T.astype(np.float64) + classifier[:, -1]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    floats = {"probabilities": shares, "logits": logits}
    found = {name: values.astype(np.float32) for name, values in floats.items()}
    return {**found, "classes": logits.argmax(axis=1)}


def _checked(inputs: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns [rows, D] of length 1, in float64."""
    rows = np.asarray(inputs[name], np.float64)
    for bad, expected, received in (
        (~np.isfinite(rows).all(axis=1), "finite numbers", "NaN or infinity"),
        (~rows.any(axis=1), "rows of a length above 0", "length 0"),
    ):
        if bad.any():
            raise refused(name, expected, f"{received} in row {bad.argmax()}")
    return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float64).tiny)


def _means(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    members = np.eye(labels.max() + 1)[labels]  # [S, N]
    return members.T @ rows / members.sum(axis=0)[:, np.newaxis]


def _with_bias(weights: np.ndarray, bias: Any) -> np.ndarray:
    column = np.broadcast_to(bias, [len(weights), 1])
    return np.concatenate([weights, column], axis=1)
