"""The pictures of a run: PNG files with the right content."""

import math

import numpy as np
import pytest
from PIL import Image

from leo_tf.errors import DiskError
from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.intervals import Interval
from leo_tf.reports import figures

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
    figures.save(path, figures.learning_curve(history, CENTROID))
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
    assert count(picture, figures.BLUE) > 20
    assert count(picture, figures.GREY) > 100, "the line of nearest centroid"
    assert not recwarn.list


def test_the_learning_curve_shows_training_and_validation(tmp_path):
    path = tmp_path / "curve.png"
    without = curve(path, [record(5, train=None), record(10, train=None)])
    assert count(without, figures.ORANGE) == 0
    both = curve(path, [record(5, train=0.1), record(10, train=0.2)])
    assert count(both, figures.ORANGE) > 100
    higher = curve(path, [record(5, train=0.1), record(10, train=0.2, accuracy=0.9)])
    assert (higher != both).any()


def drawn_curve(history):
    """Returns label -> (steps, percents), and the band's vertices, of the figure."""
    [axes] = figures.learning_curve(history, CENTROID, "MAML").axes
    lines = {line.get_label(): line.get_data() for line in axes.lines}
    [band] = axes.collections
    return lines, band.get_paths()[0].vertices


def test_the_learning_curve_draws_each_number_where_it_is():
    history = [record(5, 0.5, train=0.1), record(10, 0.75, train=0.2, half_width=0.1)]
    lines, band = drawn_curve(history)
    training = lines["MAML, training (with dropout, if any)"]
    np.testing.assert_allclose(training, [[5, 10], [10, 20]])
    np.testing.assert_allclose(lines["MAML, validation"], [[5, 10], [50, 75]])
    assert set(lines["nearest centroid, validation"][1]) == {60.0}
    at_ten = band[band[:, 0] == 10, 1]
    assert at_ten.min() == pytest.approx(65) and at_ten.max() == pytest.approx(85)


# Bins from 0.4 to 0.6 and from 0.8 on: 30 and 10 queries, 12 and 9 of them right.
BINS = Bins((0, 0, 30, 0, 10), (0, 0, 15.0, 0, 8.5), (0, 0, 12, 0, 9))


def test_a_reliability_diagram_has_confidence_across_accuracy_up_shares_as_bars():
    figure = figures.reliability_diagrams({"MAML": BINS}, "tiny")
    [axes] = figure.axes
    diagonal, line = axes.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    np.testing.assert_allclose(line.get_xdata(), [0.5, 0.85])
    np.testing.assert_allclose(line.get_ydata(), [0.4, 0.9])
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    np.testing.assert_allclose(bars, [(0.4, 0.2, 0.75), (0.8, 0.2, 0.25)])
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    assert figure.get_supxlabel().startswith("confidence")
    assert figure.get_supylabel() == "accuracy" and figure.get_suptitle() == "tiny"
    assert axes.get_title() == "MAML\nECE 8.8 %"


@pytest.mark.parametrize("methods", [1, 4, 6])
def test_each_method_has_a_panel_of_its_own(methods):
    names = [f"method {i}" for i in range(methods)]
    figure = figures.reliability_diagrams(dict.fromkeys(names, BINS), "$unclosed")
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    assert titles == names
    assert figures.pixels(figure).shape[2] == 3


def test_a_method_that_answers_nan_breaks_no_diagram():
    bins = Bins((0, 6), (0.0, np.nan), (0, 3))
    figures.pixels(figures.reliability_diagrams({"LEO": bins}, ""))


def test_a_file_and_tensorboard_get_the_same_picture(tmp_path):
    # Anew, because versions of matplotlib lay out a drawn figure a little differently.
    first, second = (
        figures.reliability_diagrams({"LEO": BINS}, "tiny") for _ in range(2)
    )
    drawn = figures.pixels(first)
    assert drawn.dtype == np.uint8
    figures.save(tmp_path / "picture.png", second)
    np.testing.assert_array_equal(pixels(tmp_path / "picture.png"), drawn)


def test_letters_that_the_font_lacks_are_no_reason_to_warn(recwarn):
    figures.pixels(figures.reliability_diagrams({"漢字": BINS}, "題"))
    assert not recwarn.list


def test_a_picture_that_cannot_be_written_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        curve(tmp_path / "file" / "curve.png", [record(1)])
