"""What every method here can do: adapt to a support set, then score queries.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding size.
"""

from typing import Any, NamedTuple, Protocol

import tensorflow as tf


class Adapted(NamedTuple):
    """What adaptation to the support sets of a meta-batch gives.

    Attributes:
      classifier: [B, N, D] a weight vector for each class.
      penalties: name -> [B] or [], weighted terms of the outer loss besides the query
        cross-entropy.
      health: name -> [] numbers for TensorBoard; they change nothing.
    """

    classifier: tf.Tensor
    penalties: dict[str, tf.Tensor]
    health: dict[str, tf.Tensor]


class Learner(Protocol):
    """A few-shot method. A task's state is never stored on it."""

    trainable_variables: list

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Makes classifiers from support_inputs [B, N, K, D] and labels [B, N, K]."""

    def logits(
        self,
        classifier: tf.Tensor,
        inputs: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> tf.Tensor:
        """[B, ..., N] scores of inputs [B, ..., D]: grouped by class or flat."""

    def draw_noise(self, episode, seed, step) -> Any:
        """All a training step draws, a pure function of (seed, step); None if nothing.

        It is what `adapt` and `logits` want as `noise` when `training`.
        """

    @property
    def kernels(self) -> list:
        """The variables that a non-finite step pulls towards zero."""


def class_scores(classifier: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Inner product of each input with each class's weight vector.

    Args:
      classifier: [B, N, D].
      inputs: [B, ..., D], grouped [B, N, Q, D] or flat [B, M, D].

    Returns:
      [B, ..., N].
    """
    flat = tf.reshape(inputs, [tf.shape(inputs)[0], -1, inputs.shape[-1]])
    scores = tf.matmul(flat, classifier, transpose_b=True)  # [B, M, N]
    shape = tf.concat([tf.shape(inputs)[:-1], tf.shape(classifier)[1:2]], axis=0)
    return tf.ensure_shape(
        tf.reshape(scores, shape), [*inputs.shape[:-1], classifier.shape[1]]
    )
