"""Writes the best checkpoint of a run as a model that needs nothing of this package.

OUT/<version>/saved_model.pb, variables/    or model.tflite
OUT/<version>/export.json                   what it is: see `manifest.py`
"""

import json
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from leo_tf.configs import rules
from leo_tf.errors import CheckpointError, DiskError, FlagError
from leo_tf.export.manifest import manifest
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable
from leo_tf.export.version_directory import digests, version_path, whole_directory
from leo_tf.files import AnyPath
from leo_tf.methods.registry import build
from leo_tf.model.learner import Learner, uneven_adapt
from leo_tf.runs.manifest import Checkpoint
from leo_tf.runs.run import Run, load_run

# What requests without a signature's name ask for.
_DEFAULT_SIGNATURE = "classify"
FORMATS = ("saved_model", "tflite")


def export_model(
    workdir: AnyPath,
    export_dir: AnyPath,
    *,
    format: str = "saved_model",
    version: int | None = None,
    max_classes: int = 100,
    max_support: int = 1000,
) -> pathlib.Path:
    """Exports the best checkpoint of a run directory; returns the version's directory.

    Args:
      export_dir: a directory of exported models, a version each.
      format: "saved_model", or "tflite" for LiteRT.
      version: number of the version; None for the highest there is, plus 1.
      max_classes: most classes of a request.
      max_support: most support examples of a request. Time and memory of LEO's relation
        network grow with its square.

    Raises:
      LeoError: for anything the user can mend.
    """
    format = rules.choice(*FORMATS).checked(format, "--export_format")
    caps = {
        name: rules.integer(2).checked(most, f"--{name}")
        for name, most in (("max_classes", max_classes), ("max_support", max_support))
    }
    if version is not None:
        version = rules.integer(1).checked(version, "--export_version")
    run, is_lite = load_run(workdir), format == "tflite"
    size = run.checkpoints.best().fact("embedding_size", int)
    # In whole precision, whatever it was trained in: servers and devices have it.
    run.learner = build(run.config.replace(mixed_precision=False), size)
    best = run.restore_best()
    if is_lite:
        check_convertible(run.learner)
    limits = _limits(run, best, caps)
    servable = Servable(run.learner, limits, run.config.data.dtype, checked=not is_lite)
    _check_one_format(export_dir, is_lite)
    path = version_path(export_dir, version)
    with whole_directory(path) as unfinished:
        if is_lite:
            (unfinished / "model.tflite").write_bytes(to_tflite(servable))
        else:
            _save(servable, unfinished)
        files = digests(unfinished)
        facts = manifest(run.path, run.config, best, limits, format, files)
        (unfinished / "export.json").write_text(json.dumps(facts, indent=1))
    return path


def _check_one_format(export_dir: AnyPath, is_lite: bool) -> None:
    """A server that finds a version of another format has no model to answer with."""
    other = "saved_model.pb" if is_lite else "model.tflite"
    try:
        file = next(pathlib.Path(export_dir).glob(f"[0-9]*/{other}"), None)
    except OSError as error:
        raise DiskError(str(export_dir), "to read it", str(error)) from error
    if file:
        expected = "a directory of one format, for servers take its newest version"
        raise FlagError("--export_dir", expected, f"{file} there")


def _limits(run: Run, best: Checkpoint, caps: Mapping[str, int]) -> Limits:
    """What the export takes; P and whether it works is seen by trying."""
    size, way = best.fact("embedding_size", int), getattr(run.learner, "way", None)
    for name, most in caps.items():
        if way and most < way:
            expected = f"{way} or more, the classes this method was trained for"
            raise FlagError(f"--{name}", expected, f"{most}")
    labels = tf.range(way or 2, dtype=tf.int64)
    unit = tf.constant(size**-0.5, run.config.data.dtype)
    support = tf.fill([len(labels), size], unit)
    adapted = uneven_adapt(run.learner)(support, labels, tf.constant(len(labels)))
    if not np.all(np.isfinite(adapted.classifier)):
        expected = "variables that give finite classifiers"
        raise CheckpointError(str(best.path), expected, "NaN or infinity")
    return Limits(size, adapted.classifier.shape[-1], way=way, **caps)


def _save(servable: Servable, path: pathlib.Path) -> None:
    signatures = servable.signatures()
    default = {"serving_default": signatures[_DEFAULT_SIGNATURE]}
    try:
        tf.saved_model.save(servable, str(path), signatures={**signatures, **default})
    except (RuntimeError, ValueError) as error:  # of the parts that are not Python
        raise OSError(str(error)) from error


def check_convertible(learner: Learner) -> None:
    """Refuses methods that need operators TensorFlow Lite has not: FlagError.

    Those are factorisations of matrices, and gradients of element-wise products of
    unknown shapes, as MAML's inner loop has them; LEO's here is written without.
    """
    if not getattr(learner, "runs_on_litert", False):
        expected = "saved_model, for TensorFlow Lite lacks operators of this method"
        received = f"tflite for {type(learner).__name__}"
        raise FlagError("--export_format", expected, received)


def to_tflite(servable: Servable) -> bytes:
    """Returns a .tflite file of the four signatures, with all sizes dynamic.

    Args:
      servable: one that does not check: TensorFlow Lite drops assertions.
    """
    signatures = servable.signatures()
    with tempfile.TemporaryDirectory() as path:
        tf.saved_model.save(servable, path, signatures=signatures)
        load = tf.lite.TFLiteConverter.from_saved_model
        converter = load(path, signature_keys=sorted(signatures))
        # Built-in operators only: whatever runs the file has no others.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
