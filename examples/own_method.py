"""A custom method: nearest centroid by cosine, after a learned linear map.

    python examples/own_method.py

It has three parts: a class with a method `adapt`, one call of `register_method`, and a
run. Then it is trained, evaluated and compared like every other method. Without the
call, the command line finds it on PYTHONPATH:

    PYTHONPATH=examples python run_leo.py --mode=compare \
        --methods=own_method:CosineMap,leo
"""

import keras
import tensorflow as tf

import leo_tf
from leo_tf.model.learner import Adapted, Learner, class_scores


class CosineMap(keras.layers.Layer, Learner):
    """A linear map, and a factor of the cosines that sets the confidence."""

    title = "Cosine map"

    def __init__(self, config: leo_tf.Config, embedding_size: int):
        super().__init__(name="cosine_map", dtype=config.data.dtype)
        shape = [embedding_size, embedding_size]
        self.kernel = self.add_weight(name="map", shape=shape, initializer="identity")
        self.scale = self.add_weight(name="scale", shape=[], initializer="ones")

    kernels = property(lambda self: [self.kernel])  # pulled to 0 by a step of NaN

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        means = tf.reduce_mean(self.embed(support_inputs), axis=2)  # [B, N, D]
        directions = tf.math.l2_normalize(means, axis=-1)
        return Adapted(10.0 * tf.exp(self.scale.value - 1.0) * directions)

    def logits(self, classifier, inputs, training=False, noise=None):
        return class_scores(classifier, self.embed(inputs))  # [B, ..., N]

    def embed(self, inputs):
        return tf.math.l2_normalize(tf.tensordot(inputs, self.kernel.value, 1), -1)


leo_tf.register_method("cosine_map", CosineMap)


def main(steps: int = 1000) -> None:
    config = leo_tf.PRESETS["glyphs"].config().replace(num_steps=steps)
    methods = ["cosine_map", "leo", "centroid"]
    found = leo_tf.compare(config, methods, "runs/own_method", console=leo_tf.Console())
    for row in found.rows:
        print(f"{row.title}: {row.accuracy} %")


if __name__ == "__main__":
    main()
