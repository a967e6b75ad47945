"""What a run shows of itself in TensorBoard."""

import logging
from collections.abc import Mapping

import tensorflow as tf

# Metrics of the meta-step that stand beside those of validation.
_HEADLINES = ("loss", "accuracy")


class Monitor:
    """Writes scalars and histograms; a failing disk costs them, never the run.

    Args:
      directory: of the event files.
    """

    def __init__(self, directory):
        self._broken = False
        self._writer = None
        self._safely(lambda: self._open(directory))

    def training(
        self,
        step: int,
        means: Mapping[str, float],
        learning_rates: Mapping[str, float],
        non_finite: int,
    ) -> None:
        """Scalars of training.

        Args:
          step: meta-steps done.
          means: metrics of the meta-step, averaged since the last call; empty if no
            step was finite.
          learning_rates: name -> mean of a learned rate.
          non_finite: steps that had to be mended since the run began.
        """
        scalars = {name: value for name, value in means.items() if "/" in name}
        scalars.update({f"{n}/train": means[n] for n in _HEADLINES if n in means})
        scalars.update({f"learning_rate/{n}": v for n, v in learning_rates.items()})
        scalars["optimisation/non_finite_steps"] = non_finite
        self._safely(lambda: self._write(tf.summary.scalar, step, scalars))

    def validation(
        self,
        step: int,
        accuracy: float,
        loss: float,
        variables: Mapping[str, tf.Tensor],
        gradients: Mapping[str, tf.Tensor],
    ) -> None:
        """Scalars and histograms of a validation; then everything is on the disk."""
        scalars = {"accuracy/validation": accuracy, "loss/validation": loss}
        tensors = {f"variables/{name}": value for name, value in variables.items()}
        tensors.update({f"gradients/{name}": g for name, g in gradients.items()})
        self._safely(lambda: self._write(tf.summary.scalar, step, scalars))
        self._safely(lambda: self._write(tf.summary.histogram, step, tensors))

    def _open(self, directory):
        self._writer = tf.summary.create_file_writer(str(directory))

    def _write(self, kind, step, values):
        # Leaving the block flushes: what was written is on the disk.
        with self._writer.as_default():
            for tag, value in values.items():
                kind(tag, value, step)

    def _safely(self, write):
        if self._broken:
            return
        try:
            write()
        except (OSError, tf.errors.OpError) as error:
            self._broken = True
            logging.warning("TensorBoard gets nothing more from this run: %s", error)
