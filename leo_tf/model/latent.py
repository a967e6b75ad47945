"""The distributions of z and w: tfp Normals, their samples and the KL.

How drawn noise enters: a sample is loc + scale * noise with noise from N(0, 1), which
is what `Normal.sample` computes from a draw of its own (reparameterisation). The draw
is given, not made here, so that a step is a function of its seed (see `noise.py`).

This is the only module that imports TensorFlow Probability.
"""

from typing import TypeAlias

import tensorflow as tf
import tensorflow_probability as tfp

Normal: TypeAlias = tfp.distributions.Normal  # others have its name from here
# The release's lower bound of every stddev.
STDDEV_FLOOR = 1e-10


def normal(mean: tf.Tensor, raw: tf.Tensor, offset: float = 0.0) -> Normal:
    """The Normal of a mean and a raw stddev, each entry independent.

    stddev = max(exp(raw) - (1 - offset), 1e-10): at raw = 0 it equals `offset`.

    Args:
      mean: [..., P].
      raw: [..., P], or any shape that `mean` broadcasts to.
      offset: 0 for latents, sqrt(2 / (N + D)) for weights.

    Source: `possibly_sample` in the release's `model.py`.
    """
    stddev = tf.maximum(tf.exp(raw) - (1.0 - offset), STDDEV_FLOOR)
    return Normal(loc=mean, scale=stddev)


def split_normal(parameters: tf.Tensor, offset: float = 0.0) -> Normal:
    """The Normal [..., P] of parameters [..., 2 * P]: P means, then P raw stddevs."""
    mean, raw = tf.split(parameters, 2, axis=-1)  # 2 x [..., P]
    return normal(mean, raw, offset)


def sample_or_mean(distribution: Normal, noise: tf.Tensor | None) -> tf.Tensor:
    """A sample from given standard-normal noise; the mean without noise."""
    if noise is None:
        return distribution.mean()
    return distribution.loc + distribution.scale * noise


def kl_to_standard_normal(distribution: Normal, noise: tf.Tensor) -> tf.Tensor:
    """[..., Z] one-sample estimate of KL(distribution || N(0, 1)), entry by entry.

    log q(z) - log p(z) at z = loc + scale * noise: the noise that z was made of.

    Source: arXiv:1807.05960, equation 6; `kl_divergence` in the release's `model.py`,
    which computes log q(z) from z. We compute it from the noise: the same number, but
    at a stddev of 1e-10 float32 loses the noise in z and the release's KL comes out
    1 to 3 % too high.
    """
    standard = Normal(tf.zeros([], noise.dtype), tf.ones([], noise.dtype))
    log_q = standard.log_prob(noise) - tf.math.log(distribution.scale)
    return log_q - standard.log_prob(sample_or_mean(distribution, noise))


def share_at_floor(distribution: Normal) -> tf.Tensor:
    """[] the share of entries whose stddev sits at its floor: a collapsed posterior."""
    at_floor = distribution.scale <= STDDEV_FLOOR
    return tf.reduce_mean(tf.cast(at_floor, distribution.dtype))
