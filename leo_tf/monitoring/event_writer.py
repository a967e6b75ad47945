"""Writes TensorBoard events, independently of training.

The curves of one chart have one tag in several runs. TensorBoard draws "train",
"validation" and "centroid" in one chart if each has its own directory.
"""

import io
import logging
import os
import pathlib
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image

from leo_tf.files import AnyPath
from leo_tf.monitoring.tags import DESCRIPTIONS

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram import metadata as histogram_metadata
    from tensorboard.plugins.hparams import api as hparams_api
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.plugins.image import metadata as image_metadata
    from tensorboard.plugins.scalar import metadata as scalar_metadata
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.util.tensor_util import make_tensor_proto

    _MISSING: ImportError | None = None
except ImportError as error:  # a run then continues without events
    _MISSING = error

_BUCKETS = 30
# Width of the histogram of a constant array, relative to the constant.
_SPIKE = 1e-3


class EventWriter:
    """Writes event files; without TensorBoard or disk space, training continues.

    Each run has its own files below `directory`. After a failure `is_broken` is True,
    and nothing more is written.
    """

    def __init__(self, directory: AnyPath):
        self.directory = pathlib.Path(directory)
        self.is_broken = False
        self._files: dict[str, tf.io.TFRecordWriter] = {}
        self._described: set[tuple[str, str]] = set()
        self.attempt(_check_tensorboard)

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Adds a point at meta-step `step` to the curve of each tag.

        `run` names the curve in its chart. TensorBoard groups tags by the part before
        the first slash, in alphabetical order.
        """

        def summaries():
            for tag, value in values.items():
                # TensorFlow 1's format, which `EventAccumulator.Scalars` also reads.
                about = "", self._description(run, tag)
                metadata = scalar_metadata.create_summary_metadata(*about)
                summary = Summary()
                summary.value.add(tag=tag, simple_value=value, metadata=metadata)
                yield summary

        self._show(run, step, summaries())

    def histograms(self, run: str, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes histograms of the finite entries of arrays."""

        def summaries():
            for tag, array in arrays.items():
                entries = np.asarray(array)[np.isfinite(array)]
                if entries.size:
                    value = _histogram(entries)
                    yield self._summary(run, tag, value, histogram_metadata)

        self._show(run, step, summaries())

    def images(self, run: str, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Writes pictures [H, W, 3] uint8."""

        def summaries():
            for tag, picture in pictures.items():
                height, width, _ = picture.shape
                content = [str(width).encode(), str(height).encode(), _png(picture)]
                value = np.array(content, object)
                yield self._summary(run, tag, value, image_metadata)

        self._show(run, step, summaries())

    def texts(self, texts: Mapping[str, str], step: int = 0) -> None:
        """Writes Markdown."""
        self._show("", step, (text_pb(tag, text) for tag, text in texts.items()))

    def hyperparameters(
        self,
        title: str,
        values: Mapping[str, object],
        metrics: Mapping[str, tuple[str, str]],
        first: Collection[str] = (),
    ) -> None:
        """Writes hyperparameters, by which TensorBoard compares runs.

        Args:
          title: title of this run. Runs with equal titles are shown by their means.
          values: name -> bool, number or text.
          metrics: title -> (run, tag) of the scalars to compare.
          first: names of the first columns.
        """

        def summaries():
            columns = [hparams_api.HParam(name) for name in values]
            shown = [
                hparams_api.Metric(tag, group=run, display_name=name)
                for name, (run, tag) in metrics.items()
            ]
            experiment = hparams_api.hparams_config_pb(columns, shown)
            # TensorBoard's table begins with settings that differ between runs.
            plugin_data = experiment.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(plugin_data.content)
            for info in content.experiment.hparam_infos:
                info.differs = info.name in first
            plugin_data.content = content.SerializeToString()
            yield experiment
            yield hparams_api.hparams_pb(values, trial_id=title)

        self._show("", 0, summaries())

    def attempt(self, write: Callable[[], object]) -> None:
        """Calls `write` unless writing has failed before; logs the failure once.

        Nothing is written after it, because a curve with a gap would mislead.
        """
        if self.is_broken:
            return
        try:
            write()
        # ValueError: text that is not UTF-8, such as a path of the command line.
        except (OSError, ValueError, ImportError, tf.errors.OpError) as error:
            self.is_broken = True
            logging.warning("TensorBoard gets no more data from this run: %s", error)

    def _show(self, run, step, summaries: Iterable):
        # Event files are TFRecords of events. `tf.summary` would take thirty times as
        # long, and does not report a full disk.
        def write():
            values = [value for summary in summaries for value in summary.value]
            if values:
                event = Event(step=step, summary=Summary(value=values))
                _append(self._file(run), event)

        self.attempt(write)

    def _file(self, run):
        if run not in self._files:
            directory = self.directory / run
            directory.mkdir(parents=True, exist_ok=True)
            who = f"{socket.gethostname()}.{os.getpid()}"
            # TensorBoard reads files in the order of their names.
            path = directory / f"events.out.tfevents.{time.time_ns()}.{who}"
            self._files[run] = tf.io.TFRecordWriter(str(path))
            _append(self._files[run], Event(file_version="brain.Event:2"))
        return self._files[run]

    def _description(self, run, tag):
        """Returns a tag's description for the first event of a curve, else None."""
        if (run, tag) in self._described:
            return None
        self._described.add((run, tag))
        return DESCRIPTIONS.get(tag) or DESCRIPTIONS.get(tag.split("/")[0])

    def _summary(self, run, tag, value: np.ndarray, plugin) -> "Summary":
        metadata = plugin.create_summary_metadata(None, self._description(run, tag))
        summary = Summary()
        summary.value.add(tag=tag, tensor=make_tensor_proto(value), metadata=metadata)
        return summary


def _check_tensorboard():
    if _MISSING:
        raise _MISSING


def _append(file: tf.io.TFRecordWriter, event: "Event"):
    event.wall_time = time.time()
    file.write(event.SerializeToString())
    file.flush()


def _histogram(entries: np.ndarray) -> np.ndarray:
    """Returns [k, 3] left and right edges and counts of buckets: TensorBoard's format.

    TensorBoard's own `histogram_pb` compares every entry with every bucket.
    """
    entries = entries.astype(np.float64)  # edges in float32 may be equal
    low, high = float(entries.min()), float(entries.max())
    if low == high:
        low, high = low - _SPIKE * abs(low), high + _SPIKE * abs(high)
    counts, edges = np.histogram(entries, _BUCKETS, (low, high))
    return np.stack([edges[:-1], edges[1:], counts], axis=-1)


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="png", compress_level=1)
    return file.getvalue()
