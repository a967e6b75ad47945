"""TensorBoard output of a run."""

import leo_tf.model  # noqa: F401, sets Keras to TensorFlow before any import of Keras
