"""MAML and Meta-SGD: gradient descent on a linear classifier from a learned start.

Both adapt weights and biases directly, by the inner loop that LEO runs on its latents.

Shapes: B tasks in the meta-batch, N way, K shot, S support examples of a task, D
embedding size, P = D + 1 weights and bias of a class.
"""

from collections.abc import Sequence
from typing import Any

import leo_tf.model  # noqa: F401, first: it makes Keras use TensorFlow

# isort: split
import keras
import tensorflow as tf

from leo_tf.configs.schema import MethodConfig
from leo_tf.model.inner_loop import gradient_descent, loss_grew
from leo_tf.model.learner import (
    Adapted,
    Learner,
    UnevenAdapted,
    class_scores,
    without_latents,
)
from leo_tf.model.losses import cross_entropy


class MAML(keras.layers.Layer, Learner):
    """Model-agnostic meta-learning of a linear head over the features.

    With `learned_rates` it is Meta-SGD: every parameter of the head has a rate of its
    own, which may become negative. Rates are learned in units of their first value, so
    that one outer learning rate suits all first values.

    The head has a row for each class, so its way is fixed. A start shared by all
    classes would be no alternative: it adds the same to every score of a query, and
    the softmax takes that out again.

    Inner losses are means over the support, as in the papers, not sums as in LEO: a
    rate then means the same for every shot. The head starts at zero, where the classes
    are alike, as they should be where labels mean nothing outside their episode.

    Args:
      way: N.
      config: steps of adaptation, their rate, and whether first-order.
      learned_rates: Meta-SGD instead of MAML.

    Source: Finn et al., 2017 (arXiv:1703.03400), algorithm 2; Li et al., 2017
    (arXiv:1707.09835), algorithm 1, which makes one step and begins with rates between
    0.005 and 0.1. Those are for features of other lengths.
    """

    def __init__(
        self,
        way: int,
        config: MethodConfig | None = None,
        learned_rates: bool = False,
        name: str = "maml",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.way, self.learned_rates = way, learned_rates
        self.config = MethodConfig() if config is None else config

    def build(self, support_shape: Sequence[Any]) -> None:
        way, size = self.way, support_shape[-1]
        self.kernel = self.add_weight([way, size], "zeros", name="kernel")
        self.bias = self.add_weight([way, 1], "zeros", name="bias")
        if self.learned_rates:
            self.inner_lr = self.add_weight([way, size + 1], "ones", name="inner_lr")

    @property
    def kernels(self) -> list:
        return [self.kernel]

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Returns `Adapted` with classifiers [B, N, P], from inputs [B, N, K, D].

        Raises:
          ValueError: if N is not that of the head.
        """
        _, way, shot, size = support_inputs.shape
        if way != self.way:
            raise ValueError(f"`way` must be {self.way}, as trained, got {way}.")
        inputs = tf.reshape(support_inputs, [-1, way * shot, size])  # [B, S, D]
        labels = tf.reshape(support_labels, [-1, way * shot])
        classifier, losses = self._descend(inputs, labels)
        path = [tf.reduce_mean(loss) for loss in losses]
        first, last = path[0], path[-1]
        # The last loss is before the last step; one more would cost an evaluation.
        diagnostics = {
            "support_loss_start": first,
            "support_loss_before_last_step": last,
            "grew/adaptation_lr_init": loss_grew(first, tf.stack(path), way),
        }
        return Adapted(classifier, penalties={}, diagnostics=diagnostics)

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        """Does the same from support [S, D] with labels [S]. Examples count alike.

        Raises:
          tf.errors.InvalidArgumentError: if `way` is not that of the head.
        """
        message = f"This method was trained for {self.way} classes."
        tf.debugging.assert_equal(way, self.way, message)
        classifier, _ = self._descend(support[tf.newaxis], labels[tf.newaxis])
        return without_latents(classifier[0])

    def _descend(self, inputs, labels):
        """Returns adapted heads [B, N, P] and the losses [B] before each step."""

        def support_loss(head, unused_step):
            losses = cross_entropy(class_scores(head, inputs), labels)  # [B, S]
            return tf.reduce_mean(losses, axis=1)

        parts = (tf.convert_to_tensor(part) for part in (self.kernel, self.bias))
        start = tf.concat([*parts], axis=1)[tf.newaxis]  # [1, N, P]
        rates = self.config.adaptation_lr_init
        if self.learned_rates:
            rates *= tf.convert_to_tensor(self.inner_lr)  # [N, P]
        return gradient_descent(
            support_loss,
            tf.tile(start, [tf.shape(inputs)[0], 1, 1]),  # [B, N, P]
            rates,
            self.config.adaptation_steps,
            first_order=self.config.first_order,
        )
