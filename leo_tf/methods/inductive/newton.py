"""Newton's method with conjugate gradients for many softmax regressions at once.

The Hessian is never formed: with all classes in it, it has (R * N)^2 entries. Its
product with a vector takes two small matrix products.

Shapes: B tasks, S examples of a task, N classes, R features.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

# Far more than needed. The loops end when every task has converged.
_MOST_STEPS, _MOST_CG_STEPS = 50, 200
# Step lengths to try, longest first. The best is taken.
_LENGTHS = [4.0**-i for i in range(6)]


def newton(features: tf.Tensor, targets: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    """Minimises the sum of cross-entropies + the sum of penalty / 2 * weights^2.

    Args:
      features: [B, S, R].
      targets: [B, S, N], one-hot.
      penalty: [R, 1], above 0, but 0 where a feature is free: it must be constant.

    Returns:
      [B, R, N] weights. Those of a free feature sum to 0 over classes.

    Source: Nocedal and Wright, Numerical Optimization, algorithm 7.1.
    """
    # Newton doubles the right digits with each step, so this costs a step or two more
    # than a loose threshold; a tighter one, rounding would never let it reach.
    epsilon = float(np.finfo(features.dtype.as_numpy_dtype).eps)
    tolerance = epsilon ** (2 / 3)

    def objective(scores, weights):  # [..., B, S, N], [..., B, R, N] -> [..., B]
        right = tf.reduce_sum(targets * scores, axis=-1)
        losses = tf.reduce_logsumexp(scores, axis=-1) - right
        squares = tf.reduce_sum(penalty * weights**2, axis=[-2, -1])
        return tf.reduce_sum(losses, axis=-1) + squares / 2

    def gradient(weights, shares):
        errors = shares - targets
        slope = tf.matmul(features, errors, transpose_a=True) + penalty * weights
        # It must sum to exactly 0 over classes, where there is no curvature.
        return slope - tf.reduce_mean(slope, axis=-1, keepdims=True)

    def is_running(step, unused_weights, slope):
        return tf.reduce_any(_norm(slope) > tolerance)

    def advance(step, weights, slope):
        scores = tf.matmul(features, weights)  # [B, S, N]
        shares = tf.nn.softmax(scores)

        def curvature(direction):  # the Hessian's product with [B, R, N]
            change = tf.matmul(features, direction)
            mean = tf.reduce_sum(shares * change, axis=-1, keepdims=True)
            bent = tf.matmul(features, shares * (change - mean), transpose_a=True)
            return bent + penalty * direction

        direction = conjugate_gradients(curvature, -slope, tolerance)
        lengths = tf.reshape(tf.constant(_LENGTHS, weights.dtype), [-1, 1, 1, 1])
        candidates = weights + lengths * direction  # [T, B, R, N]
        changed = scores + lengths * tf.matmul(features, direction)
        values = objective(changed, candidates)  # [T, B]
        # The longest of those equal to the best within the rounding of S summands.
        rounding = epsilon * tf.cast(tf.shape(features)[1], features.dtype)
        least = tf.reduce_min(values, axis=0)
        is_best = values <= (1 + 10 * epsilon) * least + rounding
        best = tf.argmax(tf.cast(is_best, tf.int32), axis=0)  # [B], the first
        length = tf.gather(lengths[:, 0], best)  # [B, 1, 1]
        weights += length * direction
        shares = tf.nn.softmax(tf.matmul(features, weights))
        return step + 1, weights, gradient(weights, shares)

    start = tf.zeros_like(tf.matmul(features, targets, transpose_a=True))
    shares = tf.ones_like(targets) / tf.cast(tf.shape(targets)[-1], targets.dtype)
    state = 0, start, gradient(start, shares)
    return tf.while_loop(is_running, advance, state, maximum_iterations=_MOST_STEPS)[1]


def conjugate_gradients(
    product: Callable[[tf.Tensor], tf.Tensor], right: tf.Tensor, tolerance: float
) -> tf.Tensor:
    """Solves `product(x) = right` for each task, more exactly where `right` is small.

    All are [B, R, N]. `product` is linear, symmetric and positive; residuals well below
    `tolerance` are never asked for.
    """
    size = _norm(right)  # [B, 1, 1]
    enough = tf.maximum(size * tf.minimum(tf.sqrt(size), 0.1), tolerance / 10)

    def is_running(step, unused_solution, residual, unused_direction):
        return tf.reduce_any(_norm(residual) > enough)

    def advance(step, solution, residual, direction):
        image = product(direction)
        energy = _inner(direction, image)
        square = _inner(residual, residual)
        # A task that has converged stays where it is.
        length = tf.math.divide_no_nan(square, energy)
        length = tf.where(_norm(residual) > enough, length, 0.0)
        solution += length * direction
        residual -= length * image
        ratio = tf.math.divide_no_nan(_inner(residual, residual), square)
        return step + 1, solution, residual, residual + ratio * direction

    state = 0, tf.zeros_like(right), right, right
    most = _MOST_CG_STEPS
    return tf.while_loop(is_running, advance, state, maximum_iterations=most)[1]


def _inner(left, right):
    return tf.reduce_sum(left * right, axis=[-2, -1], keepdims=True)  # [B, 1, 1]


def _norm(values):
    return tf.sqrt(_inner(values, values))
