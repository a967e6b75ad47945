"""An export as one file for TensorFlow Lite, of built-in operators only."""

import pathlib
import tempfile

import tensorflow as tf

from leo_tf.errors import FlagError
from leo_tf.export.signatures import Servable
from leo_tf.model.learner import Learner


def check_convertible(learner: Learner) -> None:
    """Refuses methods that need operators TensorFlow Lite has not, or may need them.

    Those are factorisations of matrices, and gradients of element-wise products of
    unknown shapes, as MAML's inner loop has them; LEO's here is written without.

    Raises:
      FlagError: naming the method's class.
    """
    if not getattr(learner, "runs_on_litert", False):
        expected = "saved_model, for TensorFlow Lite lacks operators of this method"
        received = f"tflite for {type(learner).__name__}"
        raise FlagError("--export_format", expected, received)


def to_tflite(servable: Servable) -> bytes:
    """The content of a .tflite file with the four signatures, all sizes dynamic.

    Args:
      servable: one that does not check: TensorFlow Lite drops assertions.
    """
    names = sorted(servable.signatures())
    with tempfile.TemporaryDirectory() as directory:
        path = str(pathlib.Path(directory) / "saved_model")
        tf.saved_model.save(servable, path, signatures=servable.signatures())
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=names)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
