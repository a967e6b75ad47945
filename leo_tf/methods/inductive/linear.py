"""Ridge and logistic regression on the support set alone, without training.

Shapes: B tasks in the meta-batch, N way, K shot, S = N * K support examples of a task,
D embedding size, R = min(S, D), P = D + 1 weights and bias of a class.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from leo_tf.methods.inductive.newton import newton
from leo_tf.model.learner import Adapted, Learner, UnevenAdapted, without_latents

Number: TypeAlias = float | tf.Tensor
# (inputs [B, S, D], targets [B, S, N], strength) -> classifier [B, N, P]
Fit = Callable[[tf.Tensor, tf.Tensor, Number], tf.Tensor]


class LinearRegression(Learner):
    """A linear classifier fitted to the support set.

    Args:
      fit: `ridge` or `logistic`.
      strength: weight of the penalty; see there.
      scale: factor of all scores; changes confidence, not answers.
    """

    def __init__(self, fit: Fit, strength: Number, scale: Number = 1.0):
        self.fit, self.strength, self.scale = fit, strength, scale

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Returns `Adapted` with classifiers [B, N, P], from inputs [B, N, K, D]."""
        _, way, shot, size = support_inputs.shape
        inputs = tf.reshape(support_inputs, [-1, way * shot, size])  # [B, S, D]
        labels = tf.reshape(support_labels, [-1, way * shot])
        return Adapted(self._classifier(inputs, labels, way))

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        """Does the same from support [S, D] with labels [S]. Examples count alike."""
        classifier = self._classifier(support[tf.newaxis], labels[tf.newaxis], way)
        return without_latents(classifier[0])

    def _classifier(self, inputs, labels, way):
        targets = tf.one_hot(labels, way, dtype=inputs.dtype)  # [B, S, N]
        return self.scale * self.fit(inputs, targets, self.strength)


def ridge(inputs: tf.Tensor, targets: tf.Tensor, strength: Number) -> tf.Tensor:
    """Solves penalised least squares onto one-hot targets in closed form.

    Minimises |Y - X W - b|^2 + strength * |W|^2; the bias is free.

    Args:
      inputs: [B, S, D].
      targets: [B, S, N], 1 for the class of an example, else 0.
      strength: above 0.

    Returns:
      [B, N, P], the minimum.
    """
    centre = tf.reduce_mean(inputs, axis=1, keepdims=True)  # [B, 1, D]
    level = tf.reduce_mean(targets, axis=1, keepdims=True)  # [B, 1, N]
    x, y = inputs - centre, targets - level  # with these the bias is 0

    def dual():
        gram = tf.matmul(x, x, transpose_b=True)  # [B, S, S]
        return tf.matmul(x, _solve_penalised(gram, y, strength), transpose_a=True)

    def primal():
        gram = tf.matmul(x, x, transpose_a=True)  # [B, D, D]
        cross = tf.matmul(x, y, transpose_a=True)
        return _solve_penalised(gram, cross, strength)

    size = inputs.shape[2]
    if inputs.shape[1] is None:  # an uneven support set
        weights = tf.cond(tf.shape(inputs)[1] <= size, dual, primal)  # [B, D, N]
    else:
        weights = dual() if inputs.shape[1] <= size else primal()
    return _joined(weights, level - tf.matmul(centre, weights))


def _solve_penalised(gram, right, strength):
    """Returns (gram + strength * I)^-1 right."""
    penalised = gram + strength * tf.eye(tf.shape(gram)[-1], dtype=gram.dtype)
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(penalised), right)


def logistic(inputs: tf.Tensor, targets: tf.Tensor, strength: Number) -> tf.Tensor:
    """Fits penalised multinomial logistic regression to convergence.

    Minimises the sum of the examples' softmax cross-entropies + strength / 2 * |W|^2;
    the bias is free, and sums to 0 over the classes. scikit-learn's C is 1 / strength.
    Arguments and result are as for `ridge`.
    """
    # Weights at the minimum are sums of examples: R coordinates are enough for them.
    examples, size = inputs.shape[1:]
    is_wide = examples is None or examples < size
    features = inputs
    if is_wide:
        basis, coordinates = tf.linalg.qr(tf.linalg.matrix_transpose(inputs))
        features = tf.linalg.matrix_transpose(coordinates)  # [B, S, R]
    features = tf.pad(features, [[0, 0], [0, 0], [0, 1]], constant_values=1)
    free = tf.zeros_like(features[0, 0, -1:])
    penalty = tf.concat([strength + tf.zeros_like(features[0, 0, :-1]), free], axis=0)
    solution = newton(features, targets, penalty[:, tf.newaxis])  # [B, R + 1, N]
    weights = solution[:, :-1]
    return _joined(tf.matmul(basis, weights) if is_wide else weights, solution[:, -1:])


def _joined(weights, bias):
    """Returns the classifier [B, N, P] of weights [B, D, N] and bias [B, 1, N]."""
    return tf.linalg.matrix_transpose(tf.concat([weights, bias], axis=1))
