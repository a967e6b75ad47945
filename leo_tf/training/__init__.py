"""The outer loop: meta-step, trainer, replicas, workers."""

import leo_tf.model  # noqa: F401, Keras upon TensorFlow, before any module here wants it
