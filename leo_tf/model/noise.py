"""Draws all random numbers of one meta-step at once, for the model to use.

The model itself draws nothing: it is a function of its inputs, its variables and a
`Noise`. So a step can be replayed, and a recorded draw can be given instead of a
fresh one.

A step draws up to three million masks and a million normals. TensorFlow's Philox gives
every tensor of them a key; from there a counter is hashed with the key, which XLA
turns into a few vector instructions per number, without a second pass to make masks or
normals of the words. docs/performance.md has the gain in speed, and
tests/leo_tf/model/test_noise.py the statistical tests that the draws pass.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from leo_tf.configs.schema import ModelConfig

# A bijection of the 32-bit words after which every bit of the input has changed every
# bit of the output half of the time: "triple32", found by C. Wellons by search, see
# https://nullprogram.com/blog/2018/07/31/. Where the key goes in is ours: with a round
# fewer, or the second half of the key before the second round, keys that are not alike
# draw runs of the same numbers.
_SHIFTS = 17, 11, 15, 14
_FACTORS = 0xED5AD4BB, 0xAC4C1B51, 0x31848BAB


class Noise(NamedTuple):
    """Random draws of LEO for one meta-batch. None where nothing is drawn.

    Attributes:
      latents: [B, N, K, Z] standard normal, for z.
      weights: U + 1 tensors [B, N, K, D], standard normal: one for each decode, as
        the classifier is drawn afresh every time.
      encoder_mask: [B, N, K, D] bool, the encoder's dropout: True is kept.
      support_masks: U + F + 1 tensors [B, N, K, D] bool, one for each evaluation of
        the support loss: U + 1 after the decodes, F after the fine-tuning steps.
      query_mask: [B, N, Q, D] bool, for the query loss.
    """

    latents: tf.Tensor | None
    weights: tuple[tf.Tensor | None, ...]
    encoder_mask: tf.Tensor | None
    support_masks: tuple[tf.Tensor | None, ...]
    query_mask: tf.Tensor | None


def no_noise(latent_steps: int, finetuning_steps: int) -> Noise:
    """Returns the `Noise` that makes LEO deterministic: means, and no dropout."""
    return Noise(
        latents=None,
        weights=(None,) * (latent_steps + 1),
        encoder_mask=None,
        support_masks=(None,) * (latent_steps + finetuning_steps + 1),
        query_mask=None,
    )


def draw(
    config: ModelConfig,
    support_shape: list[int],
    query_shape: list[int],
    *,
    seed: tf.Tensor,
    step: tf.Tensor,
    dtype: str,
    first_task: int | tf.Tensor = 0,
) -> Noise:
    """Draws all noise of one training step, from (seed, step, tasks) only.

    Each task has draws of its own, whatever meta-batch it is drawn in: those of
    tasks 3 to 5 are the same alone and among tasks 0 to 11.

    Args:
      config: Z, U and F; the share of False in the masks, of which there are none at
        0; and whether to draw masks only (`deterministic`).
      support_shape, query_shape: [B, N, K, D] and [B, N, Q, D], static.
      seed, step: seed of the run, not negative, and number of the meta-step, or below
        0 for the draws of a test; [] or int.
      dtype: dtype of the normal draws.
      first_task: [] or int, number of the first of the B tasks among the step's.

    Returns:
      `Noise`. Eager, graph and compiled mode draw the same.
    """
    support, query = list(support_shape), list(query_shape)
    noise = no_noise(config.inner_unroll_length, config.finetuning_unroll_length)
    drawn_normals = [[*support[:-1], config.num_latents]]
    drawn_normals += [support] * len(noise.weights)
    drawn_masks = [support, query] + [support] * len(noise.support_masks)
    # Keys do not depend on what else is drawn.
    keys = _keys(seed, step, len(drawn_normals) + len(drawn_masks))
    first = tf.cast(first_task, tf.int32)
    if not config.deterministic:
        latents, *weights = _normals(keys, first, drawn_normals, tf.as_dtype(dtype))
        noise = noise._replace(latents=latents, weights=tuple(weights))
    if config.dropout_rate:
        keys = keys[len(drawn_normals) :]
        masks = _masks(keys, first, drawn_masks, config.dropout_rate)
        noise = noise._replace(encoder_mask=masks[0], query_mask=masks[1])
        noise = noise._replace(support_masks=tuple(masks[2:]))
    return noise


def normals(seed: int, shapes: Sequence[Sequence[int]], dtype: str) -> list[tf.Tensor]:
    """Returns standard normals of static shapes, from the seed only."""
    keys = _keys(seed, 0, len(shapes))
    return _normals(keys, tf.constant(0), shapes, tf.as_dtype(dtype))


def dropout(inputs: tf.Tensor, mask: tf.Tensor | None, rate: float) -> tf.Tensor:
    """Returns inputs / (1 - rate) where the mask is True, else 0; inputs without mask.

    The mask is False with probability `rate`, 0 <= rate < 1.
    """
    if mask is None:
        return inputs
    return inputs * (tf.cast(mask, inputs.dtype) / (1.0 - rate))


def _keys(seed, step, count: int) -> tf.Tensor:
    """Returns [count, 2] uint32, one key per tensor that a step may draw."""
    # Negative, as no other pair of a seed and a number is. TensorFlow hashes the pair
    # into Philox's key; the sampler's key is the bare seed.
    pair = tf.stack([-1 - tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform(
        [count, 2], pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )


# Always compiled, whatever the meta-step is: then all modes draw the same numbers, and
# words never go through memory. Apart from the meta-step, as XLA would put the making
# of a number wherever it is used, many times over.
@tf.function(jit_compile=True, autograph=False)
def _normals(keys, first, shapes, dtype) -> list[tf.Tensor]:
    keys_and_shapes = zip(tf.unstack(keys), shapes)
    return [_normal(_words(key, s, first), dtype) for key, s in keys_and_shapes]


@tf.function(jit_compile=True, autograph=False)
def _masks(keys, first, shapes, rate) -> list[tf.Tensor]:
    # The largest rates below 1 would round to 2**32, which wraps to 0: nothing dropped.
    threshold = _word(min(round(rate * 2**32), 2**32 - 1))
    words = [_words(key, s, first) for key, s in zip(tf.unstack(keys), shapes)]
    return [word >= threshold for word in words]


def _words(key: tf.Tensor, shape: list[int], first=0) -> tf.Tensor:
    """Returns uniform uint32 of a static shape, hashed from entry number and key.

    Numbers begin with entry [first, 0, ...] of the tensor that this is a part of.
    """
    *outer, columns = shape
    # In two axes, as XLA does not vectorise what it makes of a single long range.
    row = tf.range(math.prod(outer), dtype=tf.int32)[:, tf.newaxis]
    row += first * math.prod(outer[1:])
    column = tf.range(columns, dtype=tf.int32)
    words = tf.bitcast(row * columns + column, tf.uint32) ^ key[0]
    words = (words ^ _shifted(words, _SHIFTS[0])) * _word(_FACTORS[0])
    words = (words ^ _shifted(words, _SHIFTS[1])) * _word(_FACTORS[1]) + key[1]
    words = (words ^ _shifted(words, _SHIFTS[2])) * _word(_FACTORS[2])
    return tf.reshape(words ^ _shifted(words, _SHIFTS[3]), shape)


def _normal(words: tf.Tensor, dtype) -> tf.Tensor:
    """Returns standard normals of words, by the inverse of the distribution function.

    Of 2**23 equally likely values, the largest 5.2: what a float32 in (-1, 1) can tell
    apart. One normal in five million would be larger.
    """
    whole = tf.cast(tf.bitcast(_shifted(words, 9), tf.int32), dtype)
    uniform = (whole + 0.5) * 2.0**-22 - 1.0  # in (-1, 1), exact in float32
    return math.sqrt(2.0) * tf.math.erfinv(uniform)


def _shifted(words: tf.Tensor, by: int) -> tf.Tensor:
    return tf.bitwise.right_shift(words, _word(by))


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)
