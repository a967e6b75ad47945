"""Tests that folders and CSV files name pictures and classes, without guessing."""

import os

import pytest

from leo_tf.console import Console
from leo_tf.data_pipeline.images.pictures import find_pictures
from leo_tf.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Returns a function that creates empty files in a folder."""

    def make(*paths: str):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


def found(pictures) -> dict[str, str]:
    """Returns path -> class."""
    classes = [pictures.class_names[label] for label in pictures.labels]
    return dict(zip(pictures.items, classes))


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        find_pictures(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_a_class_with_all_that_is_below_it(make):
    folder = make("b/2.jpg", "b/1.PNG", "a/images/x.JPEG", "a/.hidden.jpg")
    make("__MACOSX/a/x.jpg", "b/._1.jpg", ".cache/a/1.jpg")
    pictures = find_pictures(folder)
    assert pictures.class_names == ("a", "b") and pictures.splits is None
    assert found(pictures) == {"a/images/x.JPEG": "a", "b/1.PNG": "b", "b/2.jpg": "b"}
    assert pictures.root == os.path.realpath(folder)


def test_classes_that_are_numbers_are_in_their_order(make):
    pictures = find_pictures(make("10/a.jpg", "2/a.jpg"))
    assert pictures.class_names == ("2", "10")
    assert pictures.items == ("2/a.jpg", "10/a.jpg")
    assert pictures.labels.tolist() == [0, 1]


@pytest.mark.parametrize("val, test", [("val", "test"), ("Validation", "novel")])
def test_folders_of_splits_split_the_classes(make, val, test):
    folder = make("train/c/1.jpg", "train/a/1.jpg", f"{val}/b/1.jpg", f"{test}/d/1.jpg")
    pictures = find_pictures(folder)
    assert pictures.class_names == ("a", "b", "c", "d")
    assert pictures.splits == ("train", "val", "train", "test")
    assert pictures.of_split("train").tolist() == [0, 2]


def test_a_class_may_be_called_train_but_not_beside_splits(make):
    folder = make("train/1.jpg", "plane/1.jpg")
    assert find_pictures(folder).class_names == ("plane", "train")
    make("train/steam/1.jpg")
    assert "'train', which has folders, beside 'plane'" in refused(folder)


def test_splits_without_classes_are_refused(make):
    folder = make("train/1.jpg", "test/1.jpg")
    assert "expected a folder of pictures for each class" in refused(folder)


def test_a_class_in_two_splits_is_refused_with_the_way_out(make):
    message = refused(make("train/cat/1.jpg", "test/cat/1.jpg"))
    assert "'cat' in test and train" in message and "--class_split" in message


def test_what_is_passed_over_is_said(make, capsys):
    folder = make("loose.jpg", "cat/1.jpg", "cat/notes.txt", "cat/Thumbs.db")
    assert found(find_pictures(folder, Console())) == {"cat/1.jpg": "cat"}
    said = capsys.readouterr().err
    assert "3 files skipped, not pictures or in no class" in said
    assert "'cat/Thumbs.db', 'cat/notes.txt', 'loose.jpg'" in said


def test_nothing_at_all_is_refused(make, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no pictures" in refused(tmp_path / "empty")
    assert "nothing there" in refused(tmp_path / "missing")
    assert "no pictures" in refused(make("cat/notes.txt"))


def write(folder, text, name="pictures.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def test_a_table_names_pictures_and_classes(tmp_path):
    path = write(tmp_path, "\ufefffilename,label\r\nb/2.jpg, dog\r\n\na/1.png,cat\n")
    assert found(find_pictures(path)) == {"a/1.png": "cat", "b/2.jpg": "dog"}
    text = 'split,class,path\nval,"a, b",./x/../1.jpg\ntrain,c,2.jpg\n'
    pictures = find_pictures(write(tmp_path, text))
    assert found(pictures) == {"1.jpg": "a, b", "2.jpg": "c"}
    assert pictures.splits == ("val", "train")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/1.jpg,cat\n", "a first line that names columns path and label"),
        ("path,label\n", "no pictures"),
        ("path,label\n1.jpg\n", "line 2: expected 2 columns, received 1"),
        ("path,label\n1.jpg, \n", "line 2: expected a class"),
        ("path,label\n../1.jpg,a\n", "line 2: expected a path below this file"),
        ("path,label\n/etc/1.jpg,a\n", "line 2: expected a path below this file"),
        ("path,label,split\n1.jpg,a,dev\n", "line 2: expected one of train, val, test"),
        ("path,label,split\n1.jpg,a,val\n2.jpg,a,test\n", "'a' in test and val"),
        ("path,label\n1.jpg,a\n./1.jpg,b\n", "again: '1.jpg'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a first line that names columns"),
        ("path,label\n" + "x" * 200_000, "a CSV file, received field larger"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_its_line(text, said, tmp_path):
    assert said in refused(write(tmp_path, text))


def test_the_same_text_may_come_twice(tmp_path):
    path = write(tmp_path, "text,label\nyes,a\nno,a\nyes,a\nyes,b\n")
    assert find_pictures(path).items == ("no", "yes", "yes", "yes")


def test_the_digest_of_texts_does_not_depend_on_files_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = find_pictures(write(tmp_path, "text,label\nyes,a\nno,b\n"))
    before = pictures.digest()
    (tmp_path / "yes").write_text("a file")
    assert pictures.digest() == before


def test_a_file_without_lines_is_not_read_whole(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "line 1: expected a CSV file" in refused(path)


def test_a_path_of_nothing_is_told_what_may_be_there(tmp_path):
    assert "none: expected a folder with one folder per class" in refused(
        tmp_path / "none"
    )


def test_names_that_are_no_text_are_shown_as_bytes(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    open(folder + b"/\xff.jpg", "w").close()
    pictures = find_pictures(tmp_path)
    assert pictures.class_names == ("caf\\xe9",)
    assert pictures.names == ["caf\\xe9/\\xff.jpg"]
    assert os.path.exists(os.path.join(pictures.root, pictures.items[0]))
    assert len(pictures.digest()) == 64


def test_the_digest_follows_names_classes_and_content(make, tmp_path):
    folder = make("a/1.jpg", "a/2.jpg")
    first = find_pictures(folder).digest()
    assert find_pictures(folder).digest() == first
    (folder / "a" / "1.jpg").write_bytes(b"x")
    second = find_pictures(folder).digest()
    (folder / "a" / "2.jpg").rename(folder / "a" / "3.jpg")
    third = find_pictures(folder).digest()
    os.mkfifo(folder / "a" / "4.jpg")
    fourth = find_pictures(folder).digest()
    assert len({first, second, third, fourth}) == 4


def test_the_embedded_set_has_its_splits():
    glyphs = find_pictures("glyphs")
    assert glyphs.images.shape == (len(glyphs.items), 32, 32)
    sizes = [len(glyphs.of_split(split)) for split in ("train", "val", "test")]
    assert sum(sizes) == len(glyphs.items) and min(sizes) > 1000
    assert "DIGIT TWO" in glyphs.class_names
