"""A custom method: nearest centroid by cosine, after a learned linear map.

    python examples/own_method.py

It has a class with a method `adapt`, and one call of `register_method`. Then it is
trained, evaluated, compared and exported like every other method. Without the call, the
command line finds it on PYTHONPATH:

    PYTHONPATH=examples python run_leo.py --mode=compare \
        --methods=own_method:CosineMap,leo
"""

import keras
import tensorflow as tf

import leo_tf
from leo_tf.model.learner import Adapted, Learner, class_scores, without_latents


class CosineMap(keras.layers.Layer, Learner):
    """A linear map, and a factor of the cosines that sets the confidence."""

    title = "Cosine map"

    def __init__(self, config: leo_tf.Config, size: int):
        super().__init__(name="cosine_map", dtype=config.data.dtype)
        self.kernel = self.add_weight([size, size], "identity", name="map")
        self.scale = self.add_weight([], "zeros", name="scale")

    kernels = property(lambda self: [self.kernel])  # pulled to 0 by a step of NaN

    def adapt(self, support_inputs, support_labels, training=False, noise=None):
        return Adapted(self.weights_of(tf.reduce_mean(self.embed(support_inputs), 2)))

    def adapt_uneven(self, support, labels, way):  # for exports: one task, [S, D], [S]
        means = tf.math.unsorted_segment_mean(self.embed(support), labels, way)
        return without_latents(self.weights_of(means))

    def logits(self, classifier, inputs, training=False, noise=None):
        return class_scores(classifier, self.embed(inputs))  # [B, ..., N]

    def weights_of(self, means):  # [..., N, D]
        directions = tf.math.l2_normalize(means, axis=-1)
        return 10.0 * tf.exp(self.scale.value) * directions

    def embed(self, inputs):
        return tf.math.l2_normalize(tf.tensordot(inputs, self.kernel.value, 1), -1)


leo_tf.register_method("cosine_map", CosineMap)


def main(steps: int = 1000) -> None:
    config = leo_tf.PRESETS["glyphs"].config().replace(num_steps=steps)
    methods, console = ["cosine_map", "leo", "centroid"], leo_tf.Console()
    found = leo_tf.compare(config, methods, "runs/own_method", console=console)
    print(*(f"{row.title}: {row.accuracy} %" for row in found.rows), sep="\n")


if __name__ == "__main__":
    main()
