"""The closer look at validation: latents, confusion, pictures, and when it is taken."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from event_files import picture, read
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tiny_cases import make_episode, make_leo

from configs.errors import DiskError
from configs.schema import Config
from data_pipeline.embeddings import EmbeddingTable
from data_pipeline.episode import EpisodeRows
from data_pipeline.pipeline import FeatureTable
from leo_tf import monitor_images
from leo_tf.baselines.protonet import NearestCentroid
from leo_tf.calibration import count_bins
from leo_tf.datasets import Split
from leo_tf.monitor_projector import sprite, write_projector
from leo_tf.monitor_tags import ACCURACY
from leo_tf.monitor_validation import ValidationMonitor, confusion_counts, latent_codes
from leo_tf.monitoring import Monitor
from leo_tf.pictures import BLUE, ORANGE, RIGHT, WRONG
from leo_tf.uneven_support import adapt_leo

NAMES = ("first", "a name that is too long to be shown", "ä", "last")


def test_latent_codes_are_those_of_the_model_that_is_deployed():
    leo, episode = make_leo(), make_episode()
    before, after = latent_codes(leo, episode)
    batch, way, _, size = episode.support_inputs.shape
    for b in range(batch):
        support = tf.reshape(episode.support_inputs[b], [-1, size])
        labels = tf.reshape(episode.support_labels[b], [-1])
        deployed = adapt_leo(leo, support, labels, tf.constant(way))
        np.testing.assert_allclose(before[b], deployed.latents_before, rtol=1e-9)
        np.testing.assert_allclose(after[b], deployed.latents_after, rtol=1e-9)
    assert np.abs(after - before).max() > 1e-3


def test_confusion_counts_each_query_under_its_class_of_the_data():
    # Two episodes of 2 classes and 3 queries; the classes are 3 and 1, then 1 and 0.
    classes = tf.constant([[3, 1], [1, 0]])
    answers = [[[0, 0, 1], [1, 1, 1]], [[1, 0, 0], [0, 0, 0]]]
    rows = EpisodeRows(None, None, classes)
    counts = confusion_counts(tf.one_hot(answers, 2), rows, 4)
    expected = np.zeros([4, 4])
    expected[3] = [0, 1, 0, 2]
    expected[1] = [1, 5, 0, 0]
    expected[0] = [0, 3, 0, 0]
    np.testing.assert_array_equal(counts, expected)


def make_split(images=True):
    random = np.random.default_rng(0)
    features = random.normal(size=[24, 5]).astype(np.float32)
    labels = np.repeat(np.arange(4), 6)
    table = FeatureTable.from_embeddings(EmbeddingTable(features, labels, NAMES))
    drawn = random.integers(0, 256, [24, 8, 8]).astype(np.uint8) if images else None
    return Split("val", table, NAMES, drawn, "digest", "source")


def make_look(directory, learner=None, images=True, **settings):
    sizes = {"way": 3, "shot": 2, "num_val_episodes": 5, "validate_every": 10}
    config = Config().replace(**{**sizes, "num_steps": 95, **settings})
    learner = learner or NearestCentroid()
    return ValidationMonitor(
        Monitor(directory), learner, config, make_split(images), baseline=0.75
    )


def test_a_look_is_taken_at_powers_of_two_and_at_the_end(tmp_path):
    look = make_look(tmp_path)
    steps = [*range(10, 100, 10), 95]
    for step in sorted(steps):
        look.show(step)
    shown = read(tmp_path / "validation")
    assert list(shown["pictures/confusion"]) == [10, 20, 40, 80, 95]
    assert list(shown["loss_parts/query"]) == [10, 20, 40, 80, 95]
    line = read(tmp_path / "centroid")[ACCURACY]
    assert line == {step: 0.75 for step in sorted(steps)}


def test_a_method_without_latents_has_none_to_show(tmp_path):
    make_look(tmp_path).show(10)
    assert not any("latents" in tag for tag in read(tmp_path / "validation"))
    assert not (tmp_path / "validation" / "projector_config.pbtxt").exists()


@pytest.mark.parametrize("images", [True, False])
def test_latents_are_in_the_projector_with_a_picture_each_if_there_are_any(
    tmp_path, images
):
    leo = make_leo(dtype="float32", size=5)
    make_look(tmp_path, leo, images).show(10)
    directory = tmp_path / "validation"
    config = text_format.Parse(
        (directory / "projector_config.pbtxt").read_text(), ProjectorConfig()
    )
    [embedding] = config.embeddings
    codes = np.loadtxt(directory / embedding.tensor_path, delimiter="\t")
    assert list(embedding.tensor_shape) == list(codes.shape) == [30, 5]
    labels = (directory / embedding.metadata_path).read_text().splitlines()
    assert len(labels) == 31 and {label.split("\t")[0] for label in labels[1:]} <= set(
        NAMES
    )
    if not images:
        assert not embedding.sprite.image_path
        return
    with Image.open(directory / embedding.sprite.image_path) as sheet:
        assert sheet.size == (6 * 32, 6 * 32)
        sheet = np.asarray(sheet).astype(int)
    # Before and after are codes of the same example.
    one, other = sheet[:32, :32], sheet[2 * 32 : 3 * 32, 3 * 32 : 4 * 32]  # 0 and 15
    np.testing.assert_array_equal(one, other)
    assert (one != sheet[:32, 32:64]).any()


def test_a_sprite_holds_pictures_row_by_row_in_a_square(tmp_path):
    (tmp_path / "sheet.png").write_bytes(
        sprite(np.stack([np.full([4, 4], 50 * i, np.uint8) for i in range(3)]))
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet = np.asarray(sheet).astype(int)
    assert sheet.shape == (64, 64)
    corners = sheet[0, 0], sheet[0, 63], sheet[63, 0], sheet[63, 63]
    assert corners == (255, 205, 155, 255)


def test_labels_are_one_line_each_whatever_is_in_them(tmp_path):
    labels = {"class": ["a\tb\nc", "", "ä"], "episode": [0, 1, 2]}
    write_projector(tmp_path, np.eye(3), labels)
    text = (tmp_path / "latent_codes_labels.tsv").read_text()
    assert text.split("\n") == ["class\tepisode", "a b c\t0", "-\t1", "ä\t2"]


def test_the_projectors_files_are_whole_or_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        write_projector(tmp_path / "file" / "below", np.eye(3), {"class": "abc"})


def test_a_look_that_fails_costs_the_look_and_not_the_run(
    tmp_path, monkeypatch, caplog
):
    look = make_look(tmp_path)

    def fail(*unused):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(monitor_images, "confusion", fail)
    with caplog.at_level(logging.WARNING):
        look.show(10)
    [record] = caplog.records
    assert "look at step 10 failed" in record.getMessage()


def count(drawn, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((drawn == rgb).all(axis=-1).sum())


def test_a_perfect_confusion_is_green_and_a_wrong_one_red():
    right = monitor_images.confusion(5 * np.eye(4, dtype=int), NAMES)
    wrong = monitor_images.confusion(5 * np.eye(4, dtype=int)[::-1], NAMES)
    assert count(right, RIGHT) > 1000 and count(right, WRONG) == 0
    assert count(wrong, WRONG) > 1000 and count(wrong, RIGHT) == 0


def test_of_many_classes_those_with_mistakes_are_shown():
    names = tuple(map(str, range(50)))
    counts = 10 * np.eye(50, dtype=int)
    perfect = monitor_images.confusion(counts, names)
    assert perfect.shape[0] < 700 and count(perfect, WRONG) == 0
    counts[49] = 0
    counts[49, 48] = 10
    assert count(monitor_images.confusion(counts, names), WRONG) > 300
    # What went to a class that is not shown is in the last column.
    counts[:20] = 0
    counts[:20, 20:48] = 1
    drawn = monitor_images.confusion(counts, names)
    assert count(drawn[:, -40:], WRONG) > 20 * 300


def test_answers_without_classes_are_no_reason_to_warn(recwarn):
    monitor_images.confusion(np.zeros([3, 3], int), NAMES[:3])
    assert not recwarn.list


@pytest.mark.parametrize("images", [True, False])
def test_a_right_answer_is_framed_in_green_and_a_wrong_one_in_red(images):
    shares = np.full([3, 4, 3], 0.1)
    shares[np.arange(3), :, np.arange(3)] = 0.8
    tiles = (
        np.zeros([3, 8, 8], np.uint8),
        np.zeros([3, 4, 8, 8], np.uint8),
    )
    tiles = tiles if images else (None, None)
    right = monitor_images.episode(shares, list(NAMES[:3]), *tiles)
    assert count(right, RIGHT) > 0 and count(right, WRONG) == 0
    shares[2, 3] = [0.7, 0.2, 0.1]
    one_wrong = monitor_images.episode(shares, list(NAMES[:3]), *tiles)
    assert 0 < count(one_wrong, WRONG) < count(one_wrong, RIGHT) / 5


def bins_of(confidence, right):
    """100 queries of 2 classes, answered with one confidence."""
    logit = float(np.log(confidence / (1 - confidence)))
    labels = tf.constant([[0] * right + [1] * (100 - right)])
    return count_bins(tf.constant([[[logit, 0.0]] * 100]), labels)


def test_the_reliability_diagram_has_a_bar_as_high_as_the_accuracy():
    low, high = (
        monitor_images.reliability_diagram(bins_of(0.9, right)) for right in (30, 90)
    )
    assert count(high, BLUE) == pytest.approx(3 * count(low, BLUE), rel=0.1)
    assert count(low, ORANGE) > 100


def test_a_method_that_answers_nan_breaks_no_picture():
    bins = count_bins(tf.fill([1, 6, 2], np.nan), tf.zeros([1, 6], tf.int32))
    monitor_images.reliability_diagram(bins)
    monitor_images.episode(np.full([3, 4, 3], np.nan), list(NAMES[:3]))


def test_pictures_of_a_look_show_the_data(tmp_path):
    look = make_look(tmp_path / "one")
    look.show(10)
    without = make_look(tmp_path / "other", images=False)
    without.show(10)
    one, other = (
        picture(read(path / "validation")["pictures/episode"][10])
        for path in (tmp_path / "one", tmp_path / "other")
    )
    assert one.shape[0] > other.shape[0] + 3 * 40, "a tile more for each class"
