"""Tests decoding by limited workers: ordered, bad files named, deaths survived."""

import os
import pathlib
import re

import numpy as np
import pytest
from picture_files import content_of, hostile_files, png_bomb, quarters
from PIL import Image

from leo_tf.console import Console
from leo_tf.data_pipeline.glyphs.dataset import load_splits
from leo_tf.data_pipeline.glyphs.hog import hog
from leo_tf.data_pipeline.images import decoding
from leo_tf.data_pipeline.images.decoding import decode, say_bad
from leo_tf.data_pipeline.images.pictures import find_pictures
from leo_tf.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder of cat and dog, 5 grey pictures each: 10 * class + number."""
    folder = tmp_path_factory.mktemp("pictures")
    for c, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        for i in range(5):
            image = Image.new("L", (9 + i, 20 - c), 10 * c + i)
            image.save(folder / name / f"{i}.png")
    return folder


def all_of(batches) -> tuple[list[int], np.ndarray]:
    batches = list(batches)
    pixels = np.concatenate([batch.pixels for batch in batches])
    return np.concatenate([batch.indices for batch in batches]).tolist(), pixels


def test_pixels_come_in_order_whatever_the_number_of_processes(folder):
    pictures = find_pictures(folder)
    for options in ({"workers": 1}, {"workers": 3, "batch_size": 2}):
        indices, pixels = all_of(decode(pictures, 8, **options))
        assert indices == list(range(10))
        assert pixels.shape == (10, 8, 8, 3) and pixels.dtype == np.uint8
        wanted = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
        assert (pixels == np.array(wanted)[:, None, None, None]).all()
    indices, pixels = all_of(decode(pictures, 8, indices=[7, 2], workers=1))
    assert indices == [7, 2] and pixels[:, 0, 0, 0].tolist() == [12, 2]


def test_the_digest_of_each_file_comes_with_it(folder):
    import hashlib

    (batch,) = decode(find_pictures(folder), 8, indices=[3], workers=1)
    content = (folder / "cat" / "3.png").read_bytes()
    assert batch.digests == (hashlib.sha256(content).hexdigest(),)


def test_no_process_is_left_when_the_iterator_is_not_finished(folder, children):
    batches = decode(find_pictures(folder), 8, workers=2, batch_size=1)
    next(batches)
    assert children()
    batches.close()
    assert children() == []


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """Returns a folder of good pictures, and of every kind of bad file."""
    folder = tmp_path_factory.mktemp("odd") / "pictures"
    (folder / "cat").mkdir(parents=True)
    good = content_of(quarters(), "JPEG")
    for name in ("0.jpg", "zz.jpg", "no.jpg"):
        (folder / "cat" / name).write_bytes(good)
    latin = os.fsencode(folder / "cat") + b"/caf\xe9\n.jpg"
    with open(latin, "wb") as file:
        file.write(good)
    for name, (content, _) in hostile_files().items():
        (folder / "cat" / name).write_bytes(content)
    (folder / "cat" / "bomb.png").write_bytes(png_bomb(4000))
    os.mkfifo(folder / "cat" / "pipe.jpg")
    (folder / "cat" / "link.jpg").symlink_to("/etc/passwd")
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / ".DS_Store").write_bytes(b"0")
    (folder / "cat" / "._0.jpg").write_bytes(b"0")
    (folder / "cat" / "notes.txt").write_bytes(b"0")
    return folder


def test_every_bad_file_is_skipped_named_and_counted(odd_folder, capsys):
    console = Console()
    pictures, bad = find_pictures(odd_folder, console), []
    indices, _ = all_of(decode(pictures, 8, bad=bad, memory=40 << 20))
    found = [pictures.names[i] for i in indices]
    assert found == ["cat/0.jpg", "cat/caf\\xe9\n.jpg", "cat/no.jpg", "cat/zz.jpg"]
    assert len(bad) + len(indices) == len(pictures.items)
    names = {os.path.basename(error.where) for error in bad}
    assert names == {*hostile_files(), "bomb.png", "pipe.jpg", "link.jpg", "up"}
    say_bad(bad, len(pictures.items), console)
    lines = capsys.readouterr().err.splitlines()
    assert "1 files skipped, not pictures" in lines[0] and "'cat/notes.txt'" in lines[0]
    assert lines[1] == f"left out {len(bad)} of {len(pictures.items)} pictures:"
    assert len(lines) == 2 + len(bad) and all(str(odd_folder) in s for s in lines[2:])


def test_a_bad_picture_is_refused_by_name_unless_it_may_be_skipped(odd_folder):
    pictures = find_pictures(odd_folder)
    with pytest.raises(InputError, match=r"cat/a bitmap\.bmp: expected a picture in"):
        list(decode(pictures, 8, workers=1))


def test_a_picture_that_is_too_large_for_the_memory_is_named(odd_folder):
    pictures = find_pictures(odd_folder)
    bomb = pictures.items.index("cat/bomb.png")
    (error,) = errors_of(pictures, [bomb], memory=40 << 20)
    assert "bomb.png: expected a picture that fits the memory" in str(error)


def errors_of(pictures, indices, **options) -> list[InputError]:
    bad = []
    assert not list(decode(pictures, 8, indices=indices, bad=bad, workers=1, **options))
    return bad


@pytest.fixture
def fragile(monkeypatch, tmp_path):
    """A decoder that dies of pictures named die, or hangs; some do it once."""
    program = tmp_path / "fragile.py"
    program.write_text(
        "import os, signal, sys, time\n"
        f"sys.path.insert(0, {os.path.dirname(decoding.worker.__file__)!r})\n"
        "import worker\n"
        "read = worker.read_picture\n"
        "def fragile(root, item, size):\n"
        f"    mark = {str(tmp_path / 'mark')!r}\n"
        "    if 'once' in item and not os.path.exists(mark):\n"
        "        open(mark, 'w').close()\n"
        "        if 'hang' in item:\n"
        "            time.sleep(600)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if 'die' in item:\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if 'hang' in item and 'once' not in item:\n"
        "        time.sleep(600)\n"
        "    return read(root, item, size)\n"
        "worker.read_picture = fragile\n"
        "worker.main(sys.argv[1:])\n"
    )
    monkeypatch.setattr(decoding.worker, "__file__", str(program))


def test_a_picture_of_which_a_process_dies_is_named_and_all_others_are_read(
    fragile, tmp_path
):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    names = ["0", "1 die", "2", "3 once", "4", "5 die", "6 die"]
    for name in names:
        quarters().save(tmp_path / "p" / "cat" / f"{name}.png")
    bad = []
    indices, _ = all_of(decode(find_pictures(tmp_path / "p"), 8, bad=bad, workers=2))
    assert indices == [0, 2, 3, 4]
    assert [os.path.basename(error.where) for error in bad] == [
        "1 die.png",
        "5 die.png",
        "6 die.png",
    ]
    assert all("one that ended the decoder by SIGSEGV" in str(e) for e in bad)


def test_a_picture_that_takes_too_long_is_named_and_the_next_is_read(fragile, tmp_path):
    (tmp_path / "p" / "cat").mkdir(parents=True)
    for name in ("0", "1 hang", "2", "3 hang once"):  # the last as by a pause
        quarters().save(tmp_path / "p" / "cat" / f"{name}.png")
    pictures, bad = find_pictures(tmp_path / "p"), []
    assert all_of(decode(pictures, 8, bad=bad, workers=1, seconds=1.5))[0] == [0, 2, 3]
    (error,) = map(str, bad)
    assert "1 hang.png: expected a picture that is decoded in 1.5 s, received" in error


def test_a_decoder_that_does_not_start_is_no_bad_picture(folder, monkeypatch, tmp_path):
    program = tmp_path / "none.py"
    program.write_text("raise SystemExit(9)")
    monkeypatch.setattr(decoding.worker, "__file__", str(program))
    with pytest.raises(InputError, match="one that ended with status 9"):
        list(decode(find_pictures(folder), 8, bad=[], workers=2))


def test_glyphs_as_pictures_have_the_features_of_the_embedded_set():
    glyphs = find_pictures("glyphs")
    (batch,) = decode(glyphs, 32, indices=glyphs.of_split("val")[:30])
    table = load_splits()["val"]
    features = hog(batch.pixels[..., 0]).astype(np.float16)
    np.testing.assert_array_equal(features, table.embeddings[:30].astype(np.float16))
    assert table.names[:30].tolist() == [glyphs.items[i] for i in batch.indices]
    assert glyphs.class_names[glyphs.labels[batch.indices[0]]] == table.class_names[0]


def test_the_lines_of_the_page_make_features_of_pictures():
    page = pathlib.Path(__file__).parents[3] / "docs" / "data_formats.md"
    text = page.read_text("utf-8").split("## Pictures")[1]
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})
