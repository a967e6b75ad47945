"""The learned maps of LEO: encoder, relation network and decoder.

All three are linear or piecewise linear, without biases. They return tensors;
`latent.py` turns those into distributions. Under a mixed dtype policy the products are
computed in 16 bits, and all else, what they return included, in the variables' dtype.

Shapes: B tasks in the meta-batch, N way, K shot, D embedding size, Z latent size.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def _kernel(layer, name, shape, seed):
    return layer.add_weight(
        name=name, shape=shape, initializer=keras.initializers.GlorotUniform(seed)
    )


def product(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Inputs [..., A] times a kernel [A, C], in its dtype; the result in their own."""
    result = tf.tensordot(tf.cast(inputs, kernel.dtype), kernel, axes=1)
    return tf.cast(result, inputs.dtype)


class _Linear(keras.layers.Layer):
    """A layer of products: inputs stay as they are, kernels are cast to compute in."""

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    def _cast(self, kernel) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(kernel), self.compute_dtype)


class Encoder(_Linear):
    """Linear map from an embedding to a code.

    Args:
      num_latents: Z, the latent size.
      seed: of the initial kernel.

    Call arguments:
      inputs: [B, N, K, D] embeddings, after dropout.

    Returns:
      [B, N, K, Z] codes.

    Source: arXiv:1807.05960, equation 3; `encoder` in the release's `model.py`.
    """

    def __init__(self, num_latents: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_latents = _positive("num_latents", num_latents)
        self.seed = seed

    def build(self, input_shape: Sequence[Any]) -> None:
        self.kernel = _kernel(
            self, "kernel", [input_shape[-1], self.num_latents], self.seed
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return product(inputs, self._cast(self.kernel))

    def get_config(self) -> dict[str, Any]:
        config = {"num_latents": self.num_latents, "seed": self.seed}
        return {**super().get_config(), **config}


class RelationNetwork(_Linear):
    """Turns support codes into the parameters of one Gaussian per class.

    Every code is compared with every code of its own task, so a class's latent
    depends on which other classes it must be told apart from.

    Args:
      num_latents: Z, the latent size.
      seed: of the three initial kernels.

    Call arguments:
      codes: [B, N, K, Z] encoded support examples; N and K must be static.

    Returns:
      [B, N, K, 2 * Z]: mean, then raw stddev (see `latent.split_normal`). The K
      copies of a class are equal, yet kept: LEO draws and adapts K latents per
      class and averages the K classifiers only when it predicts.

    Source: arXiv:1807.05960, equation 3; `relation_network` and
    `average_codes_per_class` in the release's `model.py`. Two exact rearrangements:
    the first map of a concatenated pair is the sum of two maps of its halves, and
    both means come before the third map, which is linear.
    """

    def __init__(self, num_latents: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_latents = _positive("num_latents", num_latents)
        self.seed = seed

    def build(self, input_shape: Sequence[Any]) -> None:
        shape = [2 * self.num_latents] * 2
        self.kernels = [
            _kernel(self, f"kernel_{i}", shape, self.seed + i) for i in range(3)
        ]

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

    def get_config(self) -> dict[str, Any]:
        config = {"num_latents": self.num_latents, "seed": self.seed}
        return {**super().get_config(), **config}


class Decoder(_Linear):
    """Linear map from a latent to the parameters of a class's weight vector.

    Args:
      embedding_size: D.
      seed: of the initial kernel.

    Call arguments:
      latents: [..., Z].

    Returns:
      [..., 2 * D]: means, then raw stddevs (see `latent.split_normal`).

    Source: arXiv:1807.05960, equation 4; `decoder` in the release's `model.py`.
    """

    def __init__(self, embedding_size: int, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.embedding_size = _positive("embedding_size", embedding_size)
        self.seed = seed

    def build(self, input_shape: Sequence[Any]) -> None:
        self.kernel = _kernel(
            self, "kernel", [input_shape[-1], 2 * self.embedding_size], self.seed
        )

    def call(self, latents: tf.Tensor) -> tf.Tensor:
        return product(latents, self._cast(self.kernel))

    def halves(self) -> list[tf.Tensor]:
        """The kernels [Z, D] of means and raw stddevs, in the dtype to compute in."""
        return tf.split(self._cast(self.kernel), 2, axis=1)

    def get_config(self) -> dict[str, Any]:
        config = {"embedding_size": self.embedding_size, "seed": self.seed}
        return {**super().get_config(), **config}


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"`{name}` must be positive, got {value}.")
    return value
