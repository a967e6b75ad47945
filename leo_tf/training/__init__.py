"""The outer loop: meta-step, trainer, replicas, workers."""

import leo_tf.model  # noqa: F401, loads Keras on TensorFlow before any module here
