"""The learned maps of LEO: encoder, relation network and decoder.

All three are linear or piecewise linear, without biases. They return tensors;
`latent.py` turns those into distributions. Under a mixed dtype policy the products are
computed in 16 bits, and all else, what they return included, in the variables' dtype.

Shapes: B tasks in the meta-batch, N way, K shot, D embedding size, Z latent size:
`embedding_size` and `num_latents`. `seed` is that of the initial kernels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def product(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Inputs [..., A] times a kernel [A, C], in its dtype; the result in their own."""
    result = tf.tensordot(tf.cast(inputs, kernel.dtype), kernel, axes=1)
    return tf.cast(result, inputs.dtype)


class _Linear(keras.layers.Layer):
    """A layer of products: inputs stay as they are, kernels are cast to compute in."""

    def __init__(self, size: dict[str, int], seed: int, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})
        [(name, value)] = size.items()
        if value <= 0:
            raise ValueError(f"`{name}` must be positive, got {value}.")
        self.seed, self._own = seed, {**size, "seed": seed}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._own}

    def _add_kernel(self, shape, name="kernel", number=0):
        initializer = keras.initializers.GlorotUniform(self.seed + number)
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def _cast(self, kernel) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(kernel), self.compute_dtype)


class Encoder(_Linear):
    """Linear map from embeddings [B, N, K, D], after dropout, to codes [B, N, K, Z].

    Source: arXiv:1807.05960, equation 3; `encoder` in the release's `model.py`.
    """

    def __init__(self, num_latents: int, seed: int = 0, **kwargs: Any):
        super().__init__({"num_latents": num_latents}, seed, **kwargs)
        self.num_latents = num_latents

    def build(self, input_shape: Sequence[Any]) -> None:
        self.kernel = self._add_kernel([input_shape[-1], self.num_latents])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return product(inputs, self._cast(self.kernel))


class RelationNetwork(_Linear):
    """Turns support codes into the parameters of one Gaussian per class.

    Every code is compared with every code of its own task, so a class's latent
    depends on which other classes it must be told apart from.

    Call arguments:
      codes: [B, N, K, Z] encoded support examples; N and K must be static.

    Returns:
      [B, N, K, 2 * Z]: mean, then raw stddev (see `latent.split_normal`). The K
      copies of a class are equal. They become different latents when LEO draws from
      each, as the release does (docs/parity.md).

    Source: arXiv:1807.05960, equation 3; `relation_network` and
    `average_codes_per_class` in the release's `model.py`. Two exact rearrangements:
    the first map of a concatenated pair is the sum of two maps of its halves, and
    both means come before the third map, which is linear.
    """

    def __init__(self, num_latents: int, seed: int = 0, **kwargs: Any):
        super().__init__({"num_latents": num_latents}, seed, **kwargs)
        self.num_latents = num_latents

    def build(self, input_shape: Sequence[Any]) -> None:
        shape = [2 * self.num_latents] * 2
        self.kernels = [self._add_kernel(shape, f"kernel_{i}", i) for i in range(3)]

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        _, way, shot, size = codes.shape
        examples = tf.reshape(codes, [-1, way * shot, size])  # [B, N*K, Z]
        pairs = self.compare(*self.sides(examples))  # [B, N*K, N*K, 2*Z]
        # One mean over a class's examples and all their partners: XLA computes the two
        # apart ten times slower.
        pairs = tf.reshape(pairs, [-1, way, shot * way * shot, 2 * size])
        per_class = tf.reduce_mean(pairs, axis=2, keepdims=True)  # [B, N, 1, 2*Z]
        return tf.repeat(self.parameters(per_class), shot, axis=2)  # [B, N, K, 2*Z]

    def sides(self, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """[..., S, 2 * Z] twice: the codes' parts in pairs, as left and as right."""
        kernel, size = self._cast(self.kernels[0]), self.num_latents
        return product(codes, kernel[:size]), product(codes, kernel[size:])

    def compare(self, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """[..., L, R, 2 * Z] hidden units of all pairs of L left and R right parts."""
        pairs = tf.nn.relu(left[..., tf.newaxis, :] + right[..., tf.newaxis, :, :])
        return tf.nn.relu(product(pairs, self._cast(self.kernels[1])))

    def parameters(self, hidden: tf.Tensor) -> tf.Tensor:
        """[..., 2 * Z] of the mean hidden units [..., 2 * Z] of a class's pairs."""
        return product(hidden, self._cast(self.kernels[2]))


class Decoder(_Linear):
    """Linear map from latents [..., Z] to the parameters of weight vectors.

    With `zero_means` the means are zero until it has been trained.

    Returns:
      [..., 2 * D]: means, then raw stddevs (see `latent.split_normal`).

    Source: arXiv:1807.05960, equation 4; `decoder` in the release's `model.py`.
    """

    def __init__(
        self,
        embedding_size: int,
        seed: int = 0,
        zero_means: bool = False,
        **kwargs: Any,
    ):
        super().__init__({"embedding_size": embedding_size}, seed, **kwargs)
        self.embedding_size, self.zero_means = embedding_size, zero_means
        self._own["zero_means"] = zero_means

    def build(self, input_shape: Sequence[Any]) -> None:
        self.kernel = self._add_kernel([input_shape[-1], 2 * self.embedding_size])
        if self.zero_means:
            raw = tf.split(tf.convert_to_tensor(self.kernel), 2, axis=1)[1]
            self.kernel.assign(tf.concat([tf.zeros_like(raw), raw], axis=1))

    def call(self, latents: tf.Tensor) -> tf.Tensor:
        return product(latents, self._cast(self.kernel))

    def halves(self) -> list[tf.Tensor]:
        """The kernels [Z, D] of means and raw stddevs, in the dtype to compute in."""
        return tf.split(self._cast(self.kernel), 2, axis=1)
