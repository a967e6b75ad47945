"""Distribution calibration: few examples borrow the scatter of training classes.

Shapes: B tasks in the meta-batch, N way, K shot, S = N * K support examples of a task,
D embedding size, C training classes, k nearest of them, M samples of an example, R rows
of a class whose outer products sum to its covariance.
"""

import math

import tensorflow as tf

from leo_tf.configs.settings import MethodConfig
from leo_tf.errors import FlagError
from leo_tf.methods.inductive.linear import LinearRegression, logistic
from leo_tf.methods.transforms import Transform
from leo_tf.model.noise import normals

_SEED = 0


class DistributionCalibration(LinearRegression):
    """Logistic regression on the support and samples of calibrated Gaussians.

    The Gaussian of an example depends on the k training classes with the nearest means.
    Its covariance is the mean of theirs. Its mean is the mean of their means and of the
    example.

    A covariance is a sum of outer products of R rows, so a sample of a mean of
    covariances is a sum of samples of each. This is exact, and no matrix is factorised.
    All examples get the same draws in every run, so an answer depends on the support
    only, not on its order or on other tasks.

    Args:
      config: k, M * K, alpha, strength of the penalty and factor of the scores.
      classes: transform with means and covariances of the training classes.
      dtype: dtype of the features.

    Raises:
      FlagError: if there are fewer than k training classes.

    Source: Yang et al., 2021 (arXiv:2101.06395), equations 4 to 8. Alpha is added to
    variances alone, in units of their mean: the authors' code adds it to every entry of
    a covariance, which depends on how the features happen to be turned. Their power
    transform applies to new classes only; `--feature_power` applies to all.
    """

    takes_memory = True

    def __init__(self, config: MethodConfig, classes: Transform, dtype: str):
        strength, scale = config.logistic_strength, config.score_scale
        super().__init__(logistic, strength, scale)
        count, size = classes.centres.shape  # C, D
        if config.calibration_classes > count:
            expected = f"at most {count}, the number of training classes"
            received = f"{config.calibration_classes}"
            raise FlagError("--calibration_classes", expected, received)
        self.nearest = config.calibration_classes
        self.samples = config.calibration_samples
        rows = classes.scatter.reshape([count, -1, size])  # [C, R, D]
        self.centres = tf.Variable(classes.centres, False, dtype=dtype, name="centres")
        self.rows = tf.Variable(rows, False, dtype=dtype, name="rows")
        shapes = [self.samples, self.nearest * self.rows.shape[1]], [self.samples, size]
        drawn, more = normals(_SEED, shapes, dtype)
        variance = (classes.scatter**2).sum() / (count * size)
        self.drawn = drawn / math.sqrt(self.nearest)
        self.more = more * math.sqrt(config.calibration_alpha * variance)

    @property
    def variables(self) -> list[tf.Variable]:
        """Tensors that an export stores besides the graph."""
        return [self.centres, self.rows]

    def calibrated(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns means [B, S, D] and rows [B, S, k, R, D] of examples' Gaussians."""
        squares = tf.reduce_sum(self.centres**2, axis=-1)  # [C]
        products = tf.tensordot(inputs, self.centres, [[-1], [-1]])  # [B, S, C]
        near = tf.math.top_k(2 * products - squares, self.nearest).indices
        total = tf.reduce_sum(tf.gather(self.centres, near), axis=-2) + inputs
        return total / (self.nearest + 1), tf.gather(self.rows, near)

    def sample(self, inputs: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Returns M = `count` samples of each example's Gaussian: [B, S, M, D]."""
        means, rows = self.calibrated(inputs)
        shape = tf.concat([tf.shape(inputs)[:-1], [-1, inputs.shape[-1]]], axis=0)
        apart = tf.matmul(self.drawn[:count], tf.reshape(rows, shape))  # [B, S, M, D]
        return means[..., tf.newaxis, :] + apart + self.more[:count]

    def _classifier(self, inputs, labels, way):
        number = inputs.shape[1] or tf.shape(inputs)[1]  # S
        count = self.samples * way // number  # M; for uneven supports, of the mean shot
        count = max(1, count) if isinstance(count, int) else tf.maximum(1, count)
        samples = tf.reshape(
            self.sample(inputs, count), [-1, number * count, inputs.shape[-1]]
        )
        inputs = tf.concat([inputs, samples], axis=1)  # [B, S * (1 + M), D]
        labels = tf.concat([labels, tf.repeat(labels, count, axis=1)], axis=1)
        return super()._classifier(inputs, labels, way)
