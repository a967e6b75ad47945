"""Trains a backbone to classify the training classes, with Keras's `fit`.

state.E.npz           weights and optimiser after epoch E, for resuming; not the last
backbone.keras        pictures -> features, when all epochs are done

Shapes: n pictures, H pixels a side as they are stored, S as the network gets them.

Source of the recipe: arXiv:1807.05960 on pre-training, and what it builds on, Qiao et
al., 2018 (arXiv:1706.03466). docs/pictures.md says which numbers are the paper's and
which are ours.
"""

import contextlib
import io
import os
import pathlib
import re
import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from leo_tf.console import SILENT, Console
from leo_tf.embedding.augmentation import random_views
from leo_tf.embedding.backbones import BACKBONE_FILE
from leo_tf.embedding.wide_resnet import features_of, wide_resnet
from leo_tf.errors import DiskError, InputError, quoted
from leo_tf.files import read_npz, write_file

_STATE = re.compile(r"state\.([0-9]+)\.npz")
# The rate falls to a tenth after these shares of all epochs.
_DECAYS = (0.5, 0.75)
_MOMENTUM = 0.9
_HELD_OUT = 10  # one picture in this many of a class is held out
_KERAS_SEED = 0x1E0  # xored with the seed, for draws other than the views'


class Recipe(NamedTuple):
    """Settings of a backbone's pre-training.

    Attributes:
      depth, width: depth and width of the wide residual network.
      side: S.
      epochs, batch_size, learning_rate: settings of SGD with momentum 0.9.
      dropout_rate, l2_penalty_weight: as in `wide_resnet`.
      flip, smallest_area: as in `random_views`.
      seed: seed of weights, order, views and dropout.
      mixed_precision: compute convolutions in bfloat16. `backbone.keras` never does.
    """

    depth: int
    width: int
    side: int
    epochs: int = 90
    batch_size: int = 64
    learning_rate: float = 0.1
    dropout_rate: float = 0.3
    l2_penalty_weight: float = 2.5e-4
    flip: bool = True
    smallest_area: float = 0.35
    seed: int = 0
    mixed_precision: bool = False


# By name: the paper's, and one for small pictures and two cores.
RECIPES = {
    "paper": Recipe(28, 10, 80),
    "small": Recipe(10, 2, 32, epochs=30, dropout_rate=0.0),
}


def held_out(labels: np.ndarray) -> np.ndarray:
    """Returns [n] bool: one picture in ten of each class, to validate on."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    places = np.empty(len(labels), int)
    places[order] = (
        np.arange(len(labels)) - starts
    )  # number of a picture within its class
    return places % _HELD_OUT == _HELD_OUT - 1


def pretrain(
    pictures: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    directory: str | os.PathLike,
    console: Console = SILENT,
    strategy: tf.distribute.Strategy | None = None,
) -> dict[str, Any]:
    """Trains a backbone, resuming where it stopped, and writes `backbone.keras`.

    Epoch e depends on the seed and e only, so a run that is killed and restarted ends
    like an uninterrupted one. With several replicas a step is that of one device, up to
    the order of sums and to dropout, whose masks they share.

    Args:
      pictures: [n, H, H, 3] uint8; may be a memory map.
      labels: [n] int, the class of each, from 0.
      directory: directory of the state, created if missing.
      strategy: divides each batch among its replicas. An epoch leaves out pictures that
        cannot be divided evenly: fewer than there are replicas, others each time.

    Returns:
      Loss and accuracy of the last epoch, on the pictures trained on and held out.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    kept = held_out(labels)
    rows = np.flatnonzero(~kept), np.flatnonzero(kept)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    steps = -(-(len(rows[0]) // replicas * replicas) // recipe.batch_size)
    num_classes = int(labels.max()) + 1
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = _compiled(recipe, num_classes, steps, synchronized=replicas > 1)
        done = _restore(model, directory)
    epoch = tf.Variable(done, dtype=tf.int32, trainable=False)
    total = recipe.epochs * steps
    with console.progress("pre-training", total, done * steps, "steps") as line:
        history = model.fit(
            _batches(pictures, labels, rows[0], recipe, epoch, steps, replicas),
            validation_data=_as_they_are(pictures, labels, rows[1], recipe) or None,
            epochs=recipe.epochs,
            initial_epoch=done,
            verbose=0,
            shuffle=False,  # batches are shuffled already
            callbacks=[
                _Follow(directory, epoch, recipe, line),
                keras.callbacks.TensorBoard(
                    directory, update_freq="epoch", write_graph=False
                ),
            ],
        ).history
    trained = _network(recipe, num_classes)
    trained.set_weights(model.get_weights())
    path = directory / BACKBONE_FILE
    beside = path.with_name(f"{BACKBONE_FILE}.part.keras")
    try:
        features_of(trained).save(beside)
        beside.replace(path)
    except OSError as error:
        raise DiskError(str(path), "to write a file", str(error)) from error
    finally:
        beside.unlink(missing_ok=True)
    return {name: values[-1] for name, values in history.items()}


def _network(recipe: Recipe, num_classes: int, **options: Any) -> keras.Model:
    return wide_resnet(
        recipe.depth,
        recipe.width,
        recipe.side,
        num_classes,
        dropout_rate=recipe.dropout_rate,
        l2_penalty_weight=recipe.l2_penalty_weight,
        **options,
    )


def _compiled(
    recipe: Recipe, num_classes: int, steps: int, synchronized: bool
) -> keras.Model:
    keras.utils.set_random_seed(recipe.seed)
    dtype = "mixed_bfloat16" if recipe.mixed_precision else "float32"
    model = _network(recipe, num_classes, dtype=dtype, synchronized=synchronized)
    ends = [round(share * recipe.epochs) * steps for share in _DECAYS]
    rates = [recipe.learning_rate / 10**i for i in range(len(ends) + 1)]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates)
    model.compile(
        keras.optimizers.SGD(rate, momentum=_MOMENTUM, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def _batches(pictures, labels, rows, recipe, epoch, steps, replicas=1):
    """Returns the batches of an epoch. Order and views follow from seed and epoch."""
    labels, rows = (tf.constant(x, tf.int32) for x in (labels, rows))

    def shuffled(_):
        seed = tf.stack([recipe.seed, epoch])
        order = tf.random.experimental.stateless_shuffle(rows, seed)
        even = len(rows) // replicas * replicas
        return tf.data.Dataset.from_tensor_slices(order[:even])

    def view(number, batch):
        seed = tf.stack([recipe.seed, epoch * 2**16 + tf.cast(number, tf.int32)])
        views = random_views(
            _taken(pictures, batch),
            recipe.side,
            seed,
            flip=recipe.flip,
            smallest_area=recipe.smallest_area,
        )
        return views, tf.gather(labels, batch)

    batches = tf.data.Dataset.range(1).flat_map(shuffled).batch(recipe.batch_size)
    views = batches.enumerate().map(view, num_parallel_calls=tf.data.AUTOTUNE)
    # Otherwise Keras would mistake the end of the first epoch for the end of data.
    return views.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def _as_they_are(pictures, labels, rows, recipe):
    """Returns batches of picture centers; None if there are no rows."""
    if not len(rows):
        return None
    labels = tf.constant(labels, tf.int32)

    def middle(batch):
        first = (pictures.shape[1] - recipe.side) // 2
        part = slice(first, first + recipe.side)
        views = _taken(pictures, batch)[:, part, part]
        return tf.cast(views, tf.float32), tf.gather(labels, batch)

    batches = tf.data.Dataset.from_tensor_slices(rows.astype(np.int32))
    return batches.batch(recipe.batch_size).map(middle).prefetch(2)


def _taken(pictures, rows):
    """Returns the pictures [n, H, H, 3] of these rows, from memory or a file."""
    taken = tf.numpy_function(lambda r: pictures[r], [rows], tf.uint8, stateful=False)
    return tf.ensure_shape(taken, (None, *pictures.shape[1:]))


class _Follow(keras.callbacks.Callback):
    """Seeds each epoch, shows progress, and saves the state after it.

    Keras's BackupAndRestore writes weights and epoch into two files one after the
    other: if killed in between, it silently trains an epoch twice.
    """

    def __init__(self, directory, epoch, recipe, line):
        super().__init__()
        self._directory, self._epoch, self._recipe = directory, epoch, recipe
        self._line, self._details = line, ""

    def on_train_begin(self, logs=None):
        self._began: float | None = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch.assign(epoch)
        for number, layer in enumerate(self.model.layers):
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                key = self._recipe.seed ^ _KERAS_SEED
                generator.state.assign([key, epoch << 12 | number])

    def on_train_batch_end(self, batch, logs=None):
        if self._began is not None:  # the first step is that of compiling
            self._line.skip_time(time.monotonic() - self._began)
            self._began = None
        self._line.advance(1, self._details)

    def on_epoch_end(self, epoch, logs=None):
        """Saves the state, except after the last epoch."""
        self._details = f"epoch {epoch + 1}/{self._recipe.epochs}"
        self._details += f"  accuracy {100 * logs['accuracy']:.1f} %"
        if "val_accuracy" in logs:
            self._details += f", held out {100 * logs['val_accuracy']:.1f} %"
        if epoch + 1 == self._recipe.epochs:
            return
        path = self._directory / f"state.{epoch + 1}.npz"
        # Not Keras's HDF5, which on a full disk ends the process.
        values = {str(i): v.numpy() for i, v in enumerate(_variables(self.model))}
        content = io.BytesIO()  # Python 3.10 complains of a zip on a full disk at exit
        np.savez(content, **values)
        write_file(path, content.getbuffer())
        remove_states(self._directory, but=path)


def remove_states(directory: pathlib.Path, but: pathlib.Path | None = None) -> None:
    """Removes the states, once results are written or a newer one exists."""
    for path in _states(directory).values():
        if path != but:
            path.unlink()


def has_begun(directory: pathlib.Path) -> bool:
    """Returns whether an epoch has ended in the directory."""
    return bool(_states(directory))


def _states(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns epoch -> path of the state after it."""
    found = ((_STATE.fullmatch(path.name), path) for path in directory.iterdir())
    return {int(match[1]): path for match, path in found if match}


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _restore(model: keras.Model, directory: pathlib.Path) -> int:
    """Loads the newest state; returns the number of epochs it has had."""
    states = _states(directory)
    if not states:
        return 0
    model.optimizer.build(model.trainable_variables)
    path = states[max(states)]
    try:
        values = read_npz(path)
        for number, variable in enumerate(_variables(model)):
            variable.assign(values[str(number)])
    except (OSError, ValueError, KeyError) as error:
        hint = "Remove it; pre-training begins again."
        expected, received = "the state of a pre-training", quoted(str(error))
        raise InputError(str(path), expected, received, hint) from error
    return max(states)
