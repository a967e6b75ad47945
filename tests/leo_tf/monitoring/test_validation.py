"""Validation diagnostics: latents, confusion, pictures, and their schedule."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from event_files import picture, read
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tiny_cases import make_episode, make_leo

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.episode import EpisodeRows
from leo_tf.data_pipeline.pipeline import FeatureTable
from leo_tf.errors import DiskError
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.monitoring.event_writer import EventWriter
from leo_tf.monitoring.tags import ACCURACY
from leo_tf.monitoring.validation import (
    ValidationMonitor,
    confusion_counts,
    sprite,
    write_projector,
)
from leo_tf.reports import mosaics
from leo_tf.reports.mosaics import CARD, RIGHT, WRONG

NAMES = ("first", "a name that is too long to be shown", "ä", "last")


def test_latent_codes_are_those_of_the_model_that_is_deployed():
    leo, episode = make_leo(), make_episode()
    before, after = leo.latent_codes(episode)
    batch, way, _, size = episode.support_inputs.shape
    for b in range(batch):
        support = tf.reshape(episode.support_inputs[b], [-1, size])
        labels = tf.reshape(episode.support_labels[b], [-1])
        deployed = leo.adapt_uneven(support, labels, tf.constant(way))
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
        EventWriter(directory), learner, config, make_split(images), baseline=0.75
    )


def test_a_look_is_taken_at_powers_of_two_and_at_the_end(tmp_path):
    look = make_look(tmp_path)
    steps = [*range(10, 100, 10), 95]
    for step in sorted(steps):
        look.show(step, is_last=step == 95)
    shown = read(tmp_path / "validation")
    assert list(shown["pictures/confusion"]) == [10, 20, 40, 80, 95]
    assert list(shown["loss_parts/query"]) == [10, 20, 40, 80, 95]
    line = read(tmp_path / "centroid")[ACCURACY]
    assert line == {step: 0.75 for step in sorted(steps)}


def test_a_method_without_latents_has_none_to_show(tmp_path):
    make_look(tmp_path).show(10, False)
    assert not any("latents" in tag for tag in read(tmp_path / "validation"))
    assert not (tmp_path / "validation" / "projector_config.pbtxt").exists()


@pytest.mark.parametrize("images", [True, False])
def test_latents_are_in_the_projector_with_a_picture_each_if_there_are_any(
    tmp_path, images
):
    leo = make_leo(dtype="float32", size=5)
    make_look(tmp_path, leo, images).show(10, False)
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


def test_codes_before_and_after_adaptation_are_not_mixed_up(tmp_path):
    leo = make_leo(dtype="float32", size=5)
    look = make_look(tmp_path, leo)
    look.show(10, False)
    before, after = (codes.numpy() for codes in leo.latent_codes(look._episodes[1]))
    codes = np.loadtxt(tmp_path / "validation" / "latent_codes.tsv", delimiter="\t")
    labels = (tmp_path / "validation" / "latent_codes_labels.tsv").read_text()
    told = np.array([line.split("\t")[1] for line in labels.splitlines()[1:]])
    events = read(tmp_path / "validation")
    for name, expected in {"before": before, "after": after}.items():
        np.testing.assert_allclose(
            codes[told == name], expected.reshape([-1, 5]), rtol=1e-4, atol=1e-6
        )
        histogram = events[f"tensors_latents/{name}"][10]
        assert histogram[0, 0] == pytest.approx(expected.min(), rel=1e-5)
        assert histogram[-1, 1] == pytest.approx(expected.max(), rel=1e-5)


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

    monkeypatch.setattr(mosaics, "confusion", fail)
    with caplog.at_level(logging.WARNING):
        look.show(10, False)
    [record] = caplog.records
    assert "diagnostics at step 10 failed" in record.getMessage()


def test_pictures_of_a_look_are_as_wide_as_tensorboard_shows_them(tmp_path):
    make_look(tmp_path).show(10, False)
    shown = read(tmp_path / "validation")
    for name in ("confusion", "episode", "reliability"):
        assert picture(shown[f"pictures/{name}"][10]).shape[1] <= 365, name


def test_data_without_pictures_have_no_episode_to_show(tmp_path):
    make_look(tmp_path, images=False).show(10, False)
    shown = {tag for tag in read(tmp_path / "validation") if "pictures" in tag}
    assert shown == {"pictures/confusion", "pictures/reliability"}


class OneAnswer(NearestCentroid):
    """Answers every query with the first class of its episode."""

    def logits(self, classifier, inputs, training=False, noise=None):
        logits = super().logits(classifier, inputs)
        return 9.0 * tf.one_hot(tf.zeros(logits.shape[:-1], tf.int32), logits.shape[-1])


def test_pictures_of_a_look_are_of_the_methods_answers(tmp_path):
    def drawn(learner, name):
        make_look(tmp_path / name, learner).show(10, False)
        shown = read(tmp_path / name / "validation")
        names = "confusion", "episode", "reliability"
        return [picture(shown[f"pictures/{name}"][10]) for name in names]

    confusion, episode, reliability = drawn(OneAnswer(), "one")
    green, red = (colour_count(episode, colour) for colour in (RIGHT, WRONG))
    assert red == pytest.approx(2 * green, rel=0.05), "one of three classes is right"
    assert colour_count(episode[CARD.top + 82 :], RIGHT) == 0, "the first of them"
    # Two of three answers are wrong, and all have high confidence.
    for one, other in zip((confusion, reliability), drawn(None, "two")[::2]):
        assert one.shape == other.shape and (one != other).any()


def colour_count(drawn, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((drawn == rgb).all(axis=-1).sum())
