"""Files that an export writes, and files that it must not change."""

import hashlib
import json
import os
import pathlib
import shutil

import pytest
import tensorflow as tf
from exported_models import D, best_learner, export
from saved_runs import listing, values_of

import leo_tf
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.errors import CheckpointError, DiskError, FlagError
from leo_tf.export import version_directory
from leo_tf.export.version_directory import version_path, whole_directory
from leo_tf.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def out(trained_export) -> pathlib.Path:
    """Returns a directory with version 1. Tests must not change it."""
    return trained_export


@pytest.fixture(scope="module")
def plain(train, quick_jobs, tmp_path_factory) -> pathlib.Path:
    """Returns a run of nearest centroid. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    assert train(workdir, "--method=centroid", "--quiet") == 0
    return workdir


@pytest.fixture
def plain_copy(plain, tmp_path) -> pathlib.Path:
    """Returns a copy of `plain` that tests may damage."""
    return pathlib.Path(shutil.copytree(plain, tmp_path / "copy"))


def facts_of(version: pathlib.Path) -> dict:
    return json.loads((version / "export.json").read_text("utf-8"))


def test_an_export_needs_no_data_and_no_trainer_and_leaves_the_run_as_it_is(
    plain, tmp_path, monkeypatch, capsys
):
    def refuse(*unused, **also_unused):
        pytest.fail("data was loaded")

    monkeypatch.setattr(datasets, "load", refuse)
    before = listing(plain)
    assert export(plain, tmp_path / "out") == 0
    assert listing(plain) == before
    assert str(tmp_path / "out" / "1") in capsys.readouterr().out


def test_the_manifest_says_what_the_model_is_takes_and_scored(out, trained):
    metadata = facts_of(out / "1")
    results = json.loads((trained / "results.json").read_text())
    config = json.loads((trained / "config.json").read_text())
    fitted = json.loads((trained / "confidence.json").read_text())
    expected = {
        "format": 1,
        "export_format": "saved_model",
        "method": "leo",
        "embedding_size": D,
        "embedding": None,
        "parameters_per_class": 2 * D if fitted["score"] == "cosine" else D,
        "way": None,
        "max_classes": 100,
        "max_support": 1000,
        "step": results["step"],
        "config": config,
    }
    assert expected.items() <= metadata.items()
    assert metadata["test_accuracy"]["mean"] == results["accuracy"]["leo"]["mean"]
    for name in ("half_width_95", "ece", "ece_scaled"):
        assert metadata["test_accuracy"][name] == results["accuracy"]["leo"][name]
    assert metadata["test_accuracy"]["test"]["way"] == 3
    assert metadata["test_accuracy"]["test_samples"] == 0
    assert metadata["trained_on"]["dataset_name"] == "tiny"
    assert metadata["trained_on"]["digests"] == results["data"]
    assert metadata["trained_on"]["classes"] == {"train": 8, "val": 6, "test": 7}
    assert metadata["versions"]["tensorflow"] == tf.__version__
    assert metadata["versions"]["leo-tf"] == leo_tf.__version__
    assert metadata["created"].endswith("+00:00")
    support = metadata["signatures"]["classify"]["inputs"]["support"]
    assert support == f"float32 [S, {D}]"


def test_the_manifest_has_the_digest_of_every_other_file(out):
    files = facts_of(out / "1")["files"]
    found = [f for f in (out / "1").rglob("*") if f.is_file()]
    names = {f.relative_to(out / "1").as_posix() for f in found}
    names -= {"export.json", "README.md"}  # README.md may be edited
    assert set(files) == names and "saved_model.pb" in names
    for name, digest in files.items():
        content = (out / "1" / name).read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()


def test_the_best_checkpoint_is_exported_not_the_newest(trained_copy, tmp_path):
    Checkpoints(trained_copy).mark_best(5)
    assert export(trained_copy, tmp_path) == 0
    assert facts_of(tmp_path / "1")["step"] == 5
    reader = tf.train.load_checkpoint(str(tmp_path / "1" / "variables" / "variables"))
    held = [
        reader.get_tensor(key).tobytes()
        for key in reader.get_variable_to_shape_map()
        if "VARIABLE_VALUE" in key
    ]
    saved = values_of(trained_copy, 5)
    variables = best_learner(trained_copy).trainable_variables
    assert sorted(held) == sorted(saved[v.path].tobytes() for v in variables)


def test_the_export_holds_no_path_of_this_machine(out):
    graph = (out / "1" / "saved_model.pb").read_bytes()
    for path in (pathlib.Path(leo_tf.__file__).parent, pathlib.Path(tf.__file__)):
        assert str(path).encode() not in graph


def test_of_the_embedded_data_the_manifest_says_how_features_are_made(
    plain_copy, tmp_path
):
    config = json.loads((plain_copy / "config.json").read_text())
    config["data"].update(dataset_name="glyphs", data_path="")
    (plain_copy / "config.json").write_text(json.dumps(config))
    assert export(plain_copy, tmp_path) == 0
    metadata = facts_of(tmp_path / "1")
    assert "leo_tf.data_pipeline.glyphs.hog" in metadata["embedding"]
    assert metadata["trained_on"]["source"] == "embedded"


@pytest.mark.parametrize("change", ["step", "data", "model", "missing"])
def test_results_of_another_checkpoint_are_not_told(change, plain_copy, tmp_path):
    path = plain_copy / "results.json"
    results = json.loads(path.read_text())
    if change == "step":
        results["step"] += 1
    elif change == "data":
        results["data"]["test"] = "another"
    elif change == "model":
        results["config"]["model"]["inner_unroll_length"] += 1
    path.write_text(json.dumps(results))
    if change == "missing":
        path.unlink()
    assert export(plain_copy, tmp_path) == 0
    assert facts_of(tmp_path / "1")["test_accuracy"] is None


def test_draws_that_the_test_averaged_over_are_told(trained_copy, tmp_path):
    path = trained_copy / "results.json"
    results = json.loads(path.read_text())
    results["config"]["run"]["test_samples"] = 30
    path.write_text(json.dumps(results))
    assert export(trained_copy, tmp_path) == 0
    assert facts_of(tmp_path / "1")["test_accuracy"]["test_samples"] == 30
    assert "over 30 draws" in (tmp_path / "1" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_results_are_refused_by_their_path(
    content, plain_copy, tmp_path, capsys
):
    (plain_copy / "results.json").write_text(content)
    assert export(plain_copy, tmp_path / "out") == 3
    assert str(plain_copy / "results.json") in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_versions_count_up_and_none_is_written_over(plain, tmp_path, capsys):
    out = tmp_path / "out"
    assert export(plain, out, "--export_version=7") == 0
    assert export(plain, out) == 0
    (out / "10x").mkdir()
    (out / "6").mkdir()  # empty, but taken
    before = listing(out)
    for taken in (6, 7):
        assert export(plain, out, f"--export_version={taken}") == 2
        assert "--export_version: expected" in capsys.readouterr().err
    assert listing(out) == before
    assert {p.name for p in out.iterdir()} == {"6", "7", "8", "10x"}


def test_formats_are_not_mixed_for_a_server_takes_the_newest(
    trained, out, tmp_path, capsys
):
    assert export(trained, out, "--export_format=tflite") == 2
    assert "--export_dir: expected a directory of one" in capsys.readouterr().err
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "model.tflite").touch()
    assert export(trained, tmp_path) == 2
    assert {p.name for p in out.iterdir()} == {"1"}
    assert {p.name for p in tmp_path.iterdir()} == {"3"}


def test_a_version_that_another_process_made_meanwhile_is_not_written_over(tmp_path):
    path = version_path(tmp_path)
    refused = pytest.raises(FlagError, match="Run the command again")
    with refused, whole_directory(path) as unfinished:
        (unfinished / "mine").write_text("mine")
        path.mkdir()
        (path / "theirs").write_text("theirs")
    assert {p.name for p in tmp_path.iterdir()} == {"1"}
    assert (path / "theirs").read_text() == "theirs" and not (path / "mine").exists()


@pytest.mark.parametrize("failing", ["flush_to_disk", "saving"])
def test_an_export_that_fails_leaves_nothing(failing, plain, tmp_path, monkeypatch):
    def fail(*unused, **also_unused):
        if failing == "saving":
            raise tf.errors.ResourceExhaustedError(None, None, "no space left")
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    if failing == "saving":
        monkeypatch.setattr(tf.saved_model, "save", fail)
    else:
        monkeypatch.setattr(version_directory, "flush_to_disk", fail)
    assert export(plain, out) == DiskError.exit_code
    assert list(out.iterdir()) == []


def test_what_a_killed_export_left_is_not_in_the_next(tmp_path):
    for number in (os.getpid(), 1):
        left = tmp_path / f".unfinished-1-{number}"
        left.mkdir()
        (left / "model.tflite").write_text("old")
    os.utime(left, (0, 0))  # the other may be of an export that runs
    with whole_directory(tmp_path / "1") as path:
        (path / "saved_model.pb").write_text("new")
    assert [each.name for each in (tmp_path / "1").iterdir()] == ["saved_model.pb"]
    names = {"1", f".unfinished-1-{os.getpid()}"}
    assert {each.name for each in tmp_path.iterdir()} == names


def test_every_file_is_flushed_before_the_version_has_its_name(tmp_path, monkeypatch):
    flushed = []

    def flush(path):
        flushed.append((path.name, (tmp_path / "1").exists()))

    monkeypatch.setattr(version_directory, "flush_to_disk", flush)
    with whole_directory(tmp_path / "1") as unfinished:
        (unfinished / "below").mkdir()
        (unfinished / "below" / "deep").touch()
        (unfinished / "top").touch()
        name = unfinished.name
    before = {name for name, is_there in flushed if not is_there}
    assert before == {"below", "deep", "top", name}
    assert flushed[-1] == (tmp_path.name, True)


def test_a_file_in_the_place_of_the_directory_is_refused(plain, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert export(plain, tmp_path / "file") == FlagError.exit_code
    assert "--export_dir: expected a directory, or none yet" in capsys.readouterr().err


def test_a_run_that_was_never_validated_is_refused(plain_copy, tmp_path, capsys):
    shutil.rmtree(plain_copy / "best")
    assert export(plain_copy, tmp_path / "out") == 4
    assert "Train first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["embedding_size", "data"])
def test_a_checkpoint_that_does_not_tell_what_is_needed_is_refused(
    name, plain_copy, tmp_path, capsys
):
    for path in plain_copy.glob("checkpoints/*/manifest.json"):
        metadata = json.loads(path.read_text())
        del metadata[name]
        path.write_text(json.dumps(metadata))
    assert export(plain_copy, tmp_path / "out") == CheckpointError.exit_code
    assert f"`{name}`" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_job")
def test_caps_below_the_only_way_of_a_method_are_refused(train, tmp_path, capsys):
    assert train(tmp_path / "run", "--method=maml", "--num_steps=2", "--quiet") == 0
    for cap in ("max_classes", "max_support"):
        assert export(tmp_path / "run", tmp_path / "out", f"--{cap}=2") == 2
        error = capsys.readouterr().err
        assert f"--{cap}: expected 3 or more" in error and "received 2" in error
    caps = "--max_classes=3", "--max_support=3"
    assert export(tmp_path / "run", tmp_path / "out", *caps) == 0
