"""The embedded data set: which characters, how they differ, and that they are kept."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from leo_tf.console import Console
from leo_tf.data_pipeline.glyphs import dataset as glyphs
from leo_tf.data_pipeline.glyphs import drawing as glyph_drawing
from leo_tf.data_pipeline.glyphs.drawing import NUM_DRAWS, PICTURE_SIDE, distort
from leo_tf.data_pipeline.glyphs.hog import hog
from leo_tf.errors import InputError

DRAWS = ["rotation", "slant", "width", "scale", "right", "down"]
DRAWS += ["stroke", "blur", "contrast", "dirt"]


@pytest.fixture(scope="module")
def fonts():
    return glyphs.Fonts()


@pytest.fixture(scope="module")
def chosen(fonts):
    return glyphs.choose_characters(fonts)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Draws three small scripts, three examples per class, in a cache of their own."""
    scripts = {"train": ("DIGIT",), "test": ("OGHAM",), "val": ("NKO",)}
    monkeypatch.setattr(glyphs, "SCRIPTS", scripts)
    monkeypatch.setattr(glyphs, "EXAMPLES_PER_CLASS", 3)
    return tmp_path


def load_small(directory):
    return glyphs.load_splits(cache_dir=directory)


def assert_same(first, second):
    assert list(first) == list(second) == ["train", "val", "test"]
    for split, table in first.items():
        assert table.digest == second[split].digest
        np.testing.assert_array_equal(table.images, second[split].images)


def scripts_of(characters):
    names = [unicodedata.name(character) for character in characters]
    return {name.split()[0] for name in names}


def test_there_are_about_400_100_and_150_classes(chosen):
    sizes = {split: len(characters) for split, characters in chosen.items()}
    assert 400 <= sizes["train"] <= 450
    assert 90 <= sizes["val"] <= 115
    assert 135 <= sizes["test"] <= 160


def test_splits_share_no_script(chosen):
    train, val, test = (scripts_of(chosen[split]) for split in ("train", "val", "test"))
    assert "LATIN" in train and "ARMENIAN" in val and "GEORGIAN" in test
    assert not (train & val or train & test or val & test)


def test_no_two_characters_of_any_split_look_alike(fonts, chosen):
    every = [character for characters in chosen.values() for character in characters]
    pictures = [fonts.draw(one, fonts.faces_of[one][0]) for one in every]
    cosines = glyphs.similarities(np.array(pictures))
    assert np.tril(cosines, -1).max() < glyphs.LOOK_ALIKE


@pytest.mark.parametrize("alike", ["AΑА", "OОՕ", "HНⲎ", "SsЅѕ", "Ψψ"])
def test_look_alikes_across_scripts_count_once(chosen, alike):
    every = "".join("".join(characters) for characters in chosen.values())
    assert sum(every.count(character) for character in alike) == 1


def test_accents_ligatures_and_forms_of_others_are_left_out(chosen):
    every = "".join("".join(characters) for characters in chosen.values())
    accents, forms = "\u00c9\u0117\u0386\u0439", "\ufb01\u00b2\ufe8f\ufb2f"
    modifiers_and_blanks = "\u02b0\u0640\u0020"
    assert not set(accents + forms + modifiers_and_blanks) & set(every)
    assert set("Adφ7") <= set(every)


def test_blank_characters_have_no_picture(fonts):
    assert fonts.draw("\u2003", "DejaVuSans") is None


def test_glyphs_of_the_same_seed_are_the_same(fonts):
    first = glyphs.draw_examples(fonts, ["A", "ψ"], 4, seed=5)
    again = glyphs.draw_examples(glyphs.Fonts(), ["A", "ψ"], 4, seed=5)
    np.testing.assert_array_equal(first, again)


def test_glyphs_of_another_seed_class_or_example_differ(fonts):
    first = glyphs.draw_examples(fonts, ["A", "ψ"], 4, seed=5)
    other = glyphs.draw_examples(fonts, ["A", "ψ"], 4, seed=6)
    every = np.concatenate([first, other]).reshape(16, -1)
    assert len(np.unique(every, axis=0)) == 16


def test_an_example_does_not_depend_on_what_else_is_drawn(fonts):
    together = glyphs.draw_examples(fonts, ["A", "ψ", "Б"], 4)
    np.testing.assert_array_equal(together[4:6], glyphs.draw_examples(fonts, ["ψ"], 2))


def ink(fonts, **draws):
    """Returns amount, center x and y, and lean of a distorted H without noise."""
    numbers = np.zeros((1, NUM_DRAWS))
    for name, value in draws.items():
        numbers[0, DRAWS.index(name)] = value
    clean = fonts.draw("H", "DejaVuSans")[None]
    noise = np.zeros((1, PICTURE_SIDE, PICTURE_SIDE))
    picture = distort(clean, numbers, noise)[0] / 255
    y, x = np.mgrid[:PICTURE_SIDE, :PICTURE_SIDE] - (PICTURE_SIDE - 1) / 2
    amount = picture.sum()
    mid_x, mid_y = (picture * x).sum() / amount, (picture * y).sum() / amount
    lean = -(picture * (x - mid_x) * (y - mid_y)).sum() / amount
    wide, tall = (picture * x**2).sum() / amount, (picture * y**2).sum() / amount
    return dict(amount=amount, x=mid_x, y=mid_y, lean=lean, aspect=wide / tall)


def test_draws_of_zero_leave_a_glyph_straight_and_in_the_middle(fonts):
    plain = ink(fonts)
    assert abs(plain["x"]) < 1 and abs(plain["y"]) < 1 and abs(plain["lean"]) < 0.2


@pytest.mark.parametrize(
    "draw, quantity",
    [
        *(("slant", "lean"), ("width", "aspect"), ("scale", "amount")),
        *(("right", "x"), ("down", "y"), ("stroke", "amount"), ("contrast", "amount")),
    ],
)
def test_each_distortion_does_what_its_name_says(fonts, draw, quantity):
    less, plain, more = (ink(fonts, **{draw: value}) for value in (-1, 0, 1))
    assert less[quantity] < plain[quantity] < more[quantity]


def test_shift_and_scale_are_as_strong_as_stated(fonts):
    half = (PICTURE_SIDE - 1) / 2
    moved = (ink(fonts, right=1)["x"] - ink(fonts, right=-1)["x"]) / 2
    assert moved == pytest.approx(glyph_drawing._SHIFT * half, abs=0.1)
    grown = ink(fonts, scale=1)["amount"] / ink(fonts)["amount"]
    assert grown == pytest.approx(np.exp(2 * glyph_drawing._SCALE), rel=0.02)


def test_nearest_centroid_is_right_about_two_times_in_three(fonts, chosen):
    """5-way 1-shot by cosine on the test split: neither trivial nor hopeless."""
    pictures = glyphs.draw_examples(fonts, chosen["test"], 6)
    features = hog(pictures).astype(np.float16).astype(np.float32)
    assert np.isfinite(features).all() and features.any(axis=1).all()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features = features.reshape(len(chosen["test"]), 6, 640)
    rng = np.random.default_rng(0)
    correct = []
    for _ in range(1000):
        support, *queries = np.moveaxis(
            features[rng.choice(len(features), 5, replace=False)], 1, 0
        )
        right = np.argmax(queries @ support.T, axis=-1) == np.arange(5)
        correct.append(right.mean())
    assert 0.63 < np.mean(correct) < 0.70


def test_tables_say_what_they_hold(small):
    tables = load_small(small)
    train = tables["train"]
    assert train.class_names[7] == "DIGIT SEVEN"
    assert train.names[train.labels == 7].tolist() == [
        f"DIGIT SEVEN/{example:02d}" for example in range(3)
    ]
    fresh = glyphs.draw_examples(glyphs.Fonts(), ["7"], 3)
    np.testing.assert_array_equal(train.images[train.labels == 7], fresh)
    np.testing.assert_allclose(
        train.embeddings[train.labels == 7], hog(fresh), rtol=1e-3, atol=1e-6
    )


def test_a_cache_hit_equals_a_fresh_draw_and_draws_nothing(small, monkeypatch):
    fresh = load_small(small)
    monkeypatch.setattr(glyphs, "draw_examples", None)
    assert_same(fresh, load_small(small))


def test_both_precisions_come_from_one_cache(small, monkeypatch):
    single = load_small(small)["test"]
    monkeypatch.setattr(glyphs, "draw_examples", None)
    double = glyphs.load_splits("float64", small)["test"]
    assert single.embeddings.dtype == np.float32
    assert double.embeddings.dtype == np.float64
    np.testing.assert_array_equal(single.embeddings, double.embeddings)


def test_a_damaged_cache_is_redrawn_and_mended(small, monkeypatch):
    fresh = load_small(small)
    (path,) = small.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert_same(fresh, load_small(small))
    assert path.read_bytes()[-32:] == content[-32:]


@pytest.mark.parametrize("change", ["version", "fonts"])
def test_other_fonts_or_another_version_are_not_mistaken(small, change, monkeypatch):
    load_small(small)
    if change == "version":
        monkeypatch.setattr(glyphs, "VERSION", glyphs.VERSION + 1)
    else:
        monkeypatch.setattr(glyphs.Fonts, "digest", lambda _: "f" * 64)
    load_small(small)
    assert len(list(small.iterdir())) == 2


def test_a_cache_that_cannot_be_written_warns_once_and_the_set_is_there(small):
    expected = load_small(small)
    in_the_way = small / "file"
    in_the_way.write_text("not a directory")
    with pytest.warns(UserWarning, match="LEO_TF_CACHE") as warned:
        assert_same(expected, load_small(in_the_way / "cache"))
    assert len(warned) == 1


class Watched(Console):
    """A console that records the progress lines asked for."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def progress(self, *args, **options):
        self.lines.append(super().progress(*args, **options))
        return self.lines[-1]


def test_progress_counts_the_classes_drawn_and_is_there_once(small):
    console = Watched()
    for _ in range(2):
        tables = glyphs.load_splits(cache_dir=small, console=console)
    [line] = console.lines
    assert "glyphs" in line.title
    assert line.done == line.total == sum(t.num_classes for t in tables.values())


def test_without_a_console_nothing_is_printed(small, capfd):
    load_small(small)
    assert capfd.readouterr() == ("", "")


def test_a_missing_font_is_named(monkeypatch):
    monkeypatch.setattr(glyph_drawing, "FACES", ("DejaVuSans", "Missing"))
    with pytest.raises(InputError, match=r"Missing\.ttf: expected a font"):
        glyphs.load_splits()


def test_drawing_needs_no_tensorflow():
    module = "leo_tf.data_pipeline.glyphs.dataset"
    code = f"import sys, {module}; print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
