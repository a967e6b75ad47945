"""Makes a model to deploy from a folder of pictures: `run_leo.py --images=DIR`.

backbone/      small network trained on the training classes, unless one is given
features/      features of the pictures
comparison/    LEO and untrained methods on these features
exported/      the method that was best on the validation classes

Each stage resumes if it was stopped, and is skipped if it is done.
"""

import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from leo_tf.configs.presets import PRESETS
from leo_tf.configs.schema import EMBEDDED_DATASET, Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.feature_files import EMBEDDING_FILE
from leo_tf.data_pipeline.images.class_splits import split_pictures
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.embedding.backbones import BACKBONE_FILE
from leo_tf.embedding.stage_times import in_words, stage_seconds
from leo_tf.embedding.wide_resnet import shape_of
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.evaluation.job_results import Comparison
from leo_tf.experiments.compare import compare
from leo_tf.experiments.embed import check_strategy, embed, pretrain, recipe_of
from leo_tf.export.exporter import export_model, exported_already
from leo_tf.files import AnyPath, near
from leo_tf.methods.defaults import SLOWER, compared
from leo_tf.methods.variants import variant_named

# Settings of LEO on transformed features, good on all sets of docs/results.md.
_SETTINGS = {
    "preset": "",
    "outer_lr": 5e-4,
    "dropout_rate": 0.6,
    "orthogonality_penalty_weight": 0.1,
    "num_steps": 3000,
    "validate_every": 250,
    "patience": 4,
}
_MOST_QUERIES = 15
_OF_PRETRAINING = ("mixed_precision", "strategy")
_FLAGS = {"epochs": "pretrain_epochs", "learning_rate": "pretrain_lr"}


class FromImages(NamedTuple):
    """Results of `from_images`."""

    comparison: Comparison
    exported: pathlib.Path


def from_images(
    images: AnyPath,
    workdir: AnyPath,
    *,
    settings: dict[str, Any] | None = None,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    image_size: int | None = None,
    views: str | None = None,
    recipe: str = "small",
    skip_bad_images: bool = False,
    console: Console = SILENT,
    **training: Any,
) -> FromImages:
    """Trains, compares and exports a few-shot classifier of pictures.

    Args:
      images: see `find_pictures`. `class_split` splits classes if folders do not.
      workdir: directory of all stages. Another call with the same arguments resumes.
      settings: changed settings of LEO and of episodes; mixed_precision and strategy
        are those of pre-training.
      backbone, backbone_weights, image_size, views: as for `embed`. Without a backbone,
        or with wrn_DEPTH_WIDTH, one is trained on the training classes.
      recipe, training: as for `pretrain`.

    Returns:
      The comparison, and the directory of the export.

    Raises:
      LeoError: for any error that the user can fix, such as too few pictures.
    """
    directory, started = pathlib.Path(workdir), time.monotonic()
    settings = dict(settings or {})
    training |= {n: settings.pop(n) for n in _OF_PRETRAINING if n in settings}
    check_strategy(training.get("strategy", "none"))
    is_trained = backbone is None or shape_of(backbone) is not None
    if backbone is not None and not is_trained:
        _check_unused(backbone, {**training, "recipe": recipe})
    if is_trained and backbone_weights is not None:
        expected = "none, because the backbone is trained here"
        raise FlagError("--backbone_weights", expected, backbone_weights)
    config = PRESETS[EMBEDDED_DATASET].config().replace(**_SETTINGS)
    config = config.replace(**settings)
    pictures = split_pictures(images, config.data, console)
    if is_trained and pictures.are_texts:
        expected = "module:callable, which gets texts"
        raise FlagError("--backbone", expected, backbone or "none")
    config = _that_fits(config, pictures, settings)
    common: dict[str, Any] = {"skip_bad_images": skip_bad_images, "console": console}
    console.say(f"{_in_words(pictures)}; all results go to {near(directory)}.")
    changes = {**training, "backbone": backbone, "side": image_size}
    changes.pop("strategy", None)
    seconds = stage_seconds(
        pictures,
        config,
        methods_of(config),
        recipe=recipe_of(recipe, changes) if is_trained else None,
        backbone=(backbone, backbone_weights, image_size),
        views=views,
    )
    _say_times(seconds, directory, console)
    if is_trained:
        place = directory / "backbone"
        training = {"seed": config.run.seed, **training, "backbone": backbone}
        done = pretrain(
            pictures, place, recipe=recipe, image_size=image_size, **common, **training
        )
        _say_done(done, console)
        backbone, image_size = str(place), None
    found = embed(
        pictures,
        directory / "features",
        backbone=backbone,
        backbone_weights=backbone_weights,
        image_size=image_size,
        views=views,
        **common,
    )
    named = {"dataset_name": settings.get("dataset_name", found.name)}
    config = config.replace(**{**found.data(), **named})
    place = directory / "comparison"
    comparison = compare(config, methods_of(config), place, keep=True, console=console)
    best = next(
        row for row in comparison.ranked(comparison.inductive) if row.is_exportable
    )
    run, exported = place / best.name, directory / "exported"
    path = _exported(run, exported, backbone_weights, console)
    console.say(f"All stages took {(time.monotonic() - started) / 60:.1f} min.")
    return FromImages(comparison, path)


def _check_unused(backbone: str, training: dict[str, Any]) -> None:
    """Refuses settings of pre-training with a backbone that is not trained."""
    defaults = {"recipe": "small", "mixed_precision": False, "strategy": "none"}
    for name, value in training.items():
        if value is not None and value != defaults.get(name):
            given = f"--backbone={quoted(backbone)[1:-1]}"
            expected = f"none with {given}, which is not trained"
            raise FlagError(f"--{_FLAGS.get(name, name)}", expected, str(value))


def _exported(
    run: pathlib.Path, export_dir: pathlib.Path, weights: str | None, console: Console
) -> pathlib.Path:
    """Exports a run, unless the newest version is just that."""
    found = exported_already(run, export_dir)
    if found is not None:
        console.say(f"{near(found)} is this model: it is not exported again.")
        return found
    return export_model(run, export_dir, backbone_weights=weights, console=console)


def methods_of(config: Config) -> list[str]:
    """Returns untrained methods, then LEO on the shared and on another transform."""
    variants = {name: variant_named(name) for name in compared(config)}
    untrained = [n for n, each in variants.items() if not each.entry.is_trained]
    quick = [name for name in untrained if variants[name].method not in SLOWER]
    return [*quick, *(n for n, each in variants.items() if each.method == "leo")]


def _that_fits(config: Config, pictures: Pictures, given: dict[str, Any]) -> Config:
    """Returns the configuration with as many queries as the classes allow.

    Raises:
      InputError: if there are too few classes or pictures for any episode.
    """
    shape, sizes = config.episodes, np.bincount(pictures.labels)
    splits = np.array(pictures.splits)
    hint = 'Without training classes, use Classifier("ridge") of leo_tf.serving on '
    hint += "features of --mode=embed (docs/how_many.md)."
    drawn, shots = zip(*shape.shapes)
    tested, shot = shape.evaluation_way, max(*shots, shape.evaluation_shot)
    if config.data.drop_small_classes:
        splits = np.where(sizes > shot, splits, "")
    for split, way in {"train": max(drawn), "val": tested, "test": tested}.items():
        if (count := int((splits == split).sum())) < way:
            where = f"{pictures.source}: classes for {split}"
            expected = f"{way} or more, for {way}-way episodes"
            advice = f"--way={count} needs fewer. {hint}" if count > 1 else hint
            raise InputError(where, expected, str(count), advice)
    sizes = np.where(splits != "", sizes, sizes.max())
    smallest = int(sizes.min())
    if smallest <= shot:
        where = f"{pictures.source}: {pictures.class_names[int(np.argmin(sizes))]}"
        expected = f"more than {shot} pictures, for {shot}-shot episodes"
        hint = f"--drop_small_classes leaves such classes out. {hint}"
        raise InputError(where, expected, str(smallest), hint)
    if "num_query" in given:
        return config
    return config.replace(num_query=min(_MOST_QUERIES, smallest - shot))


def _in_words(pictures: Pictures) -> str:
    parts = []
    for split in ("train", "val", "test"):
        classes = pictures.splits.count(split) if pictures.splits else 0
        parts.append(f"{len(pictures.of_split(split))} of {classes} classes to {split}")
    return f"{pictures.source}: pictures {', '.join(parts)}"


def _say_times(
    seconds: dict[str, float], directory: pathlib.Path, console: Console
) -> None:
    """Prints estimated times of the remaining stages on this machine."""
    ends = {
        "backbone": BACKBONE_FILE,
        "features": EMBEDDING_FILE,
        "comparison": "results.json",
    }
    left = {s: t for s, t in seconds.items() if not (directory / s / ends[s]).exists()}
    words = [f"{stage} {in_words(seconds)}" for stage, seconds in left.items()]
    if "comparison" in left:
        words[-1] = words[-1].replace("about", "at most")
    if words:
        console.say(f"Estimated time: {', '.join(words)}.")


def _say_done(done: dict[str, Any], console: Console) -> None:
    of = "held out" if done["held_out"] else "trained on"
    reached = done["results"]["val_accuracy" if done["held_out"] else "accuracy"]
    console.say(f"Backbone: {100 * reached:.1f} % accuracy on pictures {of}.")
