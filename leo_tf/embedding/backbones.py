"""Backbones by name, which turn pictures or other items into features.

hog                  the embedded set's 640 histograms of gradients, of any picture
ResNet50, ...        every model of `keras.applications`
FILE.keras           a Keras model, ours from `--mode=pretrain` included
DIRECTORY            of a pre-training, or a SavedModel
module:callable      any function of a list of items: [n, D]

Shapes: n pictures, S pixels a side, D numbers per picture.
"""

import contextlib
import hashlib
import inspect
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from leo_tf.embedding.wide_resnet import shape_of
from leo_tf.environment import import_users
from leo_tf.errors import FlagError, InputError, quoted

HOG = "hog"
BACKBONE_FILE = "backbone.keras"  # in the directory of a pre-training
_HOG_SIDE = 32
# Side of the pictures most models of `keras.applications` were trained on; others.
_USUAL_SIDE = 224
_SIDES = {"InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299}
_SIDES |= {"NASNetLarge": 331}
_SIDES |= {f"EfficientNetB{i}": s for i, s in enumerate((224, 240, 260, 300))}
_SIDES |= {f"EfficientNetB{i}": s for i, s in enumerate((380, 456, 528, 600), 4)}
_SIDES |= {f"EfficientNetV2B{i}": s for i, s in enumerate((224, 240, 260, 300))}
_SIDES |= {"EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480}
_WEIGHTS = "--backbone_weights"
# Fields of a Keras config that name layers. Keras numbers the names that it makes up,
# and keeps counting from model to model.
_NAMING = ("name", "keras_history", "input_layers", "output_layers")
_NUMBER = re.compile(r"_[0-9]+\Z")


class Backbone(NamedTuple):
    """A function from items to features, and its identity.

    Attributes:
      name: as given.
      embed: maps pictures [n, S, S, 3] uint8, or a list of items, to [n, D] numbers.
      side: S; None if it takes items as they are.
      digest: SHA-256 of its weights and layers, or of the source of a callable.
      preprocessing: description in words.
      in_graph: `embed` of tensors, for exports that take pictures; None if it does not
        run in TensorFlow.
      held: objects of TensorFlow that have its variables.
    """

    name: str
    embed: Callable[[Any], np.ndarray]
    side: int | None
    digest: str
    preprocessing: str
    in_graph: Callable[[Any], Any] | None = None
    held: Sequence[Any] = ()


def backbone_named(
    name: str, weights: str | None = None, side: int | None = None
) -> Backbone:
    """Returns the backbone of a name.

    Args:
      name: as above.
      weights: for a model of `keras.applications`: "imagenet", which Keras downloads;
        "none", drawn at random from seed 0; or a file. None for imagenet.
      side: S, where the backbone takes any; None for its own.

    Raises:
      FlagError: if there is no such backbone, or it does not take these arguments.
      InputError: if its file or module cannot be loaded.
    """
    if weights is not None and name not in _applications():
        _refuse(_WEIGHTS, "a model of keras.applications as --backbone", name)
    if name == HOG:
        return _hog(side)
    if name in _applications():
        return _application(name, weights or "imagenet", side)
    if pathlib.Path(name).exists():
        return _saved(name, side)
    if ":" in name and not name.endswith(".keras"):
        return _callable(name, side)
    expected = "hog, a model of keras.applications (ResNet50), a .keras file, a "
    expected += "SavedModel, or module:callable"
    raise FlagError("--backbone", expected, quoted(name), _like(name))


def _hog(side: int | None) -> Backbone:
    from leo_tf.data_pipeline.glyphs import hog
    from leo_tf.data_pipeline.glyphs.hog_in_graph import hog_in_graph

    if side not in (None, _HOG_SIDE):
        _refuse("--image_size", f"{_HOG_SIDE}, or none, with hog", side)

    def embed(pictures):
        return hog.hog(_grey(pictures.astype(np.int32)).astype(np.uint8))

    def in_graph(pictures):
        return hog_in_graph(_grey(tf.cast(pictures, tf.int32)))

    import tensorflow as tf

    words = "grey by ITU-R BT.601"
    return Backbone(HOG, embed, _HOG_SIDE, hog.VERSION, words, in_graph)


def _grey(pictures: Any) -> Any:
    """[n, S, S] of red, green, blue [n, S, S, 3]: whole numbers, whoever computes."""
    red, green, blue = (pictures[..., i] for i in range(3))
    return (299 * red + 587 * green + 114 * blue + 500) // 1000


def _applications() -> Mapping[str, Any]:
    """Returns name of a model -> its module in `keras.applications`."""
    import keras

    modules = vars(keras.applications).values()
    modules = [m for m in modules if hasattr(m, "preprocess_input")]
    return {
        name: module
        for module in modules
        for name, value in vars(module).items()
        if name[:1].isupper() and callable(value)
    }


def _like(name: str) -> str:
    """Returns a hint with the intended name, or how to get it; or ""."""
    if shape_of(name):
        return "--mode=pretrain trains one, and its --workdir is a backbone then."
    found = [known for known in _applications() if known.lower() == name.lower()]
    return f"Did you mean {found[0]}?" if found else ""


def _application(name: str, weights: str, side: int | None) -> Backbone:
    import keras

    module, side = _applications()[name], side or _SIDES.get(name, _USUAL_SIDE)
    if weights not in ("imagenet", "none") and not os.path.isfile(weights):
        raise InputError(f"{_WEIGHTS}={weights}", "imagenet, none or a file", "no file")
    if weights == "none":
        keras.utils.set_random_seed(0)
    options: dict[str, Any] = {"include_top": False, "pooling": "avg"}
    options["weights"] = None if weights == "none" else weights
    try:
        model = getattr(module, name)(input_shape=(side, side, 3), **options)
    except Exception as error:  # Keras and the network may raise anything
        hint = f"Give {_WEIGHTS}=FILE, downloaded elsewhere, or none for random ones."
        what = f"{name} with weights {weights} for pictures of {side} x {side}"
        raise InputError("--backbone", what, _brief(error), hint) from error

    preprocessing = f"keras.applications.{module.__name__.rpartition('.')[2]}"
    prepare = module.preprocess_input
    return _of_model(name, model, side, prepare, f"{preprocessing}.preprocess_input")


def _saved(path: str, side: int | None) -> Backbone:
    """Loads a .keras file, or a directory with a SavedModel."""
    if os.path.isfile(os.path.join(path, BACKBONE_FILE)):
        path = os.path.join(path, BACKBONE_FILE)
    if os.path.isdir(path):
        return _saved_model(path, side)
    import keras

    try:
        # Without the code of Lambda layers: a file runs nothing.
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # damage may raise anything
        raise InputError(path, "a Keras model (.keras)", _brief(error)) from error
    try:  # several inputs or outputs have a list of shapes
        shape, out = model.input_shape, model.output_shape
    except (AttributeError, ValueError):  # of a Sequential without an input
        shape = out = None
    side = _side_of(path, shape, side)
    if not isinstance(out, tuple) or len(out) != 2:
        hint = "End it with a layer such as GlobalAveragePooling2D."
        raise InputError(path, "an output [n, D]", str(out), hint)
    return _of_model(path, model, side, lambda pictures: pictures, "none")


def _side_of(path: str, shape: Any, side: int | None) -> int:
    """Returns S for a model whose input has this shape, and for --image_size."""
    is_one = isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (3, None)
    if not is_one or shape[1] != shape[2]:
        raise InputError(path, "an input [n, side, side, 3]", str(shape))
    if shape[1] and side not in (None, shape[1]):
        _refuse("--image_size", f"{shape[1]}, which {path} takes", side)
    return shape[1] or side or _USUAL_SIDE


def _saved_model(path: str, side: int | None) -> Backbone:
    import tensorflow as tf

    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise InputError(path, "a SavedModel", "no saved_model.pb")
    try:
        loaded = tf.saved_model.load(path)
        function = loaded.signatures["serving_default"]
        ((key, spec),) = function.structured_input_signature[1].items()
        (out,) = function.structured_outputs
        shape = None if spec.shape.rank is None else tuple(spec.shape)
    except Exception as error:  # damage may raise anything
        expected = "a SavedModel whose serving_default has one input and one output"
        raise InputError(path, expected, _brief(error)) from error
    side = _side_of(path, shape or (None, None, None, 3), side)

    def in_graph(pictures):
        function = loaded.signatures["serving_default"]  # lives as long as `loaded`
        return function(**{key: tf.cast(pictures, spec.dtype)})[out]

    def embed(pictures):
        return in_graph(pictures).numpy()

    files = sorted(file for file in pathlib.Path(path).rglob("*") if file.is_file())
    parts = (file.read_bytes() for file in files)
    words = f"none, as {spec.dtype.name}"
    return Backbone(path, embed, side, _digest(parts), words, in_graph, [loaded])


def _of_model(
    name: str, model: Any, side: int, prepare: Callable, preprocessing: str
) -> Backbone:
    import tensorflow as tf

    def in_graph(pictures):
        return model(prepare(tf.cast(pictures, tf.float32)), training=False)

    forward = tf.function(in_graph, reduce_retracing=True)

    def embed(pictures):
        return forward(tf.constant(pictures)).numpy()

    weights = [np.ascontiguousarray(w).tobytes() for w in model.get_weights()]
    digest = _digest([*weights, _config_of(model)])
    # Of Keras variables, what they hold: see `export.signatures.Servable`.
    held = [weight.value for weight in model.weights]
    return Backbone(name, embed, side, digest, preprocessing, in_graph, held)


def _config_of(model: Any) -> bytes:
    """Returns what a Keras model's layers are, the same in every process.

    Layers' names are numbered from 0. Fields that are None are left out, because each
    version of Keras adds some.
    """
    import keras

    known: dict[str, list[str]] = {}

    def plain(value: Any, is_name: bool = False) -> Any:
        if isinstance(value, dict):
            given = {key: each for key, each in value.items() if each is not None}
            return {k: plain(v, is_name or k in _NAMING) for k, v in given.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each, is_name) for each in value]
        if not (is_name and isinstance(value, str)):
            return value
        base = _NUMBER.sub("", value)
        names = known.setdefault(base, [])
        if value not in names:
            names.append(value)
        return f"{base}_{names.index(value)}"

    config = keras.saving.serialize_keras_object(model.get_config())
    return json.dumps(plain(config), sort_keys=True).encode()


def _callable(name: str, side: int | None) -> Backbone:
    """Loads a function of a user's module, which may lie in this directory."""
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(import_users(module_name), attribute)
    except Exception as error:  # the user's module may raise anything
        raise InputError(
            f"--backbone={name}", "module:callable", _brief(error)
        ) from error
    if not callable(function):
        raise InputError(f"--backbone={name}", "a callable", type(function).__name__)
    content = _sources_of(function, module_name) or [name.encode()]

    def embed(items):
        try:
            return function(items)
        except Exception as error:  # the user's function may raise anything
            hint, what = "--debug shows where.", "features of items"
            if isinstance(items, list):
                what += f", here {quoted(items[0])} to {quoted(items[-1])}"
            parts = f"--backbone={name}", what, _brief(error), hint
            raise InputError(*parts) from error

    return Backbone(name, embed, side, _digest(content), "its own")


def _sources_of(function: Callable, module_name: str) -> list[bytes]:
    """Returns the files of a function, and of the module that it was asked of.

    They differ for `embed = Model().encode`: settings of the model stand in the
    user's file.
    """
    files = [getattr(sys.modules[module_name], "__file__", None)]
    with contextlib.suppress(TypeError):  # of an object with __call__, or of C
        files.append(inspect.getsourcefile(inspect.unwrap(function)))
    paths = {os.path.realpath(file): None for file in files if file}
    return [pathlib.Path(p).read_bytes() for p in paths if os.path.isfile(p)]


def check_features(features: Any, count: int, where: str) -> np.ndarray:
    """Returns features [n, D] of `count` items as float32.

    Raises:
      InputError: if they are of another shape, or not numbers, or non-finite.
    """
    array = np.asarray(features)
    if array.dtype.kind not in "biuf" or array.ndim != 2 or len(array) != count:
        received = f"shape {array.shape}, dtype {array.dtype}"
        raise InputError(f"features of {where}", f"numbers [{count}, D]", received)
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        item = int(np.argmin(np.isfinite(array).all(axis=1)))
        received = f"NaN or infinity in item {item}"
        raise InputError(f"features of {where}", "finite numbers", received)
    return array


def _digest(parts: Sequence[bytes] | Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def _refuse(flag: str, expected: str, received: object) -> None:
    raise FlagError(flag, expected, str(received))
