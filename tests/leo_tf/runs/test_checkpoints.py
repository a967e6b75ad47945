"""Checkpoints: whole or absent, found and restored bit for bit."""

import errno
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from saved_runs import listing

from leo_tf.errors import CheckpointError, DiskError
from leo_tf.runs import manifest as checkpoint_manifest
from leo_tf.runs import run as run_module
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.run import load_run
from leo_tf.runs.variables import restore_variables

FACTS = {"config": {"seed": 7}}


def make_variables(seed=0) -> dict[str, tf.Variable]:
    random = np.random.default_rng(seed)
    return {
        "leo/encoder/kernel": tf.Variable(random.normal(size=[2, 3]), dtype="float32"),
        "leo/inner.lr": tf.Variable(random.normal(size=[1, 3]), dtype="float64"),
        "adam/iteration": tf.Variable(seed, dtype="int64"),
    }


def contents(variables) -> dict[str, bytes]:
    return {name: variable.numpy().tobytes() for name, variable in variables.items()}


def unexpected(message):
    pytest.fail(f"nothing should be skipped, yet: {message}")


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    """Checkpoints with steps 10 and 20, of seeds 10 and 20."""
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, make_variables(step), FACTS)
    return checkpoints


def test_a_checkpoint_gives_every_value_back_bit_for_bit(tmp_path):
    awkward = np.array([np.nan, -0.0, np.inf, 1e-45, np.float32(1) / 3], np.float32)
    saved = {**make_variables(1), "awkward": tf.Variable(awkward)}
    Checkpoints(tmp_path).save(3, saved, FACTS)
    fresh = {**make_variables(2), "awkward": tf.Variable(np.zeros(5, np.float32))}
    newest = Checkpoints(tmp_path).newest(unexpected)
    restore_variables(newest.path, fresh)
    assert contents(fresh) == contents(saved)
    assert newest.step == 3 and newest.manifest["config"] == {"seed": 7}


def test_the_manifest_holds_size_and_sha256_of_every_other_file(checkpoints):
    path = checkpoints.newest(unexpected).path
    manifest = json.loads((path / "manifest.json").read_text())
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    del files["manifest.json"]
    assert len(files) >= 2
    assert manifest["files"] == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }


def test_fewer_variables_than_saved_may_be_restored(checkpoints):
    wanted = {"leo/inner.lr": make_variables()["leo/inner.lr"]}
    restore_variables(checkpoints.load(20).path, wanted)
    expected = {"leo/inner.lr": make_variables(20)["leo/inner.lr"]}
    assert contents(wanted) == contents(expected)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _data(path):
    return next(path.glob("*.data-*"))


DAMAGES = {
    "a flipped bit": lambda path: _flip_a_bit(_data(path)),
    "truncated data": lambda path: os.truncate(_data(path), 5),
    "data gone": lambda path: _data(path).unlink(),
    "index gone": lambda path: next(path.glob("*.index")).unlink(),
    "a flipped bit of the index": lambda path: _flip_a_bit(next(path.glob("*.index"))),
    "manifest gone": lambda path: (path / "manifest.json").unlink(),
    "truncated manifest": lambda path: os.truncate(path / "manifest.json", 40),
    "empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "manifest of zeros": lambda path: (path / "manifest.json").write_bytes(bytes(99)),
    "manifest a list": lambda path: (path / "manifest.json").write_text("[]"),
    "manifest without files": lambda path: (path / "manifest.json").write_text(
        '{"step": 20, "files": {}}'
    ),
    "another step's": lambda path: shutil.copytree(
        path.with_name("step-00000010"), path, dirs_exist_ok=True
    ),
    "all files gone": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_passed_over_with_the_reason(checkpoints, damage):
    path = checkpoints.directory / "step-00000020"
    damage(path)
    told = []
    newest = checkpoints.newest(told.append)
    assert newest.step == 10
    assert len(told) == 1 and str(path) in told[0] and "\n" not in told[0]
    restored = make_variables()
    restore_variables(newest.path, restored)
    assert contents(restored) == contents(make_variables(10))
    assert path.is_dir(), "without set_aside nothing is renamed"


def test_a_damaged_one_is_set_aside_only_if_asked_so_that_its_step_can_be_saved(
    checkpoints,
):
    path = checkpoints.directory / "step-00000020"
    for round_of_damage in (b"first", b"second"):
        _data(path).write_bytes(round_of_damage)
        assert checkpoints.newest(lambda reason: None, set_aside=True).step == 10
        assert not path.exists()
        checkpoints.save(20, make_variables(20), FACTS)
        assert checkpoints.newest(unexpected).step == 20
    aside = [_data(p).read_bytes() for p in checkpoints.directory.glob("unusable-*")]
    assert sorted(aside) == [b"first", b"second"], "neither replaces the other"


@pytest.mark.parametrize("set_aside", [False, True])
def test_if_all_are_damaged_it_is_an_error_each_time_and_never_a_fresh_start(
    checkpoints, set_aside
):
    for path in checkpoints.directory.iterdir():
        _flip_a_bit(_data(path))
    for _ in range(3):
        with pytest.raises(CheckpointError, match="only damaged ones") as caught:
            checkpoints.newest(lambda reason: None, set_aside=set_aside)
        assert caught.value.where == str(checkpoints.directory)


def test_where_none_was_ever_written_there_is_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.newest(unexpected) is None
    (checkpoints.directory / "unfinished-step-00000010").mkdir(parents=True)
    assert checkpoints.newest(unexpected, set_aside=True) is None


@pytest.mark.parametrize("trace", ["best/checkpoint.json", "results.json"])
@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_run_whose_checkpoints_are_gone_is_an_error_and_never_a_fresh_start(
    tmp_path, trace, is_emptied
):
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).write_text("{}")
    if is_emptied:
        (checkpoints.directory / "unfinished-step-00000010").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="use another --workdir") as caught:
        checkpoints.newest(unexpected, set_aside=True)
    assert caught.value.received == f"none, though there is {tmp_path / trace}"


def test_what_a_killed_process_left_unfinished_is_ignored_and_written_again(
    checkpoints,
):
    half = checkpoints.directory / "unfinished-step-00000030"
    half.mkdir()
    (half / "variables.index").write_bytes(b"half")
    assert checkpoints.newest(unexpected).step == 20
    checkpoints.save(30, make_variables(30), FACTS)
    newest = checkpoints.newest(unexpected)
    assert newest.step == 30 and not half.exists()
    assert set(newest.manifest["files"]) == {
        file.name for file in newest.path.iterdir()
    } - {"manifest.json"}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adam/iteration", tf.Variable([1, 2], dtype="int64")),
        ("leo/encoder/kernel", tf.Variable(np.zeros([3, 2], np.float32))),
        ("leo/encoder/kernel", tf.Variable(np.zeros([2, 3], np.float64))),
        ("unheard/of", tf.Variable(1.0)),
    ],
)
def test_a_variable_that_does_not_fit_is_named_and_none_is_changed(
    checkpoints, name, wrong
):
    mine = {**make_variables(), name: wrong}
    before = contents(mine)
    with pytest.raises(CheckpointError, match=f"`{name}`: expected"):
        restore_variables(checkpoints.load(20).path, mine)
    assert contents(mine) == before


def _unreadable(monkeypatch, path, error=errno.EIO):
    """Makes the disk fail to read a file."""
    opened = pathlib.Path.open

    def fails(self, *arguments, **options):
        if self == path:
            raise OSError(error, os.strerror(error))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", fails)


def test_a_disk_that_fails_to_read_is_told_from_a_checkpoint_that_is_lost(
    checkpoints, monkeypatch
):
    path = checkpoints.directory / "step-00000020"
    with monkeypatch.context() as patched:
        _unreadable(patched, _data(path))
        for set_aside in (False, True):
            with pytest.raises(CheckpointError, match="Try again") as caught:
                checkpoints.newest(unexpected, set_aside=set_aside)
            assert caught.value.where == str(_data(path))
        with pytest.raises(CheckpointError, match="Input/output error"):
            checkpoints.is_whole(20)
        assert checkpoints.is_whole(10)
    assert checkpoints.newest(unexpected).step == 20 and checkpoints.is_whole(20)
    shutil.rmtree(path)
    assert not checkpoints.is_whole(20)


@pytest.mark.parametrize(
    "name", ["../step-00000010/manifest.json", "/dev/zero", "..", ".", "", "a\n"]
)
def test_a_manifest_names_files_of_its_own_directory_only(checkpoints, name):
    path = checkpoints.directory / "step-00000020" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="files of this directory") as caught:
        checkpoints.load(20)
    assert caught.value.where == f"{path}: `files`"


def test_a_manifest_is_strict_json_and_what_was_not_finite_is_null(checkpoints):
    metadata = {"accuracy": np.inf, "of": [np.nan, 1.5]}
    checkpoints.save(30, make_variables(), metadata)
    checkpoints.annotate(checkpoints.load(20), metadata)
    for step in (20, 30):
        path = checkpoints.directory / f"step-000000{step}" / "manifest.json"
        read = json.loads(path.read_text(), parse_constant=pytest.fail)
        assert read["accuracy"] is None and read["of"] == [None, 1.5]
        assert checkpoints.load(step).manifest == read


def test_a_manifest_that_could_not_be_read_again_is_not_written(
    checkpoints, monkeypatch
):
    monkeypatch.setattr(checkpoint_manifest, "MOST_BYTES", 2000)
    before = listing(checkpoints.directory)
    metadata = {"history": [1] * 1000}
    with pytest.raises(DiskError, match="raise --validate_every"):
        checkpoints.save(30, make_variables(), metadata)
    with pytest.raises(DiskError, match="raise --validate_every"):
        checkpoints.annotate(checkpoints.load(20), metadata)
    assert listing(checkpoints.directory) == before


def test_a_fact_that_is_missing_or_of_another_type_is_named(checkpoints):
    checkpoint = checkpoints.load(20)
    assert checkpoint.entry("config", dict) == {"seed": 7}
    for name, kind in (("unheard", dict), ("config", bool)):
        with pytest.raises(CheckpointError, match=f"`{name}`: expected a "):
            checkpoint.entry(name, kind)


def test_saving_a_step_that_is_there_leaves_it_as_it_is(checkpoints):
    before = listing(checkpoints.directory)
    checkpoints.save(20, make_variables(99), {"config": "other"})
    assert listing(checkpoints.directory) == before


def test_pruning_keeps_the_newest_the_best_and_whatever_is_not_ours(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4, 100_000_000):
        checkpoints.save(step, make_variables(step), FACTS)
    others = ["step-00000001-copy", "my-step-00000001", "unusable-step-00000001-0"]
    for name in others:
        (checkpoints.directory / name).mkdir()
    (checkpoints.directory / "notes.txt").write_text("mine")
    checkpoints.mark_best(2)
    checkpoints.prune()
    kept = {"step-00000002", "step-00000004", "step-100000000", "notes.txt", *others}
    assert {path.name for path in checkpoints.directory.iterdir()} == kept
    assert checkpoints.best().step == 2


@pytest.mark.parametrize(
    ("damaged", "kept"),
    [
        ([], [4, 5]),
        ([5], [3, 4, 5]),
        ([4, 5], [2, 3, 4, 5]),
        ([3], [4, 5]),
        ([2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_pruning_never_removes_the_two_newest_that_are_whole(tmp_path, damaged, kept):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4, 5):
        checkpoints.save(step, make_variables(step), FACTS)
    checkpoints.mark_best(5)
    for step in damaged:
        _flip_a_bit(_data(checkpoints.directory / f"step-{step:08d}"))
    checkpoints.prune()
    names = sorted(path.name for path in checkpoints.directory.iterdir())
    assert names == [f"step-{step:08d}" for step in kept]


def test_pruning_removes_nothing_while_the_disk_fails_to_read(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, make_variables(step), FACTS)
    with monkeypatch.context() as patched:
        _unreadable(patched, _data(checkpoints.directory / "step-00000003"))
        checkpoints.prune()
    assert len(list(checkpoints.directory.iterdir())) == 3


def test_pruning_removes_nothing_while_it_cannot_tell_which_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, make_variables(step), FACTS)
    checkpoints.mark_best(1)
    checkpoints.best_pointer.write_text("{")
    checkpoints.prune()
    assert len(list(checkpoints.directory.iterdir())) == 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"{}", b'{"step": "20"}', b"\xff"]
)
def test_a_damaged_best_pointer_is_named(checkpoints, content):
    checkpoints.mark_best(20)
    checkpoints.best_pointer.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.best()
    assert caught.value.where == str(checkpoints.best_pointer)


def test_without_a_best_the_error_says_to_train_first(checkpoints):
    with pytest.raises(CheckpointError, match="Train first") as caught:
        checkpoints.best()
    assert caught.value.where == str(checkpoints.best_pointer)


def test_a_damaged_best_is_an_error_and_not_quietly_another_one(checkpoints):
    checkpoints.mark_best(10)
    assert checkpoints.best().step == 10
    _flip_a_bit(_data(checkpoints.directory / "step-00000010"))
    with pytest.raises(CheckpointError, match="step-00000010"):
        checkpoints.best()


def test_a_best_that_a_training_removes_meanwhile_is_followed_by_the_next(
    checkpoints, monkeypatch
):
    checkpoints.mark_best(10)
    load = checkpoints.load

    def late(step):
        if step == 10:
            checkpoints.mark_best(20)
            shutil.rmtree(checkpoints.directory / "step-00000010", ignore_errors=True)
        return load(step)

    monkeypatch.setattr(checkpoints, "load", late)
    assert checkpoints.best().step == 20
    assert not checkpoints.was_replaced(20)


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_run_whose_best_is_removed_while_it_is_read_has_the_next(
    trained_copy, monkeypatch, is_replaced
):
    run, restore = load_run(trained_copy), run_module.restore_variables
    steps = sorted(int(p.name[5:]) for p in run.checkpoints.directory.glob("step-*"))
    run.checkpoints.mark_best(steps[0])

    def late(path, variables):
        if path.name.endswith(f"{steps[0]}"):
            shutil.rmtree(path, ignore_errors=True)
            if is_replaced:
                run.checkpoints.mark_best(steps[-1])
        restore(path, variables)

    monkeypatch.setattr(run_module, "restore_variables", late)
    if is_replaced:
        assert run.restore_best().step == steps[-1] > steps[0]
    else:
        with pytest.raises(CheckpointError):
            run.restore_best()


@pytest.mark.parametrize("name", ["step-0000000020", "step-٠٠٠٠٠٠٢٠", "step-20"])
def test_a_name_that_is_not_quite_ours_is_left_alone(checkpoints, name):
    path = checkpoints.directory / "step-00000020"
    path.rename(path.with_name(name))
    assert checkpoints.newest(unexpected, set_aside=True).step == 10
    assert path.with_name(name).is_dir()


def test_a_file_where_a_checkpoint_is_written_is_in_nobodys_way(checkpoints):
    (checkpoints.directory / "unfinished-step-00000030").write_text("a file")
    checkpoints.save(30, {"w": tf.Variable([1.0])}, {})
    assert checkpoints.newest(unexpected).step == 30


@pytest.mark.parametrize("trace", ["results.json", "learning_curve.png"])
def test_what_is_written_after_training_says_that_there_were_checkpoints(
    tmp_path, trace
):
    (tmp_path / trace).write_text("")
    with pytest.raises(CheckpointError, match=trace):
        Checkpoints(tmp_path).newest(unexpected)
