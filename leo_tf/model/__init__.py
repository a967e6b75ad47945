"""The model of the paper: LEO, its layers, latents, losses and inner loop."""

from leo_tf.environment import import_keras

import_keras()  # before any module below does
