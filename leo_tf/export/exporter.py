"""Writes the best checkpoint of a run as a model that needs nothing of this package.

OUT/<version>/saved_model.pb, variables/    or model.tflite
OUT/<version>/export.json                   what it is: see `export_manifest.py`
"""

import json
import pathlib

import numpy as np
import tensorflow as tf

from leo_tf.cli.flags import RunOptions
from leo_tf.configs.schema import Config
from leo_tf.errors import CheckpointError, DiskError, FlagError
from leo_tf.export.manifest import manifest
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable
from leo_tf.export.tflite import check_convertible, to_tflite
from leo_tf.export.version_directory import digests, version_path, whole_directory
from leo_tf.methods.registry import build
from leo_tf.model.learner import Learner, uneven_adapt
from leo_tf.runs.checkpoints import Checkpoint, Checkpoints, restore
from leo_tf.runs.directory import RunDirectory

# What requests without a signature's name ask for.
_DEFAULT_SIGNATURE = "classify"


def export_run(options: RunOptions) -> pathlib.Path:
    """Exports the best checkpoint of a run directory.

    Returns:
      The directory of the new version.

    Raises:
      LeoError: for anything the user can mend.
    """
    directory = RunDirectory(options.workdir)
    config = directory.config()
    best = Checkpoints(directory.path).best()
    learner = _trained(config, best)
    is_lite = options.export_format == "tflite"
    if is_lite:
        check_convertible(learner)
    limits = _limits(learner, config, best, options)
    servable = Servable(learner, limits, config.data.dtype, checked=not is_lite)
    _check_one_format(options.export_dir, is_lite)
    path = version_path(options.export_dir, options.export_version)
    with whole_directory(path) as unfinished:
        if is_lite:
            (unfinished / "model.tflite").write_bytes(to_tflite(servable))
        else:
            _save(servable, unfinished)
        facts = manifest(
            directory.path,
            config,
            best,
            limits,
            options.export_format,
            digests(unfinished),
        )
        (unfinished / "export.json").write_text(json.dumps(facts, indent=1))
    print(f"Export of step {best.step}: {path}")
    return path


def _trained(config: Config, best: Checkpoint) -> Learner:
    """The method with the variables of a checkpoint; no data is loaded."""
    # In whole precision, whatever it was trained in: servers and devices have it.
    config = config.replace(mixed_precision=False)
    learner = build(config, best.fact("embedding_size", int))
    variables = {v.path: v.value for v in learner.trainable_variables}
    restore(best, variables)
    return learner


def _check_one_format(export_dir: str, is_lite: bool) -> None:
    """A server that finds a version of another format has no model to answer with.

    Raises:
      FlagError: if there is one.
      DiskError: if the directory cannot be read.
    """
    other = "saved_model.pb" if is_lite else "model.tflite"
    try:
        files = list(pathlib.Path(export_dir).glob(f"[0-9]*/{other}"))
    except OSError as error:
        raise DiskError(str(export_dir), "to read it", str(error)) from error
    for file in files:
        expected = "a directory of one format, for servers take its newest version"
        raise FlagError("--export_dir", expected, f"{file} there")


def _limits(learner, config, best, options) -> Limits:
    """What the export takes; P and whether it works is seen by trying.

    Raises:
      CheckpointError: if its answer is not finite.
      FlagError: if a cap leaves no request that the method could answer.
    """
    size, way = best.fact("embedding_size", int), getattr(learner, "way", None)
    for name in ("max_classes", "max_support"):
        if way and getattr(options, name) < way:
            expected = f"{way} or more, the classes this method was trained for"
            raise FlagError(f"--{name}", expected, f"{getattr(options, name)}")
    labels = tf.range(way or 2, dtype=tf.int64)
    support = tf.fill([len(labels), size], tf.constant(size**-0.5, config.data.dtype))
    adapted = uneven_adapt(learner)(support, labels, tf.constant(len(labels)))
    if not np.all(np.isfinite(adapted.classifier)):
        expected = "variables that give finite classifiers"
        raise CheckpointError(str(best.path), expected, "NaN or infinity")
    return Limits(
        embedding_size=size,
        parameters=adapted.classifier.shape[-1],
        max_classes=options.max_classes,
        max_support=options.max_support,
        way=way,
    )


def _save(servable: Servable, path: pathlib.Path) -> None:
    signatures = servable.signatures()
    default = {"serving_default": signatures[_DEFAULT_SIGNATURE]}
    try:
        tf.saved_model.save(servable, str(path), signatures={**signatures, **default})
    except (RuntimeError, ValueError) as error:  # of the parts that are not Python
        raise OSError(str(error)) from error
