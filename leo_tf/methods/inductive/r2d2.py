"""R2-D2: ridge regression whose penalty and scale are learned across tasks.

Shapes: B tasks in the meta-batch, N way, K shot, S support examples of a task, D
embedding size, P = D + 1 weights and bias of a class.
"""

from collections.abc import Sequence
from typing import Any

import leo_tf.model  # noqa: F401, first: it makes Keras use TensorFlow

# isort: split
import keras
import tensorflow as tf

from leo_tf.methods.inductive.linear import LinearRegression, ridge
from leo_tf.model.learner import Adapted, Learner, UnevenAdapted

_FIRST_SCALE = 10.0


class R2D2(keras.layers.Layer, Learner):
    """Ridge regression on the support, through which the outer loop's gradients pass.

    It learns the logarithm of the penalty's weight, which begins at 1, and that of
    the scores' factor. The network that the paper learns with them is the embedding's,
    made beforehand; its offset of the scores adds the same to all classes, and the
    softmax takes that out again.

    Source: Bertinetto et al., 2019 (arXiv:1805.08136), section 3.2; the bias of the
    regression is free here, as in `linear.ridge`.
    """

    def build(self, support_shape: Sequence[Any]) -> None:
        first = keras.initializers.Constant(tf.math.log(_FIRST_SCALE))
        self.log_strength = self.add_weight([], "zeros", name="log_strength")
        self.log_scale = self.add_weight([], first, name="log_scale")

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Returns `Adapted` with classifiers [B, N, P], from inputs [B, N, K, D]."""
        return self._regression().adapt(support_inputs, support_labels)

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        """Does the same from support [S, D] with labels [S]. Examples count alike."""
        return self._regression().adapt_uneven(support, labels, way)

    def _regression(self) -> LinearRegression:
        logarithms = map(tf.convert_to_tensor, (self.log_strength, self.log_scale))
        strength, scale = map(tf.exp, logarithms)
        return LinearRegression(ridge, strength, scale)
