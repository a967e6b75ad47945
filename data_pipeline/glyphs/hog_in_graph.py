"""`hog` as TensorFlow operations, for models that take pictures themselves.

Shape letters: n pictures, S pixels a side, C cells a side, O orientations.
"""

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.glyphs.hog import (
    _ENERGY_FLOOR,
    NUM_FEATURES,
    ORIENTATIONS,
    _pooling,
)


def hog_in_graph(pictures: tf.Tensor) -> tf.Tensor:
    """Returns the `hog` features [n, C * C * O] float64 of pictures [n, S, S] uint8."""
    pooling = tf.constant(_pooling(pictures.shape[-1]))  # [C, S]
    cells = tf.einsum("cy,nyxo,dx->ncdo", pooling, _orientation_maps(pictures), pooling)
    energy = tf.reduce_sum(cells**2, axis=-1)
    energy = tf.pad(energy, [[0, 0], [1, 1], [1, 1]])
    rows = energy[:, :-2] + energy[:, 1:-1] + energy[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # [n, C, C]
    cells /= tf.sqrt(around + _ENERGY_FLOOR)[..., tf.newaxis]
    return tf.reshape(cells, [-1, NUM_FEATURES])


def _orientation_maps(pictures):
    """Returns gradients [n, S, S, O], each divided between its two nearest bins."""
    values = tf.cast(pictures, tf.float64) / 255.0
    # Beyond the edge there is the edge once more.
    padded = tf.pad(values, [[0, 0], [1, 1], [1, 1]], "SYMMETRIC")
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    length = tf.sqrt(right**2 + down**2)
    angle = tf.atan2(down, right) * (ORIENTATIONS / np.pi)  # in bins
    lower = tf.floor(angle)
    to_upper = (angle - lower) * length
    bin_ = tf.cast(lower, tf.int32) % ORIENTATIONS
    shares = [
        tf.one_hot((bin_ + next_) % ORIENTATIONS, ORIENTATIONS, dtype=tf.float64)
        * part[..., tf.newaxis]
        for next_, part in enumerate((length - to_upper, to_upper))
    ]
    return shares[0] + shares[1]
