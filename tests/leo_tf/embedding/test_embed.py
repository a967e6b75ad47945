"""Promises of features of pictures: right rows, resumable, bad pictures named."""

import hashlib
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from leo_tf.configs.settings import DataConfig
from leo_tf.data_pipeline.feature_files import load
from leo_tf.data_pipeline.images.pictures import find_pictures
from leo_tf.embedding import chunks as module
from leo_tf.embedding.backbones import Backbone
from leo_tf.embedding.embed import embed_pictures
from leo_tf.embedding.views import decoded_side, embed_views
from leo_tf.errors import FlagError, InputError
from leo_tf.experiments import embed as job


def _mean_colours(pictures):
    """Three features a picture: its mean colour, and a constant."""
    means = pictures.mean(axis=(1, 2)) / 255
    return np.concatenate([means, np.ones((len(pictures), 1))], axis=1)


def _backbone(digest="a", embed=_mean_colours, side=8):
    return Backbone("mean", embed, side, digest, "none")


@pytest.fixture
def folder(tmp_path):
    """Three pictures of one colour each in every class; two classes a split."""
    for s, split in enumerate(("train", "val", "test")):
        for c in range(2):
            for i in range(3):
                path = tmp_path / "pictures" / split / f"{split}{c}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 12), (50 * s + 20, 100 * c, 60 * i)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "_BATCH", 2)


def test_every_row_has_the_features_of_its_picture(folder, tmp_path, small_chunks):
    embed_pictures(find_pictures(folder), _backbone(), tmp_path / "out")
    table = load(tmp_path / "out" / "val.npz", None, "float32")
    assert table.class_names == ("val0", "val1")
    expected = [[70, 100 * c, 60 * i, 255] for c in range(2) for i in range(3)]
    np.testing.assert_allclose(table.embeddings * 255, expected, atol=1e-3)
    assert table.names.tolist()[4] == "val/val1/1.png"
    assert not (tmp_path / "out" / ".part").exists()


def test_what_it_says_of_itself_is_true(folder, tmp_path):
    found = embed_pictures(find_pictures(folder), _backbone(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "embedding.json").read_text()) == found
    assert found["sizes"]["test"] == {"classes": 2, "rows": 6}
    lines = (tmp_path / "out" / "sources.sha256").read_text().splitlines()
    assert len(lines) == 18
    digest, name = lines[7].split("  ")
    content = (folder / name).read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()


def test_a_folder_of_any_name_can_be_embedded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "backbone_named", lambda *_: _backbone())
    place = folder.rename(tmp_path / "c..d")
    assert job.embed(place, tmp_path / "one").name == "c_d"
    (tmp_path / "link").symlink_to(place)
    assert job.embed(tmp_path / "link", tmp_path / "three").name == "link"
    monkeypatch.chdir(place / "train")
    assert job.embed("..", tmp_path / "two").name == "c_d"


def test_names_of_files_are_escaped_as_sha256sum_does(folder, tmp_path):
    odd = folder / "train" / "train0" / "a\\b\nc.png"
    (folder / "train" / "train0" / "0.png").rename(odd)
    found = find_pictures(folder)
    embed_pictures(found, _backbone(), tmp_path / "out")
    lines = (tmp_path / "out" / "sources.sha256").read_text().splitlines()
    digest = hashlib.sha256(odd.read_bytes()).hexdigest()
    assert len(lines) == 18
    assert f"\\{digest}  train/train0/a\\\\b\\nc.png" in lines
    if shutil.which("sha256sum"):
        command = ["sha256sum", "-c", "--quiet", tmp_path / "out" / "sources.sha256"]
        subprocess.run(command, cwd=folder, check=True)
    odd.write_bytes(odd.read_bytes() + b" ")
    with pytest.raises(InputError, match="the file as it was embedded"):
        embed_pictures(found, _backbone(), tmp_path / "out")


def test_stopped_anywhere_it_goes_on_and_ends_with_the_same_bytes(
    folder, tmp_path, small_chunks
):
    pictures = find_pictures(folder)
    embed_pictures(pictures, _backbone(), tmp_path / "whole")
    seen = []

    def dies(pixels):
        if len(seen) >= 6:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return _mean_colours(pixels)

    with pytest.raises(KeyboardInterrupt):
        embed_pictures(pictures, _backbone(embed=dies), tmp_path / "out")
    counted = []

    def counts(pixels):
        counted.append(len(pixels))
        return _mean_colours(pixels)

    embed_pictures(pictures, _backbone(embed=counts), tmp_path / "out")
    assert sum(counted) == 18 - 8  # two chunks of four were kept
    for name in ("train.npz", "val.npz", "test.npz", "sources.sha256"):
        mine, whole = (tmp_path / d / name for d in ("out", "whole"))
        assert mine.read_bytes() == whole.read_bytes()


def test_a_job_of_another_backbone_is_not_gone_on_with(folder, tmp_path, small_chunks):
    def dies(pixels):
        raise KeyboardInterrupt

    pictures = find_pictures(folder)
    with pytest.raises(KeyboardInterrupt):
        embed_pictures(pictures, _backbone("a", dies), tmp_path / "out")
    (tmp_path / "out" / ".part" / "000000000.npz").write_bytes(b"of the other")
    found = embed_pictures(pictures, _backbone("b"), tmp_path / "out")
    assert found["weights"] == "b"


def test_finished_features_are_kept_and_never_mixed_with_others(folder, tmp_path):
    pictures = find_pictures(folder)
    found = embed_pictures(pictures, _backbone(), tmp_path / "out")

    def never(pixels):
        raise AssertionError("embedded again")

    again = _backbone(embed=never)
    assert embed_pictures(pictures, again, tmp_path / "out") == found
    with pytest.raises(InputError, match=r"`weights`: expected b, received a"):
        embed_pictures(pictures, _backbone("b"), tmp_path / "out")
    Image.new("RGB", (9, 9)).save(folder / "val" / "val0" / "1.png")
    with pytest.raises(InputError, match=r"val0/1\.png: expected the file as it was"):
        embed_pictures(pictures, again, tmp_path / "out")


def test_a_bad_picture_is_named_or_left_out_and_listed(folder, tmp_path, capsys):
    (folder / "train" / "train1" / "2.png").write_bytes(b"no picture")
    pictures = find_pictures(folder)
    with pytest.raises(InputError, match=r"train1/2\.png"):
        embed_pictures(pictures, _backbone(), tmp_path / "out")
    found = embed_pictures(pictures, _backbone(), tmp_path / "out", skip_bad=True)
    assert found["left_out"] == 1 and found["sizes"]["train"]["rows"] == 5
    with pytest.raises(InputError, match="`left_out`: expected 0 pictures, without"):
        embed_pictures(pictures, _backbone(), tmp_path / "out")


def test_bad_pictures_left_out_before_a_stop_are_not_left_out_unasked(
    folder, tmp_path, small_chunks
):
    (folder / "test" / "test0" / "2.png").write_bytes(b"no picture")
    pictures, seen = find_pictures(folder), []

    def dies(pixels):
        if len(seen) >= 4:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return _mean_colours(pixels)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        embed_pictures(pictures, _backbone(embed=dies), out, skip_bad=True)
    with pytest.raises(InputError, match=r"test0/2\.png"):
        embed_pictures(pictures, _backbone(), out)


class Counting:
    """The backbone above, which counts pictures."""

    def __init__(self):
        self.count = 0

    def __call__(self, pictures):
        self.count += len(pictures)
        return _mean_colours(pictures)


def test_leaving_out_bad_pictures_after_all_keeps_what_is_done(
    folder, tmp_path, small_chunks
):
    (folder / "val" / "val1" / "2.png").write_bytes(b"no picture")
    pictures, out, counting = find_pictures(folder), tmp_path / "out", Counting()
    with pytest.raises(InputError, match=r"2\.png"):
        embed_pictures(pictures, _backbone(embed=counting), out)
    done = 4 * len(list((out / ".part").glob("*.npz")))
    assert done > 0
    counting.count = 0
    embed_pictures(pictures, _backbone(embed=counting), out, skip_bad=True)
    assert counting.count == 17 - done
    assert "val/val1/2.png': " in (out / "left_out.txt").read_text()
    embed_pictures(pictures, _backbone(), tmp_path / "fresh", skip_bad=True)
    for name in ("train.npz", "val.npz", "test.npz", "sources.sha256"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_picture_that_was_replaced_after_a_stop_is_embedded_again(
    folder, tmp_path, small_chunks
):
    pictures, out, counting = find_pictures(folder), tmp_path / "out", Counting()
    stops = iter([None] * 5)
    with pytest.raises(StopIteration):
        embed_pictures(pictures, _backbone(), out, check=lambda: next(stops))
    assert list((out / ".part").glob("*.npz"))
    item = pictures.items[0]
    Image.new("RGB", (9, 12), (1, 2, 3)).save(folder / item)
    embed_pictures(pictures, _backbone(embed=counting), out)
    embed_pictures(pictures, _backbone(), tmp_path / "fresh")
    for name in ("train.npz", "val.npz", "test.npz", "sources.sha256"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert counting.count < 18


def test_a_callable_gets_no_pipe_and_no_file_outside(folder, tmp_path):
    names = [folder / "val" / "val0" / name for name in ("pipe.png", "out.png")]
    os.mkfifo(names[0])
    (tmp_path / "outside.png").write_bytes(b"x")
    names[1].symlink_to(tmp_path / "outside.png")
    pictures, seen = find_pictures(folder), []

    def embed(paths):
        seen.extend(paths)
        return np.ones((len(paths), 2))

    backbone = _backbone(embed=embed, side=None)
    with pytest.raises(InputError, match=r"a link that leads out|a device, a pipe"):
        embed_pictures(pictures, backbone, tmp_path / "out")
    found = embed_pictures(pictures, backbone, tmp_path / "out", skip_bad=True)
    assert found["left_out"] == 2 and not {*map(str, names)} & {*seen}
    assert len((tmp_path / "out" / "left_out.txt").read_text().splitlines()) == 2


def test_if_no_picture_can_be_read_it_says_so(folder, tmp_path):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="train: expected pictures, received none"):
        embed_pictures(
            find_pictures(folder), _backbone(), tmp_path / "o", skip_bad=True
        )


def test_a_finished_directory_without_its_features_is_refused(folder, tmp_path):
    pictures, out = find_pictures(folder), tmp_path / "out"
    assert embed_pictures(pictures, _backbone(), out)["decoder"] == 2
    (out / "test.npz").unlink()
    with pytest.raises(InputError, match=r"test\.npz: expected the features, received"):
        embed_pictures(pictures, _backbone(), out)


def test_a_finished_directory_without_its_digests_or_sizes_is_refused(folder, tmp_path):
    pictures, out = find_pictures(folder), tmp_path / "out"
    embed_pictures(pictures, _backbone(), out)
    (out / "sources.sha256").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"sources\.sha256: expected the digests"):
        embed_pictures(pictures, _backbone(), out)
    (tmp_path / "elsewhere").rename(out / "sources.sha256")
    values = json.loads((out / "embedding.json").read_text())
    del values["sizes"]
    (out / "embedding.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"embedding\.json: `sizes`: expected the"):
        embed_pictures(pictures, _backbone(), out)


def test_a_backbone_may_be_named_by_another_path(folder, tmp_path):
    pictures = find_pictures(folder)
    found = embed_pictures(pictures, _backbone(), tmp_path / "out")
    again = _backbone()._replace(name="./mean")
    assert embed_pictures(pictures, again, tmp_path / "out") == found


@pytest.mark.parametrize("name", ["embedding.json", ".part/000000000.npz"])
def test_damaged_files_of_ours_are_named(folder, tmp_path, small_chunks, name):
    pictures, path = find_pictures(folder), tmp_path / "out" / name
    if name.startswith(".part"):

        def dies(pixels):
            if path.exists():
                raise KeyboardInterrupt
            return _mean_colours(pixels)

        with pytest.raises(KeyboardInterrupt):
            embed_pictures(pictures, _backbone(embed=dies), tmp_path / "out")
    else:
        embed_pictures(pictures, _backbone(), tmp_path / "out")
    path.write_bytes(b"{")
    with pytest.raises(InputError, match=name):
        embed_pictures(pictures, _backbone(), tmp_path / "out")


def test_features_of_two_sizes_are_refused(folder, tmp_path, small_chunks):
    sizes = iter(range(2, 30))

    def grows(pixels):
        return np.ones((len(pixels), next(sizes)))

    with pytest.raises(InputError, match="D = 2 for all items, received D = 3"):
        embed_pictures(find_pictures(folder), _backbone(embed=grows), tmp_path / "out")


def test_a_picture_without_features_is_named(folder, tmp_path):
    def blind(pixels):
        return np.where(pixels.mean() > 1e9, 1.0, np.zeros((len(pixels), 3)))

    with pytest.raises(InputError, match=r"0\.png: expected features that are not"):
        embed_pictures(find_pictures(folder), _backbone(embed=blind), tmp_path / "out")


@pytest.mark.parametrize(
    "features, received",
    [
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((5, 2)), r"shape \(5, 2\)"),
        (np.full((18, 2), np.nan), "in item 0"),
        (np.full((18, 2), "a"), "dtype <U1"),
    ],
)
def test_features_of_another_shape_are_refused(folder, tmp_path, features, received):
    backbone = _backbone(embed=lambda pixels: features)
    with pytest.raises(InputError, match=f"features of mean.*{received}"):
        embed_pictures(find_pictures(folder), backbone, tmp_path / "out")


def test_a_callable_without_a_size_gets_paths(folder, tmp_path):
    def lengths(paths):
        return [[len(path), int(path[-5])] for path in paths]

    backbone = _backbone(embed=lengths, side=None)
    embed_pictures(find_pictures(folder), backbone, tmp_path / "out")
    table = load(tmp_path / "out" / "test.npz", None, "float32")
    np.testing.assert_array_equal(table.embeddings[:, 1], [0, 1, 2, 0, 1, 2])


def test_ten_crops_are_four_corners_and_the_middle_mirrored_too():
    picture = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), np.uint8)
    seen = []

    def embed(crops):
        seen.append(crops)
        return crops.reshape(2, -1).astype(float)

    got = embed_views(embed, picture, 4, "multiview")
    corners = [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)]
    crops = [picture[:, y : y + 4, x : x + 4] for y, x in corners]
    crops = [c for crop in crops for c in (crop, crop[:, :, ::-1])]
    for mine, crop in zip(seen, crops, strict=True):
        np.testing.assert_array_equal(mine, crop)
    np.testing.assert_allclose(got, np.mean(crops, axis=0).reshape(2, -1))
    assert decoded_side(80, "center") == 92 and decoded_side(80, "whole") == 80


def test_views_without_a_side_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "backbone_named", lambda *_: _backbone(side=None))
    with pytest.raises(FlagError, match="--views: expected --image_size too"):
        job.embed(folder, tmp_path / "out", backbone="a:b", views="multiview")
    with pytest.raises(FlagError, match="--fold: expected --class_folds with it"):
        job.embed(folder, tmp_path / "out", data=DataConfig(fold=2))


def test_pictures_in_memory_need_a_side_for_a_callable(tmp_path, folder):
    pictures = find_pictures(folder)
    held = pictures._replace(images=np.zeros((len(pictures.items), 9, 12, 3), np.uint8))
    with pytest.raises(FlagError, match="--image_size: expected the side of pictures"):
        embed_pictures(held, _backbone(side=None), tmp_path / "out")
