"""Promises of backbones by name: right features, their own digest, clear refusals."""

import importlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from leo_tf.data_pipeline.glyphs.dataset import load_splits
from leo_tf.embedding.backbones import backbone_named
from leo_tf.errors import FlagError, InputError

pytestmark = pytest.mark.long

_PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def _small(output="pooled"):
    """Mean colours times a kernel: enough of a network to tell its weights."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    x = keras.layers.Dense(2, kernel_initializer="ones")(x)
    return keras.Model(inputs, inputs if output == "pictures" else x)


def test_hog_of_the_embedded_pictures_is_the_embedded_features():
    table = load_splits()["val"]
    backbone = backbone_named("hog")
    colour = np.repeat(table.images[:20, ..., None], 3, axis=-1)
    # They are kept in half precision.
    np.testing.assert_allclose(backbone.embed(colour), table.embeddings[:20], atol=5e-4)
    assert backbone.side == 32


def test_a_keras_file_gives_its_outputs_and_another_digest_with_other_weights(tmp_path):
    model = _small()
    model.save(tmp_path / "a.keras")
    backbone = backbone_named(str(tmp_path / "a.keras"))
    expected = _PICTURES.mean(axis=(1, 2)).sum(axis=1)
    got = backbone.embed(_PICTURES)
    np.testing.assert_allclose(got, np.stack([expected] * 2, axis=1), rtol=1e-5)
    model.layers[-1].kernel.assign_add(np.ones((3, 2)))
    model.save(tmp_path / "b.keras")
    other = backbone_named(str(tmp_path / "b.keras"))
    assert other.side == 32 and other.digest != backbone.digest
    again = backbone_named(str(tmp_path / "a.keras"))
    assert again.digest == backbone.digest


def test_a_directory_of_a_pre_training_is_its_backbone(tmp_path):
    _small().save(tmp_path / "backbone.keras")
    assert backbone_named(str(tmp_path)).embed(_PICTURES).shape == (3, 2)


def test_a_saved_model_is_a_backbone(tmp_path):
    class Doubled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
        def __call__(self, pictures):
            return {"features": 2.0 * tf.reduce_mean(pictures, axis=(1, 2))}

    module = Doubled()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    backbone = backbone_named(str(tmp_path))
    pictures = _PICTURES[:, :8, :8]
    expected = 2 * pictures.mean(axis=(1, 2))
    np.testing.assert_allclose(backbone.embed(pictures), expected, rtol=1e-5)
    assert backbone.side == 8
    with pytest.raises(FlagError, match="--image_size: expected 8, which"):
        backbone_named(str(tmp_path), side=9)


def test_models_of_keras_applications_are_prepared_as_theirs_are(tmp_path):
    drawn = backbone_named("MobileNet", "none", 32)
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), include_top=False, pooling="avg", weights=None
    )
    model.save_weights(tmp_path / "a.weights.h5")
    read = backbone_named("MobileNet", str(tmp_path / "a.weights.h5"), 32)
    expected = model(_PICTURES / 127.5 - 1.0, training=False)
    np.testing.assert_allclose(read.embed(_PICTURES), expected, rtol=1e-4, atol=1e-5)
    assert drawn.digest != read.digest
    assert drawn.preprocessing == "keras.applications.mobilenet.preprocess_input"


def test_a_callable_is_found_in_this_directory(tmp_path, monkeypatch):
    code = "def embed(items):\n    return [[len(item), 1] for item in items]\n"
    (tmp_path / "my_lengths.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    backbone = backbone_named("my_lengths:embed")
    assert backbone.embed(["a", "bcd"]) == [[1, 1], [3, 1]]
    assert backbone.side is None
    with pytest.raises(InputError, match=r"--backbone=my_lengths:embed.*TypeError"):
        backbone.embed([7])


def test_an_object_that_can_be_called_and_a_method_are_backbones_too(
    tmp_path, monkeypatch
):
    code = "class Model:\n    def encode(self, items): return [[1.0] for _ in items]\n"
    code += "    __call__ = encode\nmodel = Model()\nembed = model.encode\n"
    (tmp_path / "my_objects.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    digests = set()
    for name in ("model", "embed"):
        backbone = backbone_named(f"my_objects:{name}")
        assert backbone.embed("ab") == [[1.0], [1.0]]
        digests.add(backbone.digest)
    assert len(digests) == 1


def test_an_edited_module_of_a_library_method_is_another_backbone(
    tmp_path, monkeypatch
):
    library = "class Model:\n    def __init__(self, name): self.name = name\n"
    library += "    def encode(self, items): return [[1.0] for _ in items]\n"
    (tmp_path / "a_library.py").write_text(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    digests = []
    for name in ("small", "large", "large"):
        code = f"import a_library\nembed = a_library.Model({name!r}).encode\n"
        (tmp_path / "my_texts.py").write_text(code)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "my_texts", raising=False)
        digests.append(backbone_named("my_texts:embed").digest)
    assert digests[0] != digests[1] == digests[2]


def test_layers_without_weights_count_in_the_digest_and_their_numbers_do_not(tmp_path):
    def digest(scale, activation):
        inputs = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(scale)(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(2, activation, kernel_initializer="ones")(x)
        keras.Model(inputs, x).save(tmp_path / "a.keras")
        return backbone_named(str(tmp_path / "a.keras")).digest

    digests = [digest(1.0, "relu"), digest(0.5, "relu"), digest(1.0, "tanh")]
    assert len({*digests}) == 3
    assert digest(1.0, "relu") == digests[0]
    two = [backbone_named("MobileNet", "none", 32).digest for _ in range(2)]
    assert two[0] == two[1]


def _keras_file(path, output):
    _small(output).save(path)
    return str(path)


def _odd_model(kind, path):
    layers = keras.layers
    if kind == "UNBUILT":
        model = keras.Sequential([layers.GlobalAveragePooling2D()])
    else:
        pictures = keras.Input((16, 8 if kind == "OBLONG" else 16, 3))
        out = layers.GlobalAveragePooling2D()(pictures)
        model = keras.Model(pictures, [out, -out] if kind == "TWO" else out)
    model.save(path)
    return str(path)


@pytest.mark.parametrize(
    "name, weights, message",
    [
        ("nothing", None, "--backbone: expected hog, a model of keras.applications"),
        ("resnet50", None, "Did you mean ResNet50?"),
        ("wrn_10_2", None, "--mode=pretrain trains one"),
        ("hog", "none", "--backbone_weights: expected a model of keras.applications"),
        ("MobileNet", "missing.h5", "missing.h5: expected imagenet, none or a file"),
        ("no_such_module:embed", None, "No module named 'no_such_module'"),
        ("math:pi", None, "expected a callable, received float"),
        ("DIR", None, "expected a SavedModel, received no saved_model.pb"),
        ("TEXT.keras", None, "expected a Keras model"),
        ("FLAT.keras", None, "expected an output [n, D], received (None, 32, 32, 3)"),
        ("OBLONG.keras", None, "expected an input [n, side, side, 3], received (None,"),
        ("UNBUILT.keras", None, "expected an input [n, side, side, 3], received None"),
        (
            "TWO.keras",
            None,
            "expected an output [n, D], received [(None, 3), (None, 3)",
        ),
        ("VECTOR", None, "expected an input [n, side, side, 3], received (None,)"),
    ],
)
def test_what_is_no_backbone_is_refused_by_name(name, weights, message, tmp_path):
    if name == "DIR":
        name = str(tmp_path)
    elif name == "TEXT.keras":
        name = str(tmp_path / "a.keras")
        (tmp_path / "a.keras").write_text("no model")
    elif name == "FLAT.keras":
        name = _keras_file(tmp_path / "a.keras", "pictures")
    elif name.endswith(".keras") and name[:-6].isupper():
        name = _odd_model(name[:-6], tmp_path / "a.keras")
    elif name == "VECTOR":
        name, module = str(tmp_path), tf.Module()
        module.f = tf.function(tf.identity, [tf.TensorSpec([None], tf.float32)])
        tf.saved_model.save(module, name, {"serving_default": module.f})
    with pytest.raises((FlagError, InputError), match=re.escape(message)):
        backbone_named(name, weights, 32 if name == "MobileNet" else None)
