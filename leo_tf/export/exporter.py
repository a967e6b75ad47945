"""Writes the best checkpoint of a run as a model that runs without this package.

A version is complete or missing, and is never changed:

OUT/<version>/saved_model.pb, variables/    or model.tflite
OUT/<version>/export.json                   description: see `manifest.py`
OUT/<version>/README.md                     the same for people: see `model_card.py`
"""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from leo_tf.configs import rules
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.glyphs.hog import NUM_FEATURES
from leo_tf.errors import CheckpointError, FlagError
from leo_tf.evaluation.confidence import Confidence
from leo_tf.export.manifest import manifest
from leo_tf.export.model_card import model_card
from leo_tf.export.pictures import Encoder, encoder_of
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable, names_for, nearest_of, shape_of
from leo_tf.export.version_directory import (
    check_one_format,
    digests,
    newest,
    version_path,
    whole_directory,
)
from leo_tf.files import AnyPath, read_json, to_json
from leo_tf.methods.built_in import BUILT_IN
from leo_tf.methods.ensemble import Ensemble, without_other
from leo_tf.methods.registry import method_of
from leo_tf.model.learner import AnyLearner, Learner, uneven_adapt
from leo_tf.runs.manifest import Checkpoint
from leo_tf.runs.run import Run, load_run

# Signature of requests that name none.
_DEFAULT_SIGNATURE = "classify"
FORMATS = ("saved_model", "tflite")
_MOST_METADATA_BYTES = 1 << 24
# Share of the largest number by which two ways to the same classifier may differ.
_MOST_APART = 0.01


def export_model(
    workdir: AnyPath,
    export_dir: AnyPath,
    *,
    format: str = "saved_model",
    version: int | None = None,
    max_classes: int = 100,
    max_support: int = 1000,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    console: Console = SILENT,
) -> pathlib.Path:
    """Exports the best checkpoint of a run directory; returns the version's directory.

    If a backbone that runs in TensorFlow made the run's features, a SavedModel includes
    it, and takes pictures too.

    Args:
      export_dir: directory of exported models, one per version.
      format: "saved_model", or "tflite" for LiteRT.
      version: number of the version; None for the highest existing one plus 1.
      max_classes: most classes of a request.
      max_support: most support examples of a request. Time and memory of LEO's relation
        network grow with its square.
      backbone, backbone_weights: place of the backbone if it has moved; see
        `backbone_named`.
      console: reports why the export takes no pictures, if it does not.

    Raises:
      LeoError: for anything the user can fix.
    """
    format = rules.choice(*FORMATS).checked(format, "--export_format")
    caps = {
        name: rules.integer(2).checked(most, f"--{name}")
        for name, most in (("max_classes", max_classes), ("max_support", max_support))
    }
    if version is not None:
        version = rules.integer(1).checked(version, "--export_version")
    run, is_lite = load_run(workdir), format == "tflite"
    trained = run.config
    # Exported in full precision, which servers and devices have.
    run.config = trained.replace(mixed_precision=False)
    best = run.restore_best()
    _check_exportable(run, best.entry("embedding_size", int))
    if is_lite:
        check_convertible(run.learner)
    fitted, dtype = run.confidence(best), run.config.data.dtype
    limits = _limits(run, best, caps, nearest_of(run.learner, fitted))
    path = version_path(export_dir, version)
    check_one_format(export_dir, is_lite)
    encoder = None
    if not is_lite:
        encoder = _encoder(run, best, backbone, backbone_weights, console)
    elif backbone or backbone_weights:
        flag = "--backbone" if backbone else "--backbone_weights"
        expected = "no such flag with --export_format=tflite: it takes no pictures"
        raise FlagError(flag, expected, str(backbone or backbone_weights))
    identity = _identity(run, best, fitted)
    servable = Servable(
        run.learner, limits, dtype, not is_lite, fitted, encoder, identity
    )
    with whole_directory(path) as unfinished:
        if is_lite:
            (unfinished / "model.tflite").write_bytes(to_tflite(servable))
        else:
            _save(servable, limits, unfinished)
        files = digests(unfinished)
        names = names_for(run.learner, encoder is not None)
        given = run.path, trained, best, limits, format, files, names, fitted
        metadata = manifest(*given, run.mix(best), encoder and encoder.metadata)
        (unfinished / "export.json").write_text(json.dumps(metadata, indent=1))
        (unfinished / "README.md").write_text(model_card(metadata), encoding="utf-8")
    return path


def _encoder(
    run: Run,
    best: Checkpoint,
    backbone: str | None,
    weights: str | None,
    console: Console,
) -> Encoder | None:
    """Returns the encoder of the run's features; reports why if there is none."""
    made, size = best.manifest.get("embedding"), best.entry("embedding_size", int)
    is_embedded = run.config.data.is_embedded and size == NUM_FEATURES
    given, flag = backbone, "--backbone"
    if weights and not given:
        given, flag = weights, "--backbone_weights"
    if given and (is_embedded or made is None):
        expected = "no such flag: no backbone is recorded for the run's features"
        raise FlagError(flag, expected, given)
    found = encoder_of(made, is_embedded, backbone, weights)
    if isinstance(found, Encoder):
        return found
    if given:
        raise FlagError(flag, "what made the run's features", found)
    console.say(f"The export takes features, not pictures: {found}.")
    return None


def exported_already(workdir: AnyPath, export_dir: AnyPath) -> pathlib.Path | None:
    """Returns the newest version if it is an undamaged export of this run's best.

    That is, of the same method, step, configuration and data. Otherwise None.
    """
    path, run = pathlib.Path(export_dir, str(newest(export_dir))), load_run(workdir)
    best = run.checkpoints.best()
    try:
        metadata = read_json(path / "export.json", _MOST_METADATA_BYTES)
        found = metadata["config"], metadata["step"], metadata["trained_on"]["digests"]
        config = json.loads(json.dumps(run.config.to_dict()))
        files = {name: path / name for name in metadata["files"]}
        if found != (config, best.step, best.entry("data", dict)):
            return None
        sums = {n: sha256(f.read_bytes()).hexdigest() for n, f in files.items()}
        return path if sums == metadata["files"] else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged
        return None


def _check_exportable(run: Run, size: int) -> None:
    """Raises a FlagError for a method whose export would fail, or answer otherwise."""
    if not getattr(without_other(run.learner), "is_exportable", True):
        name = run.config.methods.method
        expected = "a method that runs in TensorFlow"
        hint = "Save the estimator itself, as scikit-learn's documentation shows."
        raise FlagError("--mode=export", expected, name, hint)
    if method_of(run.config) in BUILT_IN.values() or hasattr(run.learner, "answer"):
        return
    way = getattr(run.learner, "way", None) or 3
    shape, dtype = [1, way, 2, size], run.config.data.dtype
    rows = tf.random.stateless_normal(shape, [1, 2], dtype=dtype)
    rows = tf.math.l2_normalize(rows, axis=-1)
    each = tf.repeat(tf.range(way, dtype=tf.int64), 2)
    even = run.learner.adapt(rows, tf.reshape(each, [1, way, 2])).classifier[0]
    given = tf.reshape(rows, [-1, size]), each, tf.constant(way)
    uneven = uneven_adapt(run.learner)(*given).classifier
    most = _MOST_APART * np.abs(even).max()
    if even.shape != uneven.shape or np.abs(even - uneven).max() > most:
        expected = "an `adapt_uneven` that makes the classifiers of `adapt`"
        received = f"{run.config.methods.method}, whose makes others"
        raise FlagError("--method", expected, received)


def _identity(run: Run, best: Checkpoint, fitted: Confidence | None) -> int:
    """Returns a number of 48 bits, exact in JSON, of what a classifier depends on."""
    mix = run.mix(best)
    parts: list[Any] = [best.manifest, run.config.to_dict()]
    parts += [fitted and fitted.score, mix and mix.as_dict()]
    return int(sha256(to_json(parts)).hexdigest()[:12], 16)


def _limits(
    run: Run, best: Checkpoint, caps: Mapping[str, int], nearest: Learner | None
) -> Limits:
    """Returns the limits of requests. Adapting once gives P and tests the variables."""
    size, way = best.entry("embedding_size", int), getattr(run.learner, "way", None)
    for name, most in caps.items():
        if way and most < way:
            expected = f"{way} or more, the way this method was trained for"
            raise FlagError(f"--{name}", expected, f"{most}")
    if hasattr(run.learner, "answer"):  # has no classifier
        return Limits(size, 0, **caps)
    labels = tf.range(way or 2, dtype=tf.int64)
    unit = tf.constant(size**-0.5, run.config.data.dtype)
    support = tf.fill([len(labels), size], unit)
    adapted = uneven_adapt(run.learner)(support, labels, tf.constant(len(labels)))
    if not np.all(np.isfinite(adapted.classifier)):
        expected = "variables that give finite classifiers"
        raise CheckpointError(str(best.path), expected, "NaN or infinity")
    parameters, means = adapted.classifier.shape[-1], 0
    if nearest is not None:
        found = uneven_adapt(nearest)(support, labels, tf.constant(len(labels)))
        means = found.classifier.shape[-1]
    return Limits(size, parameters + means, means=means, way=way, **caps)


def _save(servable: Servable, limits: Limits, path: pathlib.Path) -> None:
    signatures = servable.signatures()
    default = {"serving_default": signatures[_DEFAULT_SIGNATURE]}
    try:
        tf.saved_model.save(servable, str(path), signatures={**signatures, **default})
        _write_shapes(limits, path)
    # Errors of TensorFlow's C++, and of a file that was damaged after writing.
    except (RuntimeError, ValueError, DecodeError) as error:
        raise OSError(str(error)) from error


def _write_shapes(limits: Limits, path: pathlib.Path) -> None:
    """Writes the inputs' shapes where `saved_model_cli show` and servers read them.

    The graph itself takes any shape. Otherwise TensorFlow would refuse a wrong one
    with a long message of its own before our checks run, and could drop these.
    """
    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for signature in saved.meta_graphs[0].signature_def.values():
        for name, tensor in signature.inputs.items():
            shape = tf.TensorShape(shape_of(name, limits))
            tensor.tensor_shape.CopyFrom(shape.as_proto())
    file.write_bytes(saved.SerializeToString(deterministic=True))
    # Digest of the file before this change. export.json has those of all files.
    (path / "fingerprint.pb").unlink(missing_ok=True)


def check_convertible(learner: AnyLearner) -> None:
    """Raises a FlagError if the method needs operators that TensorFlow Lite lacks.

    It lacks factorisations of matrices, and gradients of element-wise products of
    unknown shapes, as in MAML's inner loop. LEO's inner loop avoids them.
    """
    if not getattr(learner, "runs_on_litert", False):
        expected = "saved_model, because TensorFlow Lite lacks operators of this method"
        inner: Any = getattr(learner, "learner", learner)  # after a feature transform
        parts = (inner.learner, inner.other) if isinstance(inner, Ensemble) else [inner]
        parts = [p for p in parts if not getattr(p, "runs_on_litert", False)]
        received = f"tflite for {type(parts[0]).__name__}"
        raise FlagError("--export_format", expected, received)


def to_tflite(servable: Servable) -> bytes:
    """Returns a .tflite file of the four signatures, with all sizes dynamic.

    Args:
      servable: a servable without checks, because TensorFlow Lite drops assertions.
    """
    signatures = servable.signatures()
    with tempfile.TemporaryDirectory() as path:
        tf.saved_model.save(servable, path, signatures=signatures)
        load = tf.lite.TFLiteConverter.from_saved_model
        converter = load(path, signature_keys=sorted(signatures))
        # Built-in operators only, because LiteRT has no others by default.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
