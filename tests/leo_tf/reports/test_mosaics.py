"""Pictures of episodes and confusions: right and wrong answers are visible."""

import numpy as np
import pytest

from leo_tf.reports import mosaics
from leo_tf.reports.figures import GREY, pixels
from leo_tf.reports.mosaics import RIGHT, WRONG

NAMES = ("first", "a name that is too long to be shown", "ä", "$last_1")
ALL_RIGHT = np.repeat(np.arange(3)[:, np.newaxis], 4, axis=1)  # [N, Q]


def count(drawn, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((drawn == rgb).all(axis=-1).sum())


def confusion(counts, names=NAMES):
    return pixels(mosaics.confusion(np.asarray(counts), names))


def percents(counts, names=NAMES) -> dict[tuple[int, int], str]:
    """Returns (row, column) -> number, of a confusion's cells."""
    [axes] = mosaics.confusion(np.asarray(counts), names).axes
    places = {text.get_position(): text.get_text() for text in axes.texts}
    cells = {(int(y // 28), int(x // 28)): text for (x, y), text in places.items()}
    return {(row, column): cells[row, column] for row, column in cells if column >= 0}


def names_of(figure) -> list[str]:
    """Returns the names beside the picture, from the top, without blanks."""
    beside = [text for text in figure.axes[0].texts if text.get_position()[0] < 0]
    ordered = sorted(beside, key=lambda text: text.get_position()[1])
    return [text.get_text() for text in ordered if text.get_text()]


def test_a_perfect_confusion_is_green_and_a_wrong_one_red():
    right = confusion(5 * np.eye(4, dtype=int))
    wrong = confusion(5 * np.eye(4, dtype=int)[::-1])
    assert count(right, RIGHT) > 1000 and count(right, WRONG) == 0
    assert count(wrong, WRONG) > 1000 and count(wrong, RIGHT) == 0


def test_a_row_of_the_confusion_is_a_class_and_a_column_an_answer():
    counts = 5 * np.eye(4, dtype=int)
    counts[3] = [5, 0, 0, 0]  # the last class is answered as the first
    drawn = confusion(counts)
    assert count(drawn[-38:], WRONG) > 300, "in the lowest row"
    assert count(drawn[:-38], WRONG) == 0
    left, right = drawn[:, :195], drawn[:, 195 + 28 :]
    assert count(left, WRONG) == count(right, WRONG) == 0, "in the first column"


def test_the_number_in_a_cell_is_the_share_of_its_row():
    counts = [[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 1, 0, 998]]
    assert percents(counts) == {
        **{(0, 0): "75", (0, 1): "25"},
        **{(1, 1): "100", (3, 3): "100"},  # below half a percent: nothing
    }


def test_the_darker_the_more_the_colour():
    counts = np.array([[9, 1], [0, 10]])
    drawn = confusion(counts, NAMES[:2]).astype(int)
    row = drawn[58 + 3]  # above the digits
    few, none = row[195 + 28 + 14], row[195 + 2 * 28 + 14]
    orange = np.array([int(WRONG[i : i + 2], 16) for i in (1, 3, 5)])
    np.testing.assert_allclose(few, 255 - 0.1 * (255 - orange), atol=2)
    np.testing.assert_array_equal(none, 255)


def test_of_many_classes_those_with_mistakes_are_shown():
    names = tuple(map(str, range(50)))
    counts = 10 * np.eye(50, dtype=int)
    perfect = confusion(counts, names)
    assert perfect.shape[0] < 700 and count(perfect, WRONG) == 0
    counts[49] = 0
    counts[49, 48] = 10
    figure = mosaics.confusion(counts, names)
    assert count(pixels(figure), WRONG) > 300
    assert names_of(figure) == [*map(str, range(18)), "48", "49"]
    # Answers of classes that are not shown are in the last column.
    counts[:20] = 0
    counts[:20, 20:48] = 1
    assert {cell: text for cell, text in percents(counts, names).items()} == {
        (row, 20): "100" for row in range(20)
    }


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
        confusion(np.eye(2), (name, "b"))
        for name in ("ARMENIAN CAPITAL LETTER GIM", other)
    ]
    assert np.equal(*drawn).all() == is_same


@pytest.mark.parametrize("layout", [mosaics.PAGE, mosaics.CARD])
def test_no_name_is_cut_off_at_the_edge(layout):
    names = ["ARMENIAN CAPITAL LETTER NOW", "OLD ITALIC LETTER MM", "NKO LETTER GBA"]
    for figure in (
        mosaics.confusion(np.eye(3, dtype=int), names, layout),
        mosaics.episode(names, *pictures(), layout=layout),
    ):
        pixels(figure)
        lefts = [text.get_window_extent().x0 for text in figure.axes[0].texts]
        assert min(lefts) >= 0


def test_answers_without_classes_are_no_reason_to_warn(recwarn):
    confusion(np.zeros([3, 3], int), NAMES[:3])
    assert not recwarn.list


def pictures(way=3, queries=4):
    """Returns an example of each class and queries, in none of our colours."""
    random = np.random.default_rng(0)
    drawn = random.integers(20, 100, [way, queries + 1, 16, 8]).astype(np.uint8)
    return drawn[:, 0], drawn[:, 1:]


def answered(answers, queries=4):
    figure = mosaics.episode(NAMES[:3], *pictures(queries=queries), answers=answers)
    return pixels(figure)


def test_right_answers_are_green_and_wrong_ones_red():
    all_right = answered({"LEO": ALL_RIGHT, "centroid": ALL_RIGHT})
    assert count(all_right, RIGHT) > 0 and count(all_right, WRONG) == 0
    wrong = {"LEO": (ALL_RIGHT + 1) % 3, "centroid": (ALL_RIGHT + 2) % 3}
    all_wrong = answered(wrong)
    assert count(all_wrong, RIGHT) == 0
    assert count(all_wrong, WRONG) == count(all_right, RIGHT)


def test_one_wrong_answer_of_one_method_is_one_tile_in_red():
    wrong = ALL_RIGHT.copy()
    wrong[2, 3] = 0
    picture = answered({"LEO": wrong, "centroid": ALL_RIGHT})
    red, green = (count(picture, colour) for colour in (WRONG, RIGHT))
    assert red > 0 and green == 23 * red


def tile_at(page, top, left, side):
    """Returns the brightness inside a tile."""
    return page[top + 2 : top + 2 + side, left + 2 : left + 2 + side, 0]


def test_a_tile_shows_the_example_ink_on_white_and_an_answer_its_class():
    (support, query), answers = pictures(), (ALL_RIGHT + 1) % 3
    figure = mosaics.episode(NAMES[:3], support, query, {"LEO": answers})
    page = pixels(figure)
    top, pitch = 58, 62
    rows, columns = np.arange(52) * 16 // 52, np.arange(52) * 8 // 52
    shown = tile_at(page, top, 195, 52)
    np.testing.assert_array_equal(shown, 255 - support[0][np.ix_(rows, columns)])
    shown = tile_at(page, top, 195 + 3 * pitch, 52)
    np.testing.assert_array_equal(shown, 255 - query[0, 2][np.ix_(rows, columns)])
    rows, columns = np.arange(31) * 16 // 31, np.arange(31) * 8 // 31
    shown = tile_at(page, top + pitch, 195 + pitch, 31)
    np.testing.assert_array_equal(shown, 255 - support[1][np.ix_(rows, columns)])


def test_each_row_is_named_by_its_class_and_each_line_of_answers_by_its_method():
    both = {"LEO": ALL_RIGHT, "MAML": ALL_RIGHT}
    figure = mosaics.episode(("a", "b", "c"), *pictures(), answers=both)
    lines = ["LEO answers", "MAML answers"]
    assert names_of(figure) == ["a", *lines, "b", *lines, "c", *lines]
    shares = np.full([3, 4, 3], 1 / 3)
    both = mosaics.episode(("a", "b", "c"), *pictures(), {"LEO": ALL_RIGHT}, shares)
    assert names_of(both) == ["a", lines[0], "b", lines[0], "c", lines[0]]
    assert len(both.axes[0].texts) == 4 * 3, "pictures, answers, bars, a gap"


@pytest.mark.parametrize("queries", [1, 50])
@pytest.mark.parametrize("way", [2, 100])
def test_an_episode_of_any_size_is_a_page_of_bounded_size(queries, way):
    names, labels = [str(n) for n in range(way)], np.zeros([way, queries], int)
    figure = mosaics.episode(names, *pictures(way, queries), answers={"LEO": labels})
    height, width, _ = pixels(figure).shape
    assert height < 3000 and width < 1000


def shares_of(labels, share=0.8, way=3):
    shares = np.full([*labels.shape, way], (1 - share) / (way - 1))
    np.put_along_axis(shares, labels[..., np.newaxis], share, axis=-1)
    return shares


@pytest.mark.parametrize("images", [True, False])
def test_a_right_answer_is_framed_in_green_and_a_wrong_one_in_red(images):
    tiles = pictures() if images else (None, None)

    def drawn(labels):
        return pixels(mosaics.episode(NAMES[:3], *tiles, shares=shares_of(labels)))

    right = drawn(ALL_RIGHT)
    assert count(right, RIGHT) > 0 and count(right, WRONG) == 0
    labels = ALL_RIGHT.copy()
    labels[2, 3] = 0
    one_wrong = drawn(labels)
    # Bars of one height may differ by a pixel in width.
    green, red = count(one_wrong, RIGHT), count(one_wrong, WRONG)
    assert red > 0 and green / red == pytest.approx(11, rel=0.03)


def test_bars_stand_in_the_order_of_the_classes_as_high_as_the_probabilities():
    shares = np.array([[[0.6, 0.1, 0.3]], [[0.6, 0.1, 0.3]], [[0.1, 0.2, 0.7]]])
    page = pixels(mosaics.episode(NAMES[:3], shares=shares))
    inside = page[58 + 2 : 58 + 2 + 31, 195 + 2 : 195 + 2 + 52]
    parts = np.array_split(inside, 3, axis=1)
    middle = [part[:, part.shape[1] // 2][:, np.newaxis] for part in parts]
    heights = [count(m, RIGHT) + count(m, GREY) for m in middle]
    assert heights == [round(31 * share) for share in (0.6, 0.1, 0.3)]
    assert [count(m, RIGHT) > 0 for m in middle] == [True, False, False]
    wrong = page[58 + 47 + 2 :][:31, 195 + 2 : 195 + 2 + 52]  # of the second class
    first = wrong[:, 5][:, np.newaxis]
    assert count(first, WRONG) == heights[0] and count(first, RIGHT) == 0


@pytest.mark.parametrize("way", [3, 30, 200])
def test_the_bar_of_the_answer_is_seen_among_however_many(way):
    shares = shares_of(np.full([2, 1], way - 1), way=way)
    page = pixels(mosaics.episode(NAMES[:2], shares=shares))
    inside = page[58 + 2 : 58 + 2 + 31, 195 + 2 : 195 + 2 + 52]
    assert count(inside[:, -17:], WRONG) >= 0.7 * 31


def test_a_method_that_answers_nan_breaks_no_picture():
    pixels(mosaics.episode(NAMES[:3], shares=np.full([3, 4, 3], np.nan)))
