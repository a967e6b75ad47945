"""LEO: infer latents -> adapt latents -> decode -> fine-tune -> logits.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from leo_tf.configs.schema import ModelConfig
from leo_tf.data_pipeline.episode import Episode
from leo_tf.errors import check_not_forked
from leo_tf.model import closed_forms, latent, losses, uneven_support
from leo_tf.model.inner_loop import adapt_latents, loss_report, run_inner_loops
from leo_tf.model.layers import Decoder, Encoder, RelationNetwork, product
from leo_tf.model.learner import Adapted, Count, UnevenAdapted, class_scores
from leo_tf.model.noise import Noise, draw, dropout, no_noise

# The embedding size from which on the release's first rate of latents is safe.
_USUAL_SIZE = 64
# First factor of a closed form's scores, which are cosines or near 0 and 1.
_FIRST_SCALE = 10.0


def first_inner_lr(config: ModelConfig, embedding_size: int) -> float:
    """Returns the first rate of latents: `inner_lr_init`, or one that fits the size D.

    The release's 1, for D from 64 on. Below, sqrt(D / 64): a small D makes for large
    entries of the decoder's kernel, and then a step of 1 takes the weights' stddev, an
    exponential of the latents, beyond all numbers. At D = 8, and with the defaults, 97
    of 100 training steps were non-finite. docs/parity.md has the measurements.
    """
    if config.inner_lr_init is not None:
        return config.inner_lr_init
    return min(1.0, math.sqrt(embedding_size / _USUAL_SIZE))


class LEO(keras.layers.Layer):
    """Latent Embedding Optimization, a `Learner`.

    Call arguments:
      support_inputs: [B, N, K, D] embeddings of length 1; N, K and D static.
      support_labels: [B, N, K] integers; class n has label n.
      query_inputs: [B, N, Q, D] or [B, M, D].

    Returns:
      [B, N, Q, N] or [B, M, N] logits, deterministic. Training goes through `adapt`
      and `logits` (see `meta_step.py`), which with a mixed policy compute all but
      products in 32 bits. In a call, Keras casts everything to 16.

    Source: arXiv:1807.05960; class `LEO` in the release's `model.py`.
    """

    def __init__(self, config: ModelConfig | None = None, seed: int = 0, **kwargs: Any):
        check_not_forked()
        super().__init__(**{"name": "leo", **kwargs})
        self.config = ModelConfig() if config is None else config
        self.seed = seed

    def build(self, support_shape: Sequence[Any], *unused_shapes: Any) -> None:
        size, num_latents = support_shape[-1], self.config.num_latents
        # Five kernels, five seeds: the relation network takes three of them.
        seeds = [5 * self.seed + i for i in range(5)]
        part = {"dtype": self.dtype_policy}
        if not self.config.random_prior:
            self.encoder = Encoder(num_latents, seeds[0], name="encoder", **part)
            self.encoder.build([None, None, None, size])
            named = {"name": "relation_network", **part}
            self.relation_network = RelationNetwork(num_latents, seeds[1], **named)
            self.relation_network.build([None, None, None, num_latents])
        residual = self.config.residual
        part["zero_means"] = residual != "none"
        self.decoder = Decoder(size, seeds[4], name="decoder", **part)
        self.decoder.build([None, None, None, num_latents])
        if residual != "none":
            first = keras.initializers.Constant(math.log(_FIRST_SCALE))
            self.log_scale = self.add_weight([], first, name="log_scale")
        if residual == "ridge":
            self.log_strength = self.add_weight([], "zeros", name="log_strength")
        first = first_inner_lr(self.config, size), self.config.finetuning_lr_init
        steps = self.steps
        self.inner_lr = self._add_rates("inner_lr", num_latents, first[0], steps[0])
        self.finetuning_lr = self._add_rates("finetuning_lr", size, first[1], steps[1])

    def _add_rates(self, name, size, first, num_steps):
        """[1, 1, size] learned rates of an inner loop; all are `first` at first."""
        value, shape = keras.initializers.Constant(first), [1, 1, size]
        more = {"initializer": value, "trainable": num_steps > 0}
        return self.add_weight(name=name, shape=shape, **more)

    @property
    def runs_on_litert(self) -> bool:
        """True if exports can be converted to TensorFlow Lite; see `Learner`."""
        return self.config.residual != "ridge"  # TensorFlow Lite has no Cholesky

    @property
    def kernels(self) -> list:
        """The five kernels: what L2 and the NaN rule act on. Without encoder, one."""
        if self.config.random_prior:
            return [self.decoder.kernel]
        relation = self.relation_network.kernels
        return [self.encoder.kernel, *relation, self.decoder.kernel]

    def call(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        query_inputs: tf.Tensor,
    ) -> tf.Tensor:
        adapted = self.adapt(support_inputs, support_labels)
        return self.logits(adapted.classifier, query_inputs)

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Noise | None = None,
    ) -> Adapted:
        """Makes classifiers, averaged over the K latents, through both inner loops.

        Args:
          support_inputs, support_labels: as for `call`.
          training: sample z and w, and drop out; else means, and no noise.
          noise: what to sample with (`draw_noise`); required when training.
        """
        noise = self._noise(training, noise)
        # Algorithm 1: line 7, encode; 8, decode; 9 to 15, adapt; then fine-tune.
        posterior = self.infer_latents(support_inputs, noise)
        # K draws, not the paper's one: "latents of a class" in docs/parity.md.
        start = latent.sample_or_mean(posterior, noise.latents)  # [B, N, K, Z]
        decode, support_loss = self.task(support_inputs, support_labels, noise)
        # Each of the K latents gets 1 / K of the gradient. Weights are averaged before
        # their steps, so their rate is divided instead.
        rates = self.inner_lr, self.finetuning_lr / support_inputs.shape[2]
        latent_steps = self.steps[0]
        steps = latent_steps, len(noise.support_masks) - 1 - latent_steps  # U, F
        loops = run_inner_loops(start, decode, support_loss, rates, steps)
        adapted, weights, path = loops
        diagnostics = {
            **loss_report(path, latent_steps),
            "latent_step": tf.reduce_mean(tf.norm(adapted - start, axis=-1)),
            "stddev_floor_share": latent.share_at_floor(posterior),
        }
        penalties = self._penalties(posterior, start, adapted, noise, training)
        return Adapted(weights, penalties, diagnostics)

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        """Adapts to one task. Classes may differ in size: see `uneven_support`."""
        return uneven_support.adapt_leo(self, support, labels, way)

    def logits(
        self,
        classifier: tf.Tensor,
        inputs: tf.Tensor,
        training: bool = False,
        noise: Noise | None = None,
    ) -> tf.Tensor:
        """[B, ..., N] scores of inputs [B, ..., D], which are dropped out in training.

        `classifier` is [B, N, D], from `adapt`, and `noise` as there.
        """
        return self._scores(classifier, inputs, self._noise(training, noise).query_mask)

    def infer_latents(self, support_inputs: tf.Tensor, noise: Noise) -> latent.Normal:
        """Normal over [B, N, K, Z]: the release's `forward_encoder`, or the prior."""
        if self.config.random_prior:
            parameters = tf.zeros([2 * self.config.num_latents], support_inputs.dtype)
            parameters += tf.zeros_like(support_inputs[..., :1])  # [B, N, K, 2*Z]
            return latent.split_normal(parameters, offset=1.0)  # mean 0, stddev 1
        inputs = dropout(support_inputs, noise.encoder_mask, self.config.dropout_rate)
        return latent.split_normal(self.relation_network(self.encoder(inputs)))

    def closed_form(self, support: tf.Tensor, targets: tf.Tensor) -> tf.Tensor | None:
        """[B, N, D] of support [B, S, D] and one-hot targets [B, S, N]; None without.

        The classifier that decoded ones are added to, times its learned scale.
        """
        if self.config.residual == "none":
            return None
        scale, dtype = tf.exp(tf.convert_to_tensor(self.log_scale)), support.dtype
        # In a call, Keras may have cast to 16 bits, in which nothing is factorised.
        wide = self.variable_dtype
        support, targets = tf.cast(support, wide), tf.cast(targets, wide)
        if self.config.residual == "centroid":
            found = closed_forms.centroid(support, targets)
        else:
            strength = tf.cast(tf.convert_to_tensor(self.log_strength), wide)
            found = closed_forms.ridge(support, targets, tf.exp(strength))
        return tf.cast(tf.cast(scale, wide) * found, dtype)

    def decode_classifier(
        self, latents: tf.Tensor, decoder: Sequence[tf.Tensor], noise: tf.Tensor | None
    ) -> tf.Tensor:
        """[B, N, D] mean weights of latents [B, N, K, Z]: the `forward_decoder`.

        `decoder` is from `Decoder.halves`; without noise [B, N, K, D], by the means.
        The offset makes the initial stddev that of a Glorot initialiser. The release
        averages over K only in the scores; both are linear, so it can come first.
        """
        mean_kernel, raw_kernel = decoder
        centre = tf.reduce_mean(latents, axis=2, keepdims=True)
        mean = product(centre, mean_kernel)  # [B, N, 1, D]
        if noise is None:
            return tf.squeeze(mean, axis=2)
        way, size = latents.shape[1], self.decoder.embedding_size
        raw = product(latents, raw_kernel)  # [B, N, K, D]
        normal = latent.normal(mean, raw, offset=math.sqrt(2.0 / (way + size)))
        return tf.reduce_mean(latent.sample_or_mean(normal, noise), axis=2)

    def task(
        self, support_inputs: tf.Tensor, support_labels: tf.Tensor, noise: Noise
    ) -> tuple[Callable, Callable]:
        """The `decode` and `support_loss` of a support set, see `run_inner_loops`."""
        decoder = self.decoder.halves()  # once: each use of a slice costs a gradient
        _, way, shot, size = support_inputs.shape
        flat = tf.reshape(support_inputs, [-1, way * shot, size])
        labels = tf.reshape(support_labels, [-1, way * shot])
        start = self.closed_form(flat, tf.one_hot(labels, way, dtype=flat.dtype))

        def decode(latents, number):
            weights = self.decode_classifier(latents, decoder, noise.weights[number])
            return weights if start is None else start + weights

        def support_loss(weights, number):
            mask = noise.support_masks[number]
            scores = self._scores(weights, support_inputs, mask)
            return losses.cross_entropy(scores, support_labels)

        return decode, support_loss

    @property
    def steps(self) -> tuple[int, int]:
        """U and F of training."""
        return self.config.inner_unroll_length, self.config.finetuning_unroll_length

    @property
    def test_steps(self) -> tuple[int, int]:
        """U and F of all but training."""
        latent_steps, steps = self.steps
        given = self.config.test_finetuning_steps
        return latent_steps, steps if given is None else given

    def latent_codes(self, episode: Episode) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, N, Z] codes of the classes before and after the inner loop, by means."""
        noise = no_noise(*self.steps)
        start = self.infer_latents(episode.support_inputs, noise).mean()
        functions = self.task(episode.support_inputs, episode.support_labels, noise)
        adapted, _ = adapt_latents(start, *functions, self.inner_lr, self.steps[0])
        return start[:, :, 0], adapted[:, :, 0]  # without draws the K are equal

    def draw_noise(
        self, episode: Episode, seed: tf.Tensor, step: tf.Tensor, first_task: Count = 0
    ) -> Noise:
        """All a training step draws: see `Learner`, and `noise.draw`."""
        shapes = episode.support_inputs.shape, episode.query_inputs.shape
        return self._draw(self.config, *shapes, seed, step, first_task)

    @property
    def has_posterior(self) -> bool:
        """True if training draws latents and weights, so that a test may too."""
        return not self.config.deterministic

    def draw_posterior(
        self,
        support_shape: Sequence[int],
        seed: tf.Tensor,
        number: tf.Tensor,
        first_task: Count = 0,
    ) -> Noise:
        """One draw of z and w for a test: as in training, but without dropout."""
        config = dataclasses.replace(
            self.config,
            dropout_rate=0.0,
            finetuning_unroll_length=self.test_steps[1],
        )
        step = -1 - tf.cast(number, tf.int64)  # training has those from 0 on
        return self._draw(config, support_shape, support_shape, seed, step, first_task)

    def get_config(self) -> dict[str, Any]:
        own = {"config": dataclasses.asdict(self.config), "seed": self.seed}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LEO":
        return cls(**{**config, "config": ModelConfig(**config["config"])})

    def _draw(self, config, support_shape, query_shape, seed, step, first_task):
        options = {"seed": seed, "step": step, "first_task": first_task}
        dtype = self.variable_dtype
        return draw(config, support_shape, query_shape, dtype=dtype, **options)

    def _noise(self, training, noise: Noise | None) -> Noise:
        if not training:
            return no_noise(*self.test_steps)
        if noise is None:
            raise ValueError("`noise` must be given when training, got None.")
        return noise

    def _scores(self, classifier, inputs, mask):
        """[B, ..., N] of inputs [B, ..., D] after dropout: the head."""
        inputs = dropout(inputs, mask, self.config.dropout_rate)
        return class_scores(classifier, inputs, self.compute_dtype)

    def _penalties(self, posterior, start, adapted, noise: Noise, training):
        """The terms of equation 6 besides the query loss, each [B] or []."""
        config, kernel = self.config, tf.convert_to_tensor(self.decoder.kernel)
        l2 = losses.l2_penalty([tf.convert_to_tensor(k) for k in self.kernels])
        orthogonality = losses.orthogonality_penalty(kernel)
        penalties = {
            "l2": config.l2_penalty_weight * l2,
            "orthogonality": config.orthogonality_penalty_weight * orthogonality,
        }
        if not training or config.random_prior:  # no encoder to teach
            return penalties
        if noise.latents is not None:  # drawn
            kl = latent.kl_to_standard_normal(posterior, noise.latents)
            penalties["kl"] = config.kl_weight * tf.reduce_mean(kl, axis=[1, 2, 3])
        encoder = losses.encoder_penalty(adapted, start)
        return {**penalties, "encoder": config.encoder_penalty_weight * encoder}
