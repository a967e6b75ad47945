"""Pictures in exports of the embedded data set: in Python, in C and on a server."""

import base64
import io
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from c_api import CModel
from drawn_pictures import encoded, photo, turned
from PIL import Image

from leo_tf.data_pipeline.images import worker
from leo_tf.embedding.backbones import Backbone, backbone_named
from leo_tf.embedding.views import decoded_side, embed_views
from leo_tf.errors import FlagError, RequestError
from leo_tf.export import exporter
from leo_tf.export import pictures as module
from leo_tf.export.exporter import export_model
from leo_tf.export.pictures import MOST_BYTES, Encoder, _encoder, encoder_of
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import Servable, names_for
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.query_aware.bd_cspn import BDCSPN
from leo_tf.serving import pictures as client
from leo_tf.serving.classifier import Classifier
from leo_tf.serving.model_versions import Versions
from leo_tf.serving.models import LocalModel

pytestmark = pytest.mark.long

D = 640
FILES = [
    *(encoded(photo(32, 32)), encoded(photo(50, 70, seed=2), "JPEG")),
    *(encoded(photo(200, 230, 4, seed=5)), turned(6, "JPEG")),
]
LABELS = np.array([0, 1, 1, 0])


def as_array(files) -> np.ndarray:
    array = np.empty(len(files), object)
    array[:] = files
    return array


def features_of(files) -> np.ndarray:
    """Returns features [n, D] as in training, in the embedded set's half precision."""
    pixels = [
        np.frombuffer(worker.decoded(file, 32), np.uint8).reshape(32, 32, 3)
        for file in files
    ]
    made = backbone_named("hog").embed(np.stack(pixels))
    return made.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Returns a directory with version 1: nearest centroid on the embedded features."""
    directory = tmp_path_factory.mktemp("pictures")
    learner, limits = NearestCentroid(), Limits(D, D, 5, 9)
    encoder = encoder_of(None, is_embedded=True)
    servable = Servable(learner, limits, "float32", encoder=encoder)
    (directory / "1").mkdir()
    exporter._save(servable, limits, directory / "1")
    metadata = {"embedding_size": D, "files": {}, "method": "centroid"}
    metadata |= {"max_classes": 5, "max_support": 9, "pictures": encoder.metadata}
    (directory / "1" / "export.json").write_text(json.dumps(metadata))
    return directory


@pytest.fixture(scope="module")
def model(directory):
    return LocalModel(directory / "1")


def test_features_of_pictures_are_those_of_training(model):
    given = model("embed_images", {"images": as_array(FILES)})["features"]
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, features_of(FILES), atol=1e-5)
    none = model("embed_images", {"images": as_array([])})["features"]
    assert none.shape == (0, D)


@pytest.mark.slow
def test_pictures_are_adapted_to_and_classified_as_their_features_are(model):
    features = features_of(FILES)
    images = {"support_images": as_array(FILES), "labels": LABELS}
    rows = {"support": features, "labels": LABELS}
    for signature, more, same in (
        ("adapt", {}, {}),
        ("classify", {"query_images": as_array(FILES[:2])}, {"queries": features[:2]}),
    ):
        given = model(f"{signature}_images", {**images, **more})
        expected = model(signature, {**rows, **same})
        assert set(given) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(given[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_programs_without_python_give_it_pictures_as_tensorflow_serving_does(directory):
    c_model = CModel(directory / "1")
    given = c_model("embed_images", {"images": as_array(FILES)})["features"]
    np.testing.assert_allclose(given, features_of(FILES), atol=1e-5)
    with pytest.raises(RuntimeError, match="images: expected JPEG or PNG"):
        c_model("embed_images", {"images": as_array([b"no picture"])})


def header(width, height) -> bytes:
    """Returns a small file with a header that claims another size."""
    good = encoded(photo(8, 8))
    return good[:16] + struct.pack(">II", width, height) + good[24:]


LARGE, TOO_LARGE = header(4096, 4096), header(100_000, 100_000)
TWO = [FILES[0], b"GIF89a"]
BLANK = encoded(Image.new("RGB", (40, 40), "white"))
BAD = {
    "2 to 9 pictures, received 1": ("support_images", FILES[:1]),
    "2 to 9 pictures, received 10": ("support_images", FILES[:1] * 10),
    "JPEG or PNG, received something else in row 1": ("support_images", TWO),
    "JPEG or PNG, received something else in row 0": ("images", [b""]),
    f"at most {MOST_BYTES} bytes": ("images", [FILES[0] + bytes(MOST_BYTES)]),
    "to 16777216 pixels, received 10000000000 in row 0": ("images", [TOO_LARGE]),
    "pixels, received 0": ("images", [header(2**32 - 5, 8)]),
    "at most 134217728 pixels": ("images", [LARGE] * 9),
    "undamaged pictures": ("images", [FILES[0][:-30]]),
    "visible content, received a blank picture in row 1": ("images", [TWO[0], BLANK]),
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_no_picture_or_too_large_is_refused_before_it_is_decoded(model, words):
    field, files = BAD[words]
    inputs, signature = {field: as_array(files)}, "embed_images"
    if field != "images":
        signature, inputs["labels"] = "adapt_images", np.arange(len(files)) % 2
    with pytest.raises(RequestError, match=words) as caught:
        model(signature, inputs)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"{field}: ")
    model("embed_images", {"images": as_array(FILES[:1])})


@pytest.mark.parametrize("labels", [[0, 1, 0], [0, 0], [0, 9], [0, 2]])
def test_no_picture_is_decoded_where_labels_are_wrong(model, labels):
    damaged = as_array([FILES[0][:-30], FILES[1]])
    more = {"query_images": as_array(FILES[:1])}
    for signature, fields in (("adapt_images", {}), ("classify_images", more)):
        inputs = {"support_images": damaged, "labels": np.array(labels), **fields}
        with pytest.raises(RequestError, match=r"^labels: expected"):
            model(signature, inputs)


def test_a_classifier_takes_paths_bytes_and_images_of_pillow(directory, tmp_path):
    paths = [tmp_path / f"{i}" for i in range(4)]
    for path, content in zip(paths, FILES):
        path.write_bytes(content)
    names = np.array(["a", "b"])[LABELS]
    expected = Classifier(directory).fit(features_of(FILES), names)
    images = [Image.open(path) for path in paths]
    for given in (paths, list(map(str, paths)), FILES, images):
        classifier = Classifier(directory).fit(given, names)
        np.testing.assert_allclose(classifier.support_, expected.support_, atol=1e-5)
        assert classifier.predict(given).tolist() == names.tolist()
        assert classifier.score(given, names) == 1
    classifier.partial_fit(FILES[:1], ["c"])
    assert classifier.support_.shape == (5, D)


def test_a_classifier_asks_again_with_fewer_pictures_than_a_request_takes(directory):
    classifier = Classifier(directory).fit(FILES, LABELS)
    assert classifier.predict(FILES * 3).tolist() == LABELS.tolist() * 3  # 12 of 9
    with pytest.raises(RequestError, match=r"^picture 10: images: .*undamaged"):
        classifier.predict([*FILES * 2, *FILES[:2], FILES[0][:-30], FILES[1]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I", "I;16", "CMYK"])
def test_large_images_of_pillow_are_made_smaller_and_all_modes_are_taken(
    mode, monkeypatch
):
    image = Image.fromarray(photo(70, 90))
    if mode.startswith("I"):
        grey = np.asarray(image.convert("L")).astype(np.int32) * 257
        image = Image.fromarray(grey).convert(mode)
    else:
        image = image.convert(mode)
    small = np.asarray(Image.fromarray(photo(70, 90)).convert("L").resize((18, 14)))
    for most, size in ((10**6, (90, 70)), (300, (18, 14))):
        monkeypatch.setattr(client, "_MOST_PIXELS", most)
        made = Image.open(io.BytesIO(client._content(image, "picture 0")))
        assert made.size == size
    grey = np.asarray(made.convert("L")).astype(float)
    assert np.abs(grey - small).mean() < 12
    with pytest.raises(RequestError, match=r"^picture 0: expected an image that PNG"):
        client._content(Image.new("La", (4, 4)), "picture 0")


def test_a_classifier_says_which_picture_is_none(directory, tmp_path):
    (tmp_path / "text.png").write_text("I am no picture")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(FILES[0][:-30])
    good = tmp_path / "good.png"
    good.write_bytes(FILES[0])
    for bad in ("text.png", "damaged.png", "missing.png"):
        with pytest.raises(RequestError, match=bad):
            Classifier(directory).fit([good, tmp_path / bad], ["a", "b"])
    with pytest.raises(RequestError, match="a path, the bytes"):
        Classifier(directory).fit([good, 7], ["a", "b"])


@pytest.mark.parametrize("source", ["centroid", "model"])
def test_a_model_without_pictures_says_so(source, tmp_path):
    if source == "model":
        source = tmp_path / "1"
        limits = Limits(D, D, 5, 8)
        servable = Servable(NearestCentroid(), limits, "float32")
        tf.saved_model.save(servable, str(source), signatures=servable.signatures())
    with pytest.raises(RequestError, match="this model takes no pictures"):
        Classifier(source).fit(FILES, LABELS)


@pytest.mark.slow
def test_a_server_takes_bytes_as_tensorflow_serving_does(directory):
    running_server = pytest.importorskip("running_server")
    expected = features_of(FILES)
    with running_server.serving(directory, 2**22) as (port, _):
        client = running_server.Client(port)
        texts = [{"b64": base64.b64encode(file).decode()} for file in FILES]
        for inputs in ({"inputs": {"images": texts}}, {"inputs": texts}):
            status, answer = client.predict(
                {"signature_name": "embed_images", **inputs}
            )
            assert status == 200
            np.testing.assert_allclose(answer["outputs"], expected, atol=1e-5)
        for instances in (texts, [{"images": text} for text in texts]):
            request = {"signature_name": "embed_images", "instances": instances}
            status, answer = client.predict(request)
            np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
        for wrong in ("no base64!", 7, None, {"b64": 7}, {"b64": "%%"}, {"b65": ""}):
            request = {"signature_name": "embed_images", "inputs": {"images": [wrong]}}
            status, answer = client.predict(request)
            assert status == 400 and "images: expected" in answer["error"], wrong
        status, about = client.ask("GET", "/page/model.json")
        assert about["pictures"] == {
            "max_picture_bytes": (2**22 - 1000) * 3 // 4,
            "weights": backbone_named("hog").digest,
        }
        remote = Classifier(f"http://127.0.0.1:{port}").fit(FILES, LABELS)
        np.testing.assert_allclose(remote.support_, expected, atol=1e-5)
        assert remote.predict(FILES).tolist() == LABELS.tolist()
        with pytest.raises(RequestError, match=r"picture 1: .*JPEG or PNG"):
            remote.predict([FILES[0], b"\xff\xd8\xffnothing"[3:]])


def test_a_server_loads_a_method_that_sees_all_queries_together(tmp_path):
    learner, encoder = BDCSPN(5.0), encoder_of(None, is_embedded=True)
    servable = Servable(learner, Limits(D, 0, 5, 9), "float32", encoder=encoder)
    (tmp_path / "1").mkdir()
    exporter._save(servable, Limits(D, 0, 5, 9), tmp_path / "1")
    versions = Versions(tmp_path)
    versions.refresh()
    assert versions.current and versions.current.version == 1
    names = {"classify", "classify_images", "embed_images", "serving_default"}
    assert names <= set(versions.current.signature_def)
    request = {"support_images": as_array(FILES), "labels": LABELS}
    queries = {"query_images": as_array(FILES)}
    answer = versions.current.model("classify_images", request | queries)
    assert answer["classes"].tolist() == LABELS.tolist()
    damaged = as_array([FILES[0], FILES[1][:-30]])
    with pytest.raises(
        RequestError, match=r"^query_images or support_images: expected"
    ):
        versions.current.model("classify_images", request | {"query_images": damaged})


def test_a_backbone_gets_some_pictures_at_a_time(monkeypatch):
    seen = []

    def in_graph(pictures):
        tf.py_function(lambda n: seen.append(int(n)), [tf.shape(pictures)[0]], [])
        return tf.reduce_mean(tf.cast(pictures, tf.float32), axis=(1, 2))

    monkeypatch.setattr(module, "_AT_ONCE", 3)
    backbone = Backbone("mean", None, 8, "", "", in_graph)
    embed = _encoder(backbone, "whole", np.float32).embed
    singly = [embed(as_array([file]))[0] for file in FILES]
    seen.clear()
    np.testing.assert_allclose(embed(as_array(FILES * 2)), singly * 2, rtol=1e-5)
    assert seen == [3, 3, 2]
    assert embed(as_array([])).shape == (0, 3)


def test_what_made_the_features_is_found_again_or_it_is_said_why_not(tmp_path):
    hog = backbone_named("hog")
    made = {"backbone": "hog", "weights": hog.digest, "views": "whole", "side": 32}
    assert isinstance(encoder_of(made, False), Encoder)
    assert "is not the backbone" in encoder_of({**made, "weights": "other"}, False)
    assert "--backbone" in encoder_of({**made, "backbone": "gone.keras"}, False)
    assert "stays outside" in encoder_of({**made, "side": None}, False)
    assert "stays outside" in encoder_of({**made, "backbone": "numpy:abs"}, False)
    assert "no backbone is recorded" in encoder_of(None, False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backbone": "hog"}, "--backbone: expected no such flag: no backbone"),
        ({"backbone_weights": "w.h5"}, "--backbone_weights: expected no such flag: no"),
        (
            {"format": "tflite", "backbone": "hog"},
            "--backbone: expected no such flag with --export_f",
        ),
        (
            {"format": "tflite", "backbone_weights": "w.h5"},
            "--backbone_weights: expected no such flag with --export_format=tflite",
        ),
    ],
)
def test_a_backbone_that_would_be_ignored_is_refused(trained, tmp_path, given, said):
    with pytest.raises(FlagError, match=said):
        export_model(trained, tmp_path / "exported", **given)
    assert not (tmp_path / "exported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("views", ["whole", "center", "multiview"])
def test_each_view_is_that_of_training(views):
    def means(pictures):  # over weighted rows; a mirror or another crop changes them
        weights = np.arange(1.0, 33.0)[:, np.newaxis]
        return (pictures * weights).reshape(-1, 32 * 32, 3)[:, :700].sum(axis=1)

    def in_graph(pictures):
        weights = tf.range(1.0, 33.0)[:, tf.newaxis]
        rows = tf.reshape(tf.cast(pictures, tf.float32) * weights, [-1, 32 * 32, 3])
        return tf.reduce_sum(rows[:, :700], axis=1)

    backbone = Backbone("means", means, 32, "digest", "none", in_graph)
    side = decoded_side(32, views)
    pixels = np.frombuffer(worker.decoded(FILES[1], side), np.uint8)
    expected = embed_views(means, pixels.reshape(1, side, side, 3), 32, views)
    given = _encoder(backbone, views, np.float32).embed(as_array(FILES[1:2]))
    np.testing.assert_allclose(given, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_network_of_keras_is_part_of_the_export(tmp_path):
    backbone = backbone_named("MobileNetV2", "none", 32)
    made = {
        "backbone": "MobileNetV2",
        "weights": backbone.digest,
        "views": "center",
        "side": 32,
    }
    encoder = encoder_of(made, False)
    size = backbone.embed(np.zeros([1, 32, 32, 3], np.uint8)).shape[1]
    limits = Limits(size, size, 5, 8)
    servable = Servable(NearestCentroid(), limits, "float32", encoder=encoder)
    exporter._save(servable, limits, tmp_path)
    pixels = np.frombuffer(worker.decoded(FILES[1], 37), np.uint8)
    pixels = pixels.reshape(1, 37, 37, 3)
    expected = embed_views(backbone.embed, pixels, 32, "center")
    for model in (LocalModel(tmp_path), CModel(tmp_path)):
        given = model("embed_images", {"images": as_array(FILES[1:2])})["features"]
        np.testing.assert_allclose(given, expected, atol=1e-4)


def test_methods_that_see_all_queries_take_pictures_too():
    class Answers:
        def answer(self, support, labels, queries):
            return None

    names = names_for(Answers(), takes_pictures=True)
    assert names == ("classify", "embed_images", "classify_images")
