"""Feature transforms, fitted in closed form to the training classes.

Directions in which a class's examples scatter tell little about the class. The scatter
within the training classes shows these directions, also for classes never seen. So
features are rotated and scaled until the scatter is equal in all directions.

Shapes: C training classes, D embedding size, d size after the transform.
"""

import io
import pathlib
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.data_pipeline.formats.npz import NpzFile
from leo_tf.errors import CheckpointError, InputError, quoted


class Transform(NamedTuple):
    """Maps feature vectors of length 1 before a method gets them.

    The entries are raised to `power`, the mean of the training classes is subtracted,
    and the rest is multiplied by `kernel` and scaled to length 1. Negative entries have
    no powers: data with them is refused, and in requests to an export they count as 0.

    For methods that need them, it also has the means and covariances of the transformed
    training classes.
    """

    power: float
    mean: np.ndarray  # [D] float64
    kernel: np.ndarray  # [D, d] float64, or [0, 0] for none
    centres: np.ndarray = np.zeros([0, 0])  # [C, d] their means
    # [C * R, d]: the outer products of a class's R rows sum to its covariance.
    scatter: np.ndarray = np.zeros([0, 0])

    @property
    def size(self) -> int:
        """Size D of the features."""
        return len(self.mean)

    @property
    def output_size(self) -> int:
        """Size d of the transformed features."""
        return self.kernel.shape[1] if self.kernel.size else self.size

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers and shapes, in hexadecimal."""
        sha, classes = sha256(), (self.centres, self.scatter)
        parts: list[Any] = [np.float64(self.power), self.mean, self.kernel]
        for numbers in (*parts, *(each for each in classes if each.size)):
            sha.update(f"{numbers.shape}".encode())
            sha.update(numbers.tobytes())
        return sha.hexdigest()

    def __call__(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns [..., d] of length 1, from rows [..., D] of length 1."""
        rows = raised(rows, self.power)
        rows = rows - tf.constant(self.mean, rows.dtype)
        if self.kernel.size:
            rows = tf.tensordot(rows, tf.constant(self.kernel, rows.dtype), 1)
        return tf.math.l2_normalize(rows, axis=-1)


def raised(rows: tf.Tensor, power: float) -> tf.Tensor:
    """Returns rows of length 1 after Tukey's power, scaled to length 1 again."""
    if power == 1.0:
        return rows
    return tf.math.l2_normalize(tf.maximum(rows, 0) ** power, axis=-1)


def save(transform: Transform) -> bytes:
    """Returns the content of transform.npz."""
    file, arrays = io.BytesIO(), transform._asdict()
    np.savez(file, **{**arrays, "power": np.array([transform.power])})
    return file.getvalue()


def load(path: pathlib.Path, digest: str) -> Transform:
    """Restores a transform from the output of `save`, of the digest in a checkpoint.

    Raises:
      CheckpointError: if it cannot be read, or has another digest.
    """
    try:
        with path.open("rb") as file:
            arrays = NpzFile(file, str(path))
            power, *read = (arrays.read(name, "f") for name in Transform._fields)
    except OSError as error:
        expected = "the feature transform of the run"
        raise CheckpointError(str(path), expected, quoted(str(error))) from error
    except InputError as error:
        raise CheckpointError(error.where, error.expected, error.received) from error
    found = Transform(float(power.sum()), *read)
    if found.digest != digest:
        raise CheckpointError(str(path), f"digest {digest}", found.digest)
    return found
