"""The pictures for TensorBoard: what is right or wrong is seen, and nothing breaks."""

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.evaluation.calibration import count_bins
from leo_tf.monitoring import images as monitor_images
from leo_tf.reports.figures import BLUE, ORANGE, RIGHT, WRONG

NAMES = ("first", "a name that is too long to be shown", "ä", "last")


def count(drawn, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((drawn == rgb).all(axis=-1).sum())


def test_a_perfect_confusion_is_green_and_a_wrong_one_red():
    right = monitor_images.confusion(5 * np.eye(4, dtype=int), NAMES)
    wrong = monitor_images.confusion(5 * np.eye(4, dtype=int)[::-1], NAMES)
    assert count(right, RIGHT) > 1000 and count(right, WRONG) == 0
    assert count(wrong, WRONG) > 1000 and count(wrong, RIGHT) == 0


def test_a_row_of_the_confusion_is_a_class_and_a_column_an_answer():
    counts = 5 * np.eye(4, dtype=int)
    counts[3] = [5, 0, 0, 0]  # the last class is taken for the first
    drawn = monitor_images.confusion(counts, NAMES)
    assert count(drawn[-40:], WRONG) > 300, "in the lowest row"
    assert count(drawn[:-40], WRONG) == 0


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


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("SAURIAN CAPITAL LETTER GIM", False),
        ("ARMENIAN CAPITAL LETTER PEH", False),
        ("ARMENIAN SMALL LETTER GIM", True),  # no room for the middle
    ],
)
def test_of_a_long_name_both_ends_are_shown(other, is_same):
    drawn = [
        monitor_images.confusion(np.eye(2), (name, "b"))
        for name in ("ARMENIAN CAPITAL LETTER GIM", other)
    ]
    assert np.equal(*drawn).all() == is_same


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
