"""A job of several runs: its data, its name, and the test scores of its workers."""

import contextlib
import functools
import json
import types

import numpy as np
import pytest

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.data_pipeline import feature_files
from leo_tf.data_pipeline.sources import load_data
from leo_tf.errors import InputError
from leo_tf.evaluation.evaluate import EpisodeScores, save
from leo_tf.experiments import run_group, train
from leo_tf.experiments.compare import compare
from leo_tf.experiments.evaluate import evaluate
from leo_tf.experiments.folds import compare_folds
from leo_tf.experiments.run_group import RunGroup
from leo_tf.experiments.runner import features, worker
from leo_tf.runs.run import load_run
from leo_tf.runs.settings import default_workdir, named
from leo_tf.training.replicas import start

_SCORES = EpisodeScores(np.array([0.25, 0.5]), 1.5)


@pytest.fixture
def group(tmp_path, monkeypatch):
    # NFS remembers for a while that a file was missing.
    monkeypatch.setattr(run_group.pathlib.Path, "exists", lambda path: False)
    config, console = Config(), Console(quiet=True)
    replicas, engine = start(config, console.say), run_group.Engine(2)
    found = RunGroup(tmp_path, config, {}, replicas, engine, console=console)
    for name in ("leo", "maml"):
        found._scores[name] = tmp_path / f"{name}.npz"
    return found


def test_scores_that_another_machine_has_written_are_found_whenever_they_come(
    group, monkeypatch, capsys
):
    def sleep(seconds):
        group._scores["maml"].write_bytes(save(_SCORES))

    group._scores["leo"].write_bytes(save(_SCORES))
    monkeypatch.setattr(run_group.time, "sleep", sleep)
    found = group.tested(["leo", "maml", "trained in this process"])
    assert found.keys() == {"leo", "maml"} and capsys.readouterr().err == ""
    assert found["maml"].accuracy.tolist() == [0.25, 0.5]


def test_scores_that_do_not_come_are_told_of(group, monkeypatch, capsys):
    monkeypatch.setattr(run_group, "_LATE_SECONDS", 0.0)
    assert group.tested(["maml"]) == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("maml: its worker's test scores are missing, so it is")
    assert str(group._scores["maml"]) in line
    assert group.tested([]) == {}, "no worker was to test it"


_TINY = {"way": 2, "num_query": 2, "num_val_episodes": 2, "num_test_episodes": 4}


def arrays(seed, classes=3):
    random = np.random.default_rng(seed)

    def split(name):
        labels = np.repeat([f"{name}{i}" for i in range(classes)], 5)
        return random.normal(size=(5 * classes, 6)), labels

    return load_data({name: split(name) for name in ("train", "val", "test")})


def test_the_arrays_of_a_job_are_kept_when_it_refuses_others(tmp_path):
    config, first, other = Config().replace(**_TINY), arrays(0), arrays(1)
    found = compare(config, ["centroid"], tmp_path, data=first)
    for methods in (["centroid"], ["ridge"]):
        with pytest.raises(InputError, match="the arrays that this job began with"):
            compare(config, methods, tmp_path, data=other)
    kept = load_data(tmp_path / "data")
    assert all(kept[name].digest == first[name].digest for name in first)
    again = compare(config, ["centroid"], tmp_path, data=first)
    assert again.rows[0].accuracy == found.rows[0].accuracy


def test_a_transform_that_the_data_forbids_is_refused_only_if_it_was_asked_for(
    tmp_path, capsys
):
    config, data = Config().replace(**_TINY), arrays(0, classes=2)
    methods = ["centroid", "centroid@soft"]
    with pytest.raises(InputError, match="expected 3 or more"):
        compare(config, methods, tmp_path / "asked", data=data)
    options = {"data": data, "keep": True, "console": Console()}
    found = compare(config, methods, tmp_path / "chosen", **options)
    assert [row.name for row in found.rows] == ["centroid"]
    assert "is left out" in capsys.readouterr().err


def test_data_of_a_path_has_its_name_from_python_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, labels = np.random.default_rng(0).normal(size=(45, 6)), np.repeat(range(9), 5)
    np.savez("mine.npz", embeddings=rows, labels=labels)
    config = Config().replace(data_path="mine.npz", class_folds=3, **_TINY)
    assert named(config).data.dataset_name == "mine"
    found = compare_folds(config, ["centroid"])
    assert found.directory.name == "mine_2way_1shot_folds"
    assert {fold.dataset for fold in found.folds} == {"mine"}
    assert default_workdir(named(Config())) == "runs/glyphs_5way_1shot"


def test_data_that_is_called_like_the_embedded_one_keeps_its_name(tmp_path):
    rows, labels = np.random.default_rng(0).normal(size=(45, 6)), np.repeat(range(9), 5)
    np.savez(tmp_path / "glyphs.npz", embeddings=rows, labels=labels)
    splits = {"class_split": "0.34,0.33,0.33", **_TINY}
    config = Config().replace(data_path=str(tmp_path), **splits)
    assert named(config) == config
    compare(config, ["centroid"], tmp_path / "job")
    run = tmp_path / "job" / "centroid"
    assert load_run(run).config.data.dataset_name == "glyphs"
    assert evaluate(run).accuracy
    (tmp_path / "below" / "glyphs").mkdir(parents=True)
    (tmp_path / "made").mkdir()
    of_pictures = json.dumps(dict.fromkeys(feature_files._MADE_BY))
    (tmp_path / "made" / "embedding.json").write_text(of_pictures)
    for place in ("below", "made"):  # --images=glyphs made the second
        kept = config.replace(data_path=str(tmp_path / place))
        assert named(kept) == kept


def test_a_job_that_was_refused_before_any_run_began_may_have_other_arrays(tmp_path):
    config, methods = Config().replace(**_TINY), ["centroid@soft"]
    with pytest.raises(InputError, match="expected 3 or more"):
        compare(config, methods, tmp_path, data=arrays(0, classes=2))
    found = compare(config, methods, tmp_path, data=arrays(1, classes=3))
    assert [row.name for row in found.rows] == methods


def test_every_worker_of_a_run_has_the_same_name_for_the_data(tmp_path, monkeypatch):
    workers = types.SimpleNamespace(
        watched=contextlib.nullcontext, is_chief=False, from_chief=lambda value: value
    )
    seen = []
    monkeypatch.setattr(train, "worker_loop", lambda config, *_: seen.append(config))
    replicas, data = types.SimpleNamespace(workers=workers), arrays(0)
    train.train(Config().replace(data_path="mine.npz"), tmp_path, replicas=replicas)
    train.train(Config(), tmp_path, replicas=replicas, data=data)
    assert [each.data.dataset_name for each in seen] == ["mine", "arrays"]


def test_a_worker_reads_data_that_changed_in_the_same_place_again(monkeypatch):
    read = []
    monkeypatch.setattr(features, "read", lambda *place: read.append(place) or read[:])
    fresh = functools.lru_cache(worker._splits.__wrapped__)
    monkeypatch.setattr(worker, "_splits", fresh)
    first, again = worker._splits("a", "alone", "1"), worker._splits("a", "alone", "1")
    assert first is again and len(read) == 1
    assert worker._splits("a", "alone", "2") is not first and len(read) == 2
