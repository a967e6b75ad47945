"""What a run shows of itself in TensorBoard."""

import leo_tf.model  # noqa: F401, Keras upon TensorFlow, before any module here wants it
