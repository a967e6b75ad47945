"""Diagnostics of some validation episodes: pictures, latents, inner loop, loss parts.

They run eagerly, because tracing would cost more than it saves in a few calls.

Shapes: B episodes, N way, K shot, Q queries per class, Z latent size, C classes, P
points of TensorBoard's embedding projector, h x w pixels of a picture.
"""

import functools
import io
import logging
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.episode import Episode, EpisodeRows
from leo_tf.data_pipeline.pipeline import gather
from leo_tf.evaluation.calibration import count_bins
from leo_tf.files import write_file
from leo_tf.methods.registry import method_of
from leo_tf.model.learner import Learner, adapt_and_score, loss_parts
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.tags import ACCURACY, tag_of
from leo_tf.reports import figures, mosaics
from leo_tf.reports.mosaics import CARD

_RUN = "validation"
# Enough for pictures. Accuracy and loss use all validation episodes.
_EPISODES, _QUERIES = 40, 20
# Files of the projector.
_TENSORS, _METADATA = "latent_codes.tsv", "latent_codes_labels.tsv"
_SPRITE, _CONFIG = "latent_codes_sprite.png", "projector_config.pbtxt"
_SPRITE_SIDE = 32


class ValidationMonitor:
    """Writes diagnostics of the first episodes of `split`, the validation split.

    `baseline` is the accuracy of nearest centroid on all its episodes.
    """

    def __init__(
        self,
        monitor: EventWriter,
        learner: Learner,
        config: Config,
        split: Split,
        baseline: float,
    ):
        self.monitor, self.learner, self.config = monitor, learner, config
        self.split, self.baseline = split, baseline

    def show(self, step: int, is_last: bool) -> None:
        """Writes the accuracy of nearest centroid, and diagnostics if they are due.

        They are due at validations 1, 2, 4, 8 and so on, and at the last one. So long
        runs cost little more, and TensorBoard keeps only ten pictures of a tag anyway.
        """
        self.monitor.scalars("centroid", step, {ACCURACY: self.baseline})
        number = step // self.config.run.validate_every
        if (number & (number - 1) and not is_last) or self.monitor.is_broken:
            return
        try:
            self._show(step)
        except Exception:
            # Training must continue after any error here.
            logging.exception("Validation diagnostics at step %s failed.", step)

    def _show(self, step):
        rows, episode = self._episodes
        adapted, logits = adapt_and_score(self.learner, episode)  # [B, N, Q, N]
        parts = loss_parts(adapted, logits, episode.query_labels)
        groups = {"loss_parts": parts, "inner_loop": adapted.diagnostics}
        scalars = {
            tag_of(f"{group}/{name}"): float(value)
            for group, values in groups.items()
            for name, value in values.items()
        }
        self.monitor.scalars(_RUN, step, scalars)
        confusions = confusion_counts(logits, rows, len(self.split.class_names))
        bins = {method_of(self.config).title: count_bins(logits, episode.query_labels)}
        title = f"The first {len(logits)} validation episodes"
        drawn = {
            "confusion": mosaics.confusion(confusions, self.split.class_names, CARD),
            "reliability": figures.reliability_diagrams(bins, title),
        }
        if self.split.images is not None:
            drawn["episode"] = self._draw_episode(logits, rows, self.split.images)
        pictures = {f"pictures/{n}": figures.pixels(each) for n, each in drawn.items()}
        self.monitor.images(_RUN, step, pictures)
        if hasattr(self.learner, "latent_codes"):
            codes = (codes.numpy() for codes in self.learner.latent_codes(episode))
            before, after = codes  # [B, N, Z] each
            latents = {"tensors_latents/before": before, "tensors_latents/after": after}
            self.monitor.histograms(_RUN, step, latents)
            self._write_projector(before, after, rows)

    @functools.cached_property
    def _episodes(self) -> tuple[EpisodeRows, Episode]:
        """The episodes, made once, because TensorFlow never frees a dataset."""
        count = min(_EPISODES, self.config.run.num_val_episodes)
        by_class = self.config.replace(query_dirichlet=None)  # for the pictures
        dataset = datasets.evaluation_episodes(by_class, self.split, count)
        rows = next(iter(dataset.rows))
        rows = rows._replace(query=rows.query[:, :, :_QUERIES])
        return rows, gather(self.split.table, rows)

    def _draw_episode(self, logits, rows, images):
        names = [self.split.class_names[c] for c in rows.classes[0].numpy()]
        support, query = rows.support[0].numpy()[:, 0], rows.query[0].numpy()
        drawn = names, images[support], images[query]
        shares = tf.nn.softmax(logits[0]).numpy()
        return mosaics.episode(*drawn, shares=shares, layout=CARD)

    def _write_projector(self, before, after, rows):
        classes = rows.classes.numpy()  # [B, N]
        episodes, way = classes.shape
        names = [self.split.class_names[c] for c in classes.ravel()]
        labels = {
            "class": names + names,
            "adaptation": ["before"] * len(names) + ["after"] * len(names),
            "episode": 2 * np.repeat(np.arange(episodes), way).tolist(),
        }
        codes = np.concatenate([before, after]).reshape([2 * len(names), -1])
        pictures = self.split.images
        if pictures is not None:
            pictures = pictures[np.tile(rows.support.numpy()[:, :, 0].ravel(), 2)]
        place = self.monitor.directory / _RUN
        self.monitor.attempt(lambda: write_projector(place, codes, labels, pictures))


def confusion_counts(
    logits: tf.Tensor, rows: EpisodeRows, num_classes: int
) -> np.ndarray:
    """Returns [C, C] numbers of queries of class c with the answer d."""
    answers = tf.argmax(logits, axis=-1)  # [B, N, Q]
    taken_for = tf.gather(rows.classes, answers, batch_dims=1)
    truth = tf.broadcast_to(rows.classes[..., tf.newaxis], tf.shape(taken_for))
    pairs = (tf.reshape(classes, [-1]) for classes in (truth, taken_for))
    return tf.math.confusion_matrix(*pairs, num_classes).numpy()


def write_projector(
    directory: pathlib.Path,
    codes: np.ndarray,
    labels: Mapping[str, Sequence],
    pictures: np.ndarray | None = None,
) -> None:
    """Writes the projector's files atomically, and last the one that names the others.

    Args:
      codes: [P, Z].
      labels: column -> P labels.
      pictures: [P, h, w] uint8, one per point, if there are any.

    Raises:
      DiskError: if writing fails.
      ImportError: if TensorBoard is not installed.
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    write_file(directory / _TENSORS, lambda f: np.savetxt(f, codes, "%.5g", "\t"))
    table = [list(labels), *zip(*labels.values(), strict=True)]
    rows = ("\t".join(" ".join(str(v).split()) or "-" for v in row) for row in table)
    write_file(directory / _METADATA, "\n".join(rows).encode())
    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="latent codes",
        tensor_path=_TENSORS,
        tensor_shape=codes.shape,
        metadata_path=_METADATA,
    )
    if pictures is not None:
        path = directory / _SPRITE
        if not path.exists():  # a run has the same points in every call
            write_file(path, sprite(pictures))
        embedding.sprite.image_path = _SPRITE
        embedding.sprite.single_image_dim.extend([_SPRITE_SIDE, _SPRITE_SIDE])
    write_file(directory / _CONFIG, text_format.MessageToString(config).encode())


def sprite(pictures: np.ndarray) -> bytes:
    """Returns a PNG of pictures [P, h, w] in a square, for the projector."""
    across = math.ceil(math.sqrt(len(pictures)))
    sheet = Image.new("L", (across * _SPRITE_SIDE, across * _SPRITE_SIDE), "white")
    for i, picture in enumerate(pictures):
        small = Image.fromarray(255 - picture).resize((_SPRITE_SIDE, _SPRITE_SIDE))
        sheet.paste(small, (i % across * _SPRITE_SIDE, i // across * _SPRITE_SIDE))
    file = io.BytesIO()
    sheet.save(file, format="png")
    return file.getvalue()
