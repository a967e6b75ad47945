"""Every random draw of one meta-step, made at once and handed to the model.

The model itself draws nothing: it is a function of its inputs, its variables and a
`Noise`. So a step can be replayed, a recorded draw can be given instead of a fresh
one, and the draws can be made outside of a compiled region, few and wide.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import math
from typing import NamedTuple

import tensorflow as tf

# What a step draws, one stateless seed for each.
_SITES = _NORMALS, _BITS = range(2)


class Noise(NamedTuple):
    """The draws of LEO for one meta-batch; None wherever nothing is drawn.

    Attributes:
      latents: [B, N, K, Z] standard normal, for z.
      weights: U + 1 tensors [B, N, K, D], standard normal: one for each decode, as
        the classifier is drawn afresh every time.
      encoder_bits: [B, N, K, D] uint32, uniform: the encoder's dropout mask is where
        they reach the rate's share of 2**32 (see `dropout`).
      support_bits: U + F + 1 tensors [B, N, K, D] uint32, one for each evaluation of
        the support loss: U + 1 after the decodes, F after the fine-tuning steps.
      query_bits: [B, N, Q, D] uint32, for the query loss.
    """

    latents: tf.Tensor | None
    weights: tuple[tf.Tensor | None, ...]
    encoder_bits: tf.Tensor | None
    support_bits: tuple[tf.Tensor | None, ...]
    query_bits: tf.Tensor | None


def no_noise(latent_steps: int, finetuning_steps: int) -> Noise:
    """The `Noise` under which LEO is deterministic: means, and no dropout."""
    return Noise(
        latents=None,
        weights=(None,) * (latent_steps + 1),
        encoder_bits=None,
        support_bits=(None,) * (latent_steps + finetuning_steps + 1),
        query_bits=None,
    )


def draw(
    support_shape: list[int],
    query_shape: list[int],
    num_latents: int,
    latent_steps: int,
    finetuning_steps: int,
    *,
    seed,
    step,
    dtype,
    masks: bool = True,
) -> Noise:
    """All LEO draws in one training step, a pure function of (seed, step).

    Args:
      support_shape: [B, N, K, D], static.
      query_shape: [B, N, Q, D], static.
      num_latents: Z.
      latent_steps: U.
      finetuning_steps: F.
      seed: of the run; integer or scalar tensor, not negative.
      step: number of the meta-step; likewise.
      dtype: of the normal draws.
      masks: whether to draw the bits of the dropout masks, too.

    Returns:
      `Noise`. Eager and graph mode draw the same.
    """
    support, query = list(support_shape), list(query_shape)
    latents, *weights = _normals(
        [[*support[:-1], num_latents]] + [support] * (latent_steps + 1),
        _key(seed, step, _NORMALS),
        dtype,
    )
    noise = no_noise(latent_steps, finetuning_steps)
    noise = noise._replace(latents=latents, weights=tuple(weights))
    if not masks:
        return noise
    encoder_bits, query_bits, *support_bits = _bits(
        [support, query] + [support] * len(noise.support_bits),
        _key(seed, step, _BITS),
    )
    return noise._replace(
        encoder_bits=encoder_bits,
        query_bits=query_bits,
        support_bits=tuple(support_bits),
    )


def dropout(inputs: tf.Tensor, bits: tf.Tensor | None, rate: float) -> tf.Tensor:
    """Zeroes a share `rate` of `inputs` and scales up the rest; no bits, no dropout.

    Args:
      inputs: any shape.
      bits: uint32 of the same shape, uniform over all 2**32 values.
      rate: probability that an entry is dropped, 0 <= rate < 1.

    Returns:
      Same shape: inputs / (1 - rate) where kept, else 0.
    """
    if bits is None:
        return inputs
    # The largest rates below 1 would round to 2**32, which wraps to 0: nothing dropped.
    threshold = tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)
    keep = tf.cast(bits >= threshold, inputs.dtype)
    return inputs * (keep / (1.0 - rate))


def _key(seed, step, site: int) -> tf.Tensor:
    # Negative, as no other pair of a seed and a number is. TensorFlow hashes the pair
    # into Philox's key; the sampler's key is the bare seed.
    first = -1 - tf.cast(seed, tf.int64)
    second = tf.cast(step, tf.int64) * len(_SITES) + site
    return tf.stack([first, second])


def _normals(shapes, key, dtype) -> list[tf.Tensor]:
    size = sum(math.prod(shape) for shape in shapes)
    drawn = tf.random.stateless_normal([size], key, dtype=dtype, alg="philox")
    return _shared_out(drawn, shapes)


def _bits(shapes, key) -> list[tf.Tensor]:
    size = sum(math.prod(shape) for shape in shapes)
    drawn = tf.random.stateless_uniform(
        [size], key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return _shared_out(drawn, shapes)


def _shared_out(drawn: tf.Tensor, shapes: list[list[int]]) -> list[tf.Tensor]:
    parts = tf.split(drawn, [math.prod(shape) for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
