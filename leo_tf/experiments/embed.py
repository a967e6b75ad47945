"""Jobs on pictures: pre-training a backbone, and turning pictures into features."""

import contextlib
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from leo_tf.configs.settings import DataConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.glyphs import cache
from leo_tf.data_pipeline.images.class_splits import (
    ALL,
    split_pictures,
    unsplit_pictures,
)
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.data_pipeline.images.worker import VERSION as DECODER_VERSION
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.embedding import pretraining
from leo_tf.embedding.backbones import (
    BACKBONE_FILE,
    HOG,
    Backbone,
    backbone_named,
)
from leo_tf.embedding.embed import embed_pictures, embedding_of
from leo_tf.embedding.pixels import PIXELS_FILE, decoded
from leo_tf.embedding.pretraining import RECIPES, Recipe, has_begun, held_out
from leo_tf.embedding.views import decoded_side
from leo_tf.embedding.wide_resnet import shape_of
from leo_tf.environment import versions
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.files import AnyPath, read_json, to_json, write_file
from leo_tf.runs.directory import RunDirectory
from leo_tf.training.interrupts import StopRequest
from leo_tf.training.replicas import Replicas, mirrored

PRETRAINING_FILE = "pretraining.json"
_MOST_JSON_BYTES = 1 << 24  # with the names of all classes


class Embedded(NamedTuple):
    """Name of the pictures, directory of their features, and embedding.json."""

    name: str
    directory: pathlib.Path
    metadata: dict[str, Any]

    def data(self) -> dict[str, Any]:
        """Returns the fields of `DataConfig` that load the features."""
        if ALL in self.metadata["sizes"]:  # folds share their classes
            path = self.directory / f"{ALL}.npz"
            return {"data_path": str(path), "dataset_name": self.name}
        done = {"class_split": "", "class_folds": 0, "fold": None, "split_seed": 0}
        return {"data_path": str(self.directory), "dataset_name": self.name, **done}


def embed(
    images: AnyPath | Pictures,
    features_dir: AnyPath | None = None,
    *,
    data: DataConfig | None = None,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    image_size: int | None = None,
    views: str | None = None,
    skip_bad_images: bool = False,
    console: Console = SILENT,
) -> Embedded:
    """Turns pictures into files of features for `--data_path`.

    Args:
      images: see `find_pictures`; or those of `split_pictures`.
      features_dir: directory of the files. A stopped job resumes there. None for a
        directory in the user's cache, named by a digest of everything they depend on.
      data: split of the classes if folders define none; None for that of
        `class_splits.py`. With `class_folds` and no `fold`, one file holds all classes.
      backbone, backbone_weights, image_size: see `backbone_named`.
      views: one of `embedding.views.VIEWS`. None for the whole picture with hog, as in
        the embedded features, else its center.
      skip_bad_images: leave out and list pictures that cannot be read.

    Raises:
      LeoError: for any error that the user can fix.
    """
    if (
        isinstance(images, Pictures)
        or data is None
        or not data.class_folds
        or data.fold is not None
    ):
        pictures = split_pictures(images, data, console)
        for split in SPLITS:
            if split not in (pictures.splits or ()):
                where = f"{pictures.source}: classes for {split}"
                raise InputError(where, "one or more", "none")
    else:
        pictures = unsplit_pictures(images, data, console)
    backbone = backbone or HOG
    _check_not_seen(backbone, pictures)
    found = backbone_named(backbone, backbone_weights, image_size)
    if views is not None and found.side is None:
        expected = "--image_size too: without it the backbone opens the files itself"
        raise FlagError("--views", expected, views)
    views = views or ("whole" if backbone == HOG else "center")
    base = os.path.basename(os.path.abspath(pictures.source))
    name = base.replace("..", "_") or "pictures"
    if features_dir is None:
        features_dir = _cached(name, pictures, found, views)
    console.say(
        f"{len(pictures.items)} pictures of {len(pictures.class_names)} classes"
    )
    # A finished directory may be read-only, or in use by others.
    done = embedding_of(features_dir) is not None
    held = contextlib.nullcontext() if done else RunDirectory(features_dir).held()
    with held, StopRequest() as stop:
        metadata = embed_pictures(
            pictures,
            found,
            features_dir,
            views=views,
            skip_bad=skip_bad_images,
            check=stop.check,
            console=console,
        )
    return Embedded(name, pathlib.Path(features_dir), metadata)


def pretrain(
    images: AnyPath | Pictures,
    workdir: AnyPath,
    *,
    data: DataConfig | None = None,
    recipe: str = "small",
    image_size: int | None = None,
    skip_bad_images: bool = False,
    strategy: str = "none",
    console: Console = SILENT,
    **changes: Any,
) -> dict[str, Any]:
    """Trains a backbone on the training classes of pictures, or resumes.

    Args:
      images, data: as for `embed`.
      workdir: directory of backbone.keras, pretraining.json and TensorBoard's files.
      recipe: name in `pretraining.RECIPES`.
      image_size: S, if not the recipe's.
      strategy: none, or mirrored for all devices of this machine. (Keras's `fit` does
        not work with several machines: https://github.com/keras-team/keras/issues/20585)
      changes: changed fields of `Recipe`; `backbone` gives depth and width.

    Returns:
      The content of pretraining.json.

    Raises:
      LeoError: for any error that the user can fix.
    """
    recipe_used = recipe_of(recipe, {**changes, "side": image_size})
    replicas = _replicas(strategy, recipe_used.batch_size, console)
    pictures = split_pictures(images, data, console)
    if pictures.images is not None and changes.get("flip") is None:
        # The embedded characters: mirrored ones are different ones.
        recipe_used = recipe_used._replace(flip=False)
    chosen = pictures.of_split("train")
    job = {
        "recipe": recipe_used._asdict(),
        "skip_bad_images": skip_bad_images,
        "pictures": pictures.part(chosen).digest(),
        "trained_on": _classes_of(pictures, "train"),
    }
    directory = pathlib.Path(workdir)
    with RunDirectory(directory).held():
        path = directory / PRETRAINING_FILE
        # Before the first epoch ends, nothing depends on the job, so it may change.
        is_begun = has_begun(directory) or (directory / BACKBONE_FILE).is_file()
        begun = _begun(path, job) if is_begun else {}
        if "results" in begun and (directory / BACKBONE_FILE).is_file():
            return begun
        write_file(path, to_json(job))
        side = decoded_side(recipe_used.side, "center")
        given = pictures, chosen, side, directory, skip_bad_images, console
        pixels, labels = decoded(*given)
        sizes = {
            "classes": len(np.unique(labels)),
            "rows": len(labels),
            "held_out": int(held_out(labels).sum()),
        }
        console.say(f"{sizes['classes']} classes, {len(labels)} pictures")
        found = pretraining.pretrain(
            pixels, labels, recipe_used, directory, console, replicas.strategy
        )
        done = {**job, **sizes, "results": found, "versions": versions()}
        write_file(path, to_json(done))
        pretraining.remove_states(directory)
        (directory / PIXELS_FILE).unlink(missing_ok=True)
    return done


def check_strategy(strategy: str) -> None:
    """Raises a FlagError for a strategy that cannot train a backbone."""
    if strategy == "multi_worker":
        expected = "none or mirrored: a backbone is trained on one machine"
        raise FlagError("--strategy", expected, strategy)


def _replicas(strategy: str, batch_size: int, console: Console) -> Replicas:
    """Returns the replicas that train a backbone together."""
    check_strategy(strategy)
    if strategy == "none":
        return Replicas()
    replicas = mirrored(console.say)
    if batch_size % replicas.count:
        expected = f"a number of devices that divides batches of {batch_size} pictures"
        raise FlagError("--strategy", expected, str(replicas.count))
    return replicas


def _begun(path: pathlib.Path, job: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of this job's pretraining.json; {} without one."""
    if not path.is_file():
        return {}
    hint = "Give another --workdir."
    try:
        begun = dict(read_json(path, _MOST_JSON_BYTES))
        kept = _flat(begun)
    except (OSError, ValueError, TypeError) as error:
        expected = "a file of --mode=pretrain"
        raise InputError(str(path), expected, quoted(str(error)), hint) from error
    for name, value in _flat(job).items():
        if kept.get(name) != value:
            where = f"{path}: `{name}`"
            raise InputError(where, quoted(kept.get(name)), quoted(value), hint)
    return begun


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    """Returns a job with its recipe's fields beside the others."""
    return {**job, **job.get("recipe", {}), "recipe": None}


def _classes_of(pictures: Pictures, *splits: str) -> list[str]:
    names = zip(pictures.class_names, pictures.splits or ())
    return [name for name, split in names if split in splits]


def _check_not_seen(backbone: str, pictures: Pictures) -> None:
    """Refuses a pre-trained backbone that has seen classes of val or test."""
    place = pathlib.Path(backbone)
    if not place.exists():  # a name
        return
    path = (place if place.is_dir() else place.parent) / PRETRAINING_FILE
    trained_on = _begun(path, {}).get("trained_on", ())
    seen = sorted({*trained_on} & {*_classes_of(pictures, "val", "test", ALL)})
    if seen:
        few = ", ".join(map(quoted, seen[:3]))
        hint = "Split as in pre-training: --class_split or --fold, and --split_seed."
        expected = "none of the classes for val and test"
        raise InputError(f"{path}: `trained_on`", expected, f"{few}, ...", hint)


def recipe_of(name: str, changes: dict[str, Any]) -> Recipe:
    """Returns a recipe of `RECIPES` with the changes that are not None.

    Raises:
      FlagError: if `backbone` is not a wrn_DEPTH_WIDTH.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    if (backbone := changes.pop("backbone", None)) is not None:
        shape = shape_of(backbone)
        if shape is None:
            expected = "wrn_DEPTH_WIDTH, a depth of 10, 16, 22, 28 and so on"
            raise FlagError("--backbone", expected, quoted(backbone))
        changes |= {"depth": shape[0], "width": shape[1]}
    return RECIPES[name]._replace(**changes)


def _cached(
    name: str, pictures: Pictures, backbone: Backbone, views: str
) -> pathlib.Path:
    """Returns the cache directory for features of these pictures by this backbone."""
    parts = pictures.digest(), backbone.name, backbone.digest, views
    described = to_json(
        [*parts, backbone.side, backbone.preprocessing, DECODER_VERSION]
    )
    digest = hashlib.sha256(described).hexdigest()[:16]
    path = cache.locate(f"features/{name}-{digest}")
    if path is None:
        raise FlagError("--features_dir", "a directory (there is no cache)", "nothing")
    return path
