"""The pictures of a run: PNG files that show what they should."""

import math

import numpy as np
import pytest
from PIL import Image

from leo_tf.errors import DiskError
from leo_tf.evaluation.intervals import Interval
from leo_tf.reports import figures as pictures

CENTROID = Interval(0.6, 0.01)


def record(step, accuracy=0.5, train=0.4, half_width=0.02):
    return {
        "step": step,
        "train_accuracy": train,
        "train_loss": 1.0,
        "val_accuracy": accuracy,
        "val_half_width": half_width,
        "val_loss": 1.0,
    }


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()  # raises if the file is cut short
        return np.asarray(image.convert("RGB"))


def curve(path, history) -> np.ndarray:
    pictures.learning_curve(path, history, CENTROID)
    return pixels(path)


def count(picture, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(axis=-1).sum())


@pytest.mark.parametrize(
    "history",
    [
        [record(1)],
        [record(step, accuracy=step / 200) for step in range(1, 101)],
        [record(5, train=None)],
        [record(5, train=None), record(10)],
        [record(5, half_width=math.inf), record(10, half_width=math.inf)],
        [record(5, accuracy=math.nan), record(10)],
    ],
    ids=["one", "many", "no mean", "one mean", "one episode", "nan"],
)
def test_any_history_gives_a_learning_curve_without_a_warning(
    tmp_path, history, recwarn
):
    picture = curve(tmp_path / "learning_curve.png", history)
    assert count(picture, pictures.BLUE) > 20
    assert count(picture, pictures.GREY) > 100, "the line of nearest centroid"
    assert not recwarn.list


def test_the_learning_curve_shows_training_and_validation(tmp_path):
    path = tmp_path / "curve.png"
    without = curve(path, [record(5, train=None), record(10, train=None)])
    assert count(without, pictures.ORANGE) == 0
    both = curve(path, [record(5, train=0.1), record(10, train=0.2)])
    assert count(both, pictures.ORANGE) > 100
    higher = curve(path, [record(5, train=0.1), record(10, train=0.2, accuracy=0.9)])
    assert (higher != both).any()


def episode(path, answers, way=3, queries=4):
    random = np.random.default_rng(0)
    draw = random.integers(0, 256, [way, queries + 1, 16, 16]).astype(np.uint8)
    names = ["LATIN CAPITAL LETTER A WITH A VERY LONG NAME", "ä", "$x_1$"][:way]
    support, query = draw[:, :1], draw[:, 1:]
    pictures.episode(path, support, query, names, answers)
    return pixels(path)


def test_right_answers_are_green_and_wrong_ones_red(tmp_path):
    path = tmp_path / "episode.png"
    right = np.repeat(np.arange(3)[:, np.newaxis], 4, axis=1)  # [N, Q]
    all_right = episode(path, {"LEO": right, "centroid": right})
    assert count(all_right, pictures.RIGHT) > 0
    assert count(all_right, pictures.WRONG) == 0
    all_wrong = episode(path, {"LEO": (right + 1) % 3, "centroid": (right + 2) % 3})
    assert count(all_wrong, pictures.RIGHT) == 0
    assert count(all_wrong, pictures.WRONG) == count(all_right, pictures.RIGHT)


def test_one_wrong_answer_of_one_method_is_one_tile_in_red(tmp_path):
    path = tmp_path / "episode.png"
    right = np.repeat(np.arange(3)[:, np.newaxis], 4, axis=1)
    wrong = right.copy()
    wrong[2, 3] = 0
    picture = episode(path, {"LEO": wrong, "centroid": right})
    red, green = (count(picture, c) for c in (pictures.WRONG, pictures.RIGHT))
    assert red > 0 and round(green / red) == 23


@pytest.mark.parametrize("queries", [1, 50])
def test_any_number_of_queries_is_drawn_on_a_page_of_bounded_size(tmp_path, queries):
    answers = {"LEO": np.zeros([3, queries], int)}
    picture = episode(tmp_path / "episode.png", answers, queries=queries)
    assert picture.shape[1] < 2000


def test_a_picture_that_cannot_be_written_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        curve(tmp_path / "file" / "curve.png", [record(1)])
