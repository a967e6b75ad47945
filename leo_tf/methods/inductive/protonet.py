"""Prototypical networks: nearest centroid after a learned linear map.

Shapes: B tasks in the meta-batch, N way, K shot, S support examples of a task, D
embedding size, P = D + 1 weights and bias of a class.
"""

from collections.abc import Sequence
from typing import Any

import leo_tf.model  # noqa: F401, first: it makes Keras use TensorFlow

# isort: split
import keras
import tensorflow as tf

from leo_tf.methods.inductive.nearest_centroid import ClassMeans

_FIRST_SCALE = 10.0  # scale of scores; cosines alone are never confident


class ProtoNet(keras.layers.Layer, ClassMeans):
    """Scores a query by its distance to class means, both after a learned map.

    The network of the paper is the embedding's, made beforehand; the map begins as the
    identity, so that before any step the method is nearest centroid. The scores' factor
    is learned, too: features of length 1 are nearer to each other than the paper's.

    Source: Snell et al., 2017 (arXiv:1703.05175), equations 1, 2 and 8.
    """

    def build(self, support_shape: Sequence[Any]) -> None:
        size = support_shape[-1]
        self.kernel = self.add_weight([size, size], "identity", name="kernel")
        first = keras.initializers.Constant(_FIRST_SCALE)
        self.scale = self.add_weight([], first, name="scale")

    @property
    def kernels(self) -> list:
        return [self.kernel]

    def _classifier(self, means):
        """Returns the classifier [..., N, P] of class means [..., N, D].

        -|Mx - Mc|^2 = 2 (M'Mc).x - |Mc|^2 - |Mx|^2, and the last says nothing of the
        class.
        """
        kernel, scale = map(tf.convert_to_tensor, (self.kernel, self.scale))
        mapped = tf.tensordot(means, kernel, 1)
        weights = 2.0 * tf.tensordot(mapped, tf.transpose(kernel), 1)
        bias = -tf.reduce_sum(mapped**2, axis=-1, keepdims=True)
        return scale * tf.concat([weights, bias], axis=-1)
