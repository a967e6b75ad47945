"""The learned maps of LEO: encoder, relation network and decoder.

All three are linear or piecewise linear, without biases. They return tensors;
`latent.py` turns those into distributions.

Shapes: B tasks in the meta-batch, N way, K shot, D embedding size, Z latent size.
"""

import keras
import tensorflow as tf


def _kernel(layer, name, shape, seed):
    return layer.add_weight(
        name=name, shape=shape, initializer=keras.initializers.GlorotUniform(seed)
    )


class Encoder(keras.layers.Layer):
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

    def __init__(self, num_latents: int, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.num_latents = _positive("num_latents", num_latents)
        self.seed = seed

    def build(self, input_shape):
        self.kernel = _kernel(
            self, "kernel", [input_shape[-1], self.num_latents], self.seed
        )

    def call(self, inputs):
        return tf.tensordot(inputs, self.kernel, axes=1)

    def get_config(self):
        config = {"num_latents": self.num_latents, "seed": self.seed}
        return {**super().get_config(), **config}


class RelationNetwork(keras.layers.Layer):
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

    def __init__(self, num_latents: int, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.num_latents = _positive("num_latents", num_latents)
        self.seed = seed

    def build(self, input_shape):
        shape = [2 * self.num_latents] * 2
        self.kernels = [
            _kernel(self, f"kernel_{i}", shape, self.seed + i) for i in range(3)
        ]

    def call(self, codes):
        _, way, shot, size = codes.shape
        first, second, third = (tf.convert_to_tensor(k) for k in self.kernels)
        examples = tf.reshape(codes, [-1, way * shot, size])  # [B, N*K, Z]
        left = tf.tensordot(examples, first[:size], axes=1)  # [B, N*K, 2*Z]
        right = tf.tensordot(examples, first[size:], axes=1)
        pairs = tf.nn.relu(left[:, :, tf.newaxis] + right[:, tf.newaxis])
        pairs = tf.nn.relu(tf.tensordot(pairs, second, axes=1))  # [B, N*K, N*K, 2*Z]
        per_example = tf.reduce_mean(pairs, axis=2)
        per_example = tf.reshape(per_example, [-1, way, shot, 2 * size])
        per_class = tf.reduce_mean(per_example, axis=2, keepdims=True)
        parameters = tf.tensordot(per_class, third, axes=1)  # [B, N, 1, 2*Z]
        return tf.repeat(parameters, shot, axis=2)  # [B, N, K, 2*Z]

    def get_config(self):
        config = {"num_latents": self.num_latents, "seed": self.seed}
        return {**super().get_config(), **config}


class Decoder(keras.layers.Layer):
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

    def __init__(self, embedding_size: int, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.embedding_size = _positive("embedding_size", embedding_size)
        self.seed = seed

    def build(self, input_shape):
        self.kernel = _kernel(
            self, "kernel", [input_shape[-1], 2 * self.embedding_size], self.seed
        )

    def call(self, latents):
        return tf.tensordot(latents, self.kernel, axes=1)

    def get_config(self):
        config = {"embedding_size": self.embedding_size, "seed": self.seed}
        return {**super().get_config(), **config}


def _positive(name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"`{name}` must be positive, got {value}.")
    return value
