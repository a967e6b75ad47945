"""Files that people give the page, and the file of what it learned."""

import numpy as np
import pytest
from drawn_pictures import encoded, photo
from hand_drawn import STROKES
from PIL import Image

from leo_tf.serving.classifier import Classifier
from leo_tf.serving.models import connect

pytestmark = pytest.mark.browser


@pytest.fixture
def files(tmp_path):
    """Pictures of two kinds in a folder: JPEG, PNG and WebP."""
    for i in range(3):
        for name, seed, suffix in (("a", 1, "jpg"), ("b", 9, "png")):
            image = Image.fromarray(photo(90, 120, seed=seed))
            image.rotate(3 * i).save(tmp_path / f"{name}{i}.{suffix}")
    Image.fromarray(photo(90, 120, seed=9)).save(tmp_path / "b9.webp")
    return tmp_path


def test_pictures_of_a_folder_are_examples_and_questions(page, files):
    page.give_files(0, *sorted(files.glob("a*.jpg"))[:2])
    page.give_files(1, *sorted(files.glob("b*.png"))[:2])
    page.until(lambda: "2 classes, 4 examples" in page.text("#taught"))
    page.give_files(-1, *sorted(files.glob("*2.*")), files / "b9.webp")
    page.until(lambda: len(page.all("#earlier li")) == 3)
    answers = [text.split(",")[0] for text in page.texts("#earlier li")]
    assert answers == ["a2.jpg: A", "b2.png: B", "b9.webp: B"]


def test_a_large_picture_of_another_format_is_made_smaller(page, files):
    noise = np.random.default_rng(0).integers(0, 256, [2500, 2500, 3], np.uint8)
    Image.fromarray(noise).save(files / "large.webp", quality=1, method=0)
    page.give_files(0, files / "large.webp")
    page.until(lambda: page.examples(0) == 1 or page.said())
    assert not page.said()


def test_files_asked_about_are_answered_anew_when_a_class_comes(page, files):
    def becomes(*begins):
        def listed():
            texts = page.texts("#earlier li")
            right = [text.startswith(begin) for text, begin in zip(texts, begins)]
            return len(texts) == len(begins) and all(right)

        page.until(listed)

    page.give_files(0, files / "a0.jpg")
    page.give_files(1, files / "b0.png")
    page.until(lambda: "2 classes" in page.text("#taught"))
    page.give_files(-1, files / "a1.jpg", files / "b1.png")
    becomes("a1.jpg: A", "b1.png: B")
    page.one("#add-class").click()
    page.give_files(2, files / "b1.png")
    becomes("a1.jpg: A", "b1.png: C")
    page.give_files(-1, *files.glob("[ab]?.[jp]*g"))
    page.give_files(-1, files / "a2.jpg", files / "a0.jpg")
    becomes("a2.jpg: A", "a0.jpg: A")


def test_nearest_centroid_beside_it_is_that_of_the_package(page, files, tmp_path):
    page.give_files(0, files / "a0.jpg", files / "a1.jpg", files / "b0.png")
    page.give_files(1, files / "b1.png", files / "a2.jpg")
    page.until(lambda: "2 classes, 5 examples" in page.text("#taught"))
    page.give_files(-1, files / "b2.png")
    page.until(page.best)
    with np.load(page.saved(tmp_path)) as file:
        rows, labels = file["support"], file["support_labels"]
    model = connect(page.address)
    pictures = np.array([(files / "b2.png").read_bytes()], object)
    query = model("embed_images", {"images": pictures})
    centroid = Classifier("centroid").fit(rows, labels)
    expected = centroid.predict_proba(query["features"])[0]
    names, bars = page.texts(".bars .class"), page.texts(".bar.centroid")
    found = {name: float(bar.rstrip(" %")) / 100 for name, bar in zip(names, bars)}
    for name, share in zip(centroid.classes_, expected):
        assert abs(found[name] - share) < 0.0051


def test_of_a_batch_all_that_is_refused_is_told_at_its_end(page, files):
    for name in ("text.png", "more.png"):
        (files / name).write_text("I am no picture")
    names = "text.png", "a0.jpg", "more.png", "b0.png"
    page.give_files(0, *(files / name for name in names))
    page.until(lambda: page.examples(0) == 2)
    said_at_end = page.said()
    assert "2 of 4 taken. text.png: cannot be read" in said_at_end
    assert "more.png: cannot be read" in said_at_end


def test_what_is_no_picture_is_told_by_name_and_changes_nothing(page, files):
    (files / "text.png").write_text("I am no picture")
    (files / "huge.png").write_bytes(encoded(photo(9, 9)) + bytes(40_000_000))
    (files / "damaged.png").write_bytes(encoded(photo(90, 90))[:-500])
    (files / "blank.png").write_bytes(encoded(Image.new("RGB", (50, 50), "white")))
    for name in ("text.png", "huge.png", "damaged.png", "blank.png"):
        page.give_files(0, files / name)
        page.until(lambda: name in page.said())  # noqa: B023
        assert page.examples(0) == 0
    page.give_files(0, files / "a0.jpg")
    page.until(lambda: page.examples(0) == 1)
    assert not page.said()


def test_a_batch_of_files_is_one_adaptation_and_a_new_name_none(page, files):
    page.count_requests()
    for number, letter in enumerate("ab"):
        page.give_files(number, *sorted(files.glob(f"{letter}?.[jp]*g")))
    page.until(lambda: page.shows("#latents circle"))
    assert page.asked() == ["embed_images"] * 6 + ["adapt", "embed"]
    page.give_files(-1, files / "b9.webp")
    page.until(lambda: page.best() == "B")
    assert page.asked() == ["embed_images", "predict"]
    page.name_classes("First", "Second")
    assert page.best() == "Second" and "Second" in page.text("#latents")
    labels = [each.get_attribute("aria-label") for each in page.all("#classes button")]
    assert {"Remove First", "Add drawing to Second", "Camera for Second"} <= {*labels}
    assert "Remove example 3 of Second" in labels and not page.asked()


def test_what_it_learned_is_saved_for_python_and_loaded_again(page, taught, tmp_path):
    rng = np.random.default_rng(7)
    page.teach_signs(rng, 3)
    page.name_classes("käse", "日本", "A b")
    page.until(lambda: "3 classes" in page.text("#taught"))
    path = page.saved(tmp_path)
    classifier = Classifier.load(path, taught)
    assert classifier.classes_.tolist() == ["A b", "käse", "日本"]
    assert classifier.predict(classifier.support_).tolist() == ["A b", "käse", "日本"]
    again = Classifier(taught).fit(classifier.support_, classifier.support_labels_)
    np.testing.assert_allclose(again.classifier_, classifier.classifier_, atol=1e-5)
    with np.load(path) as file:
        assert file["model"].tolist() == [again._identity, True]
    classifier.partial_fit(classifier.support_[:1], ["more"]).save(tmp_path / "2.npz")
    for file, count in (("classifier.npz", 3), ("2.npz", 4)):
        page.one("#load").send_keys(str(tmp_path / file))
        page.until(lambda: f"{count} classes, {count} ex" in page.text("#taught"))  # noqa: B023
    (tmp_path / "bad.npz").write_text("no file of ours")
    page.one("#load").send_keys(str(tmp_path / "bad.npz"))
    page.until(lambda: "no file that this page" in page.said())
    assert "4 classes" in page.text("#taught")


@pytest.mark.parametrize(
    "labels, names",
    [
        (np.int32([30, 4, 30]), ["30", "4"]),
        (np.array([True, False, True]), ["True", "False"]),
        (np.array([b"one", b"two", b"one"]), ["one", "two"]),
    ],
)
def test_labels_that_python_saved_become_names(page, taught, tmp_path, labels, names):
    rows = np.asfortranarray(np.random.default_rng(0).random([3, 640], np.float32))
    fitted = Classifier(taught).fit(rows, labels)
    fitted.save(tmp_path / "python.npz")
    page.one("#load").send_keys(str(tmp_path / "python.npz"))
    page.until(lambda: "2 classes, 3 examples" in page.text("#taught"))
    fields = page.all(".name input")
    assert [each.get_attribute("value") for each in fields] == names
    with np.load(page.saved(tmp_path)) as file:
        order = np.argsort(labels.astype(str), kind="stable")
        np.testing.assert_array_equal(file["support"], rows[order])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"backbone": np.array(["another"])}, "of another backbone"),
        ({"support": np.float32(np.eye(3, 50))}, "with 50 features"),
        ({"support": np.full([3, 640], np.nan, np.float32)}, "NaN"),
        ({"support_labels": np.array([b"a", b"b"])}, "no file that this page"),
        ({"support_labels": np.array(["2020"] * 3, "M8[D]")}, "M8[D]"),
        (
            {"support_labels": np.arange(101), "support": np.float32(np.eye(101, 640))},
            "101 classes; this model takes 100",
        ),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(page, tmp_path, changes, words):
    page.add_drawing(1, STROKES[0])
    arrays = {"support": np.float32(np.eye(3, 640)), "support_labels": np.arange(3)}
    np.savez(tmp_path / "other.npz", **(arrays | changes))
    page.one("#load").send_keys(str(tmp_path / "other.npz"))
    page.until(lambda: page.said().startswith("other.npz: ") and words in page.said())
    assert page.examples(1) == 1 and len(page.all("#classes > li")) == 2
