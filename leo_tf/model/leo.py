"""LEO: infer latents -> adapt latents -> decode -> fine-tune -> logits.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from leo_tf.configs.schema import ModelConfig
from leo_tf.model import latent, losses
from leo_tf.model import noise as noise_lib
from leo_tf.model.inner_loop import gradient_descent
from leo_tf.model.layers import Decoder, Encoder, RelationNetwork, product
from leo_tf.model.learner import Adapted, class_scores
from leo_tf.model.noise import Noise, dropout


class LEO(keras.layers.Layer):
    """Latent Embedding Optimization, a `Learner`.

    Args:
      config: sizes, inner loops and the weights of the penalties.
      seed: of the initial kernels.

    Call arguments:
      support_inputs: [B, N, K, D] embeddings of length 1; N, K and D static.
      support_labels: [B, N, K] integers; class n has label n.
      query_inputs: [B, N, Q, D] or [B, M, D].

    Returns:
      [B, N, Q, N] or [B, M, N] logits, deterministic. Training goes through `adapt`
      and `logits` (see `meta_step.py`).

    Source: arXiv:1807.05960; class `LEO` in the release's `model.py`.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        seed: int = 0,
        name: str = "leo",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.config = ModelConfig() if config is None else config
        self.seed = seed

    def build(self, support_shape, *unused_shapes):
        size, num_latents = support_shape[-1], self.config.num_latents
        # Five kernels, five seeds: the relation network takes three of them.
        seeds = [5 * self.seed + i for i in range(5)]
        part = {"dtype": self.dtype_policy}
        if not self.config.random_prior:
            self.encoder = Encoder(num_latents, seeds[0], name="encoder", **part)
            self.relation_network = RelationNetwork(
                num_latents, seeds[1], name="relation_network", **part
            )
            self.encoder.build([None, None, None, size])
            self.relation_network.build([None, None, None, num_latents])
        self.decoder = Decoder(size, seeds[4], name="decoder", **part)
        self.decoder.build([None, None, None, num_latents])
        self.inner_lr = self.add_weight(
            name="inner_lr",
            shape=[1, 1, num_latents],
            initializer=keras.initializers.Constant(self.config.inner_lr_init),
            trainable=self.config.inner_unroll_length > 0,
        )
        self.finetuning_lr = self.add_weight(
            name="finetuning_lr",
            shape=[1, 1, size],
            initializer=keras.initializers.Constant(self.config.finetuning_lr_init),
            trainable=self.config.finetuning_unroll_length > 0,
        )

    @property
    def kernels(self) -> list:
        """The five kernels: what L2 and the NaN rule act on. Without encoder, one."""
        if self.config.random_prior:
            return [self.decoder.kernel]
        relation = self.relation_network.kernels
        return [self.encoder.kernel, *relation, self.decoder.kernel]

    def call(self, support_inputs, support_labels, query_inputs):
        adapted = self.adapt(support_inputs, support_labels)
        return self.logits(adapted.classifier, query_inputs)

    def adapt(
        self, support_inputs, support_labels, training=False, noise: Noise | None = None
    ) -> Adapted:
        """Makes classifiers from support sets, through both inner loops.

        Args:
          support_inputs: [B, N, K, D] embeddings of length 1.
          support_labels: [B, N, K] integers; class n has label n.
          training: sample z and w, and drop out; else means, and no noise.
          noise: what to sample with (`draw_noise`); required when training.

        Returns:
          `Adapted`: the classifier is averaged over the K of a class.
        """
        noise = self._noise(training, noise)
        # Algorithm 1: line 7, encode; 8, decode; 9 to 15, adapt; then fine-tune.
        posterior = self.infer_latents(support_inputs, noise)
        start = latent.sample_or_mean(posterior, noise.latents)  # [B, N, K, Z]
        decoder = self.decoder.halves()  # once: each use of a slice costs a gradient
        adapted, latent_losses = self.adapt_latents(
            start, decoder, support_inputs, support_labels, noise
        )
        weights = self.decode_classifier(adapted, decoder, noise.weights[-1])
        weights, finetune_losses = self.finetune_classifier(
            weights, support_inputs, support_labels, noise
        )
        support_losses = latent_losses + finetune_losses
        return Adapted(
            classifier=weights,
            penalties=self._penalties(posterior, start, adapted, noise, training),
            health=self._health(posterior, start, adapted, support_losses),
        )

    def logits(self, classifier, inputs, training=False, noise: Noise | None = None):
        """[B, ..., N] scores of inputs [B, ..., D], which are dropped out in training.

        Args:
          classifier: [B, N, D], from `adapt`.
          inputs: [B, N, Q, D] or [B, M, D] embeddings of length 1.
          training: whether to drop out.
          noise: as for `adapt`.
        """
        noise = self._noise(training, noise)
        inputs = dropout(inputs, noise.query_mask, self.config.dropout_rate)
        return class_scores(classifier, inputs, self.compute_dtype)

    def infer_latents(self, support_inputs, noise: Noise):
        """Normal over [B, N, K, Z]: the release's `forward_encoder`, or the prior."""
        if self.config.random_prior:
            parameters = tf.zeros([2 * self.config.num_latents], support_inputs.dtype)
            parameters += tf.zeros_like(support_inputs[..., :1])  # [B, N, K, 2*Z]
            return latent.split_normal(parameters, offset=1.0)  # mean 0, stddev 1
        inputs = dropout(support_inputs, noise.encoder_mask, self.config.dropout_rate)
        return latent.split_normal(self.relation_network(self.encoder(inputs)))

    def decode_classifier(self, latents, decoder, noise: tf.Tensor | None):
        """[B, N, D] weights of latents, averaged over K: `forward_decoder`.

        Args:
          latents: [B, N, K, Z].
          decoder: from `Decoder.halves`.
          noise: [B, N, K, D] to draw with; None for the means.

        The offset makes the initial stddev that of a Glorot initialiser. The release
        averages over K only in the scores; both are linear, so it can come first.
        """
        mean_kernel, raw_kernel = decoder
        centre = tf.reduce_mean(latents, axis=2, keepdims=True)
        mean = product(centre, mean_kernel)  # [B, N, 1, D]
        if noise is None:
            return mean[:, :, 0]
        way, size = latents.shape[1], self.decoder.embedding_size
        raw = product(latents, raw_kernel)  # [B, N, K, D]
        normal = latent.normal(mean, raw, offset=math.sqrt(2.0 / (way + size)))
        return tf.reduce_mean(latent.sample_or_mean(normal, noise), axis=2)

    def adapt_latents(
        self, start, decoder, support_inputs, support_labels, noise: Noise
    ):
        """U steps in latent space, decoding afresh: the release's `leo_inner_loop`.

        Returns:
          [B, N, K, Z] adapted latents; U losses [B, N, K], one before each step.
        """

        def support_loss(latents, step):
            weights = self.decode_classifier(latents, decoder, noise.weights[step])
            return self._support_loss(
                weights, support_inputs, support_labels, noise.support_masks[step]
            )

        return gradient_descent(
            support_loss, start, self.inner_lr, self.config.inner_unroll_length
        )

    def finetune_classifier(self, start, support_inputs, support_labels, noise: Noise):
        """F steps on the weights: the release's `finetuning_inner_loop`.

        The release moves K copies of a class's weights, each by 1 / K of the gradient
        of their mean; here their mean moves, by as much.

        Returns:
          [B, N, D] weights; F + 1 losses [B, N, K], the last after all steps.
        """
        # The first step starts from the loss of the last decode: its mask, too.
        masks = noise.support_masks[self.config.inner_unroll_length :]

        def support_loss(weights, step):
            return self._support_loss(
                weights, support_inputs, support_labels, masks[step]
            )

        shot = support_inputs.shape[2]
        weights, steps = gradient_descent(
            support_loss,
            start,
            self.finetuning_lr / shot,
            self.config.finetuning_unroll_length,
        )
        last = support_loss(weights, self.config.finetuning_unroll_length)
        return weights, [*steps, last]

    def draw_noise(self, episode, seed, step, first_task=0) -> Noise:
        """All a training step draws, a pure function of (seed, step, tasks).

        Args:
          episode: `Episode` of the shapes to draw for; static.
          seed: of the run.
          step: number of the meta-step.
          first_task: number of its first task in the step's meta-batch, if it is a
            part of it.
        """
        return noise_lib.draw(
            episode.support_inputs.shape,
            episode.query_inputs.shape,
            self.config.num_latents,
            self.config.inner_unroll_length,
            self.config.finetuning_unroll_length,
            seed=seed,
            step=step,
            dtype=self.variable_dtype,
            dropout_rate=self.config.dropout_rate,
            normals=not self.config.deterministic,
            first_task=first_task,
        )

    def get_config(self):
        own = {"config": dataclasses.asdict(self.config), "seed": self.seed}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "config": ModelConfig(**config["config"])})

    def _noise(self, training, noise: Noise | None) -> Noise:
        if not training:
            return noise_lib.no_noise(
                self.config.inner_unroll_length, self.config.finetuning_unroll_length
            )
        if noise is None:
            raise ValueError("`noise` must be given when training, got None.")
        return noise

    def _support_loss(self, classifier, inputs, labels, mask):
        """[B, N, K] cross-entropy of the support."""
        inputs = dropout(inputs, mask, self.config.dropout_rate)
        return losses.cross_entropy(
            class_scores(classifier, inputs, self.compute_dtype), labels
        )

    def _penalties(self, posterior, start, adapted, noise: Noise, training):
        kernel = tf.convert_to_tensor(self.decoder.kernel)
        penalties = {
            "l2": self.config.l2_penalty_weight
            * losses.l2_penalty([tf.convert_to_tensor(k) for k in self.kernels]),
            "orthogonality": self.config.orthogonality_penalty_weight
            * losses.orthogonality_penalty(kernel),
        }
        if not training or self.config.random_prior:  # no encoder to teach
            return penalties
        if noise.latents is not None:  # drawn
            kl = latent.kl_to_standard_normal(posterior, noise.latents)
            penalties["kl"] = self.config.kl_weight * tf.reduce_mean(kl, axis=[1, 2, 3])
        penalty = losses.encoder_penalty(adapted, start)
        penalties["encoder"] = self.config.encoder_penalty_weight * penalty
        return penalties

    def _health(self, posterior, start, adapted, support_losses):
        step = tf.norm(adapted - start, axis=-1)  # [B, N, K]
        losses = tf.stack(support_losses)  # [U + F + 1, B, N, K]
        means = tf.unstack(tf.reduce_mean(losses, axis=[1, 2, 3]))
        first, latent_end, end = (
            means[i] for i in (0, self.config.inner_unroll_length, -1)
        )
        after = {f"support_loss_step_{i:02}": mean for i, mean in enumerate(means)}
        return {
            **after,
            "support_loss_start": first,
            "support_loss_latent": latent_end,
            "support_loss_end": end,
            "support_loss_drop": first - end,
            "latent_step": tf.reduce_mean(step),
            "stddev_floor_share": latent.share_at_floor(posterior),
        }
