"""Whole jobs on a tiny data set: train, stop, resume, test."""

import os
import pathlib
import re
import shlex
import shutil
import signal

import numpy as np
import pytest
import saved_runs
import tensorflow as tf
from saved_runs import listing, manifest_of, results_of, values_of

import leo_tf
from leo_tf import console, environment
from leo_tf.cli.flags import parse
from leo_tf.console import Console, ProgressLine
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.errors import CheckpointError, InputError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.results import BASELINE
from leo_tf.evaluation.validation_tuning import LAPLACIAN_WEIGHTS, STRENGTHS
from leo_tf.experiments import train as train_job
from leo_tf.runs import settings as run_settings
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.settings import default_workdir
from leo_tf.training import trainer


def outcome(workdir, step=12) -> dict:
    """Returns all results of a run, including the test."""
    results = results_of(workdir)
    tested = {key: results[key] for key in ("accuracy", "leo_minus_centroid")}
    return {**saved_runs.outcome(workdir, step), **tested}


@pytest.fixture
def stop_at(monkeypatch):
    """Sends a signal to the process after some training steps."""

    def stop_at(step: int, number: int):
        class Line(ProgressLine):
            def advance(self, units, details=""):
                super().advance(units, details)
                if self.title == "train" and self.done == step:
                    os.kill(os.getpid(), number)

        monkeypatch.setattr(trainer, "_SECONDS_PER_CALL", 0.0)
        monkeypatch.setattr(console, "ProgressLine", Line)

    return stop_at


@pytest.fixture
def lines(monkeypatch):
    """Returns the progress lines shown since the test began."""
    shown = []

    class Line(ProgressLine):
        def __exit__(self, *error):
            super().__exit__(*error)
            shown.append(self)

    monkeypatch.setattr(console, "ProgressLine", Line)
    return shown


@pytest.mark.long
def test_whatever_answers_episodes_says_how_many_are_left(
    train, evaluate, lines, tmp_path
):
    """With slow methods, such as distribution calibration, these take minutes."""
    few = "--num_val_episodes=6", "--num_test_episodes=4"
    unbalanced = "--query_dirichlet=0.5", "--num_query=2", "--test_num_query=2"
    flags = "--method=laplacian_shot", *unbalanced, *few
    assert train(tmp_path / "shot", *flags) == 0
    flags = "--ensemble=ridge", "--num_steps=2", "--validate_every=2", *few
    assert train(tmp_path / "leo", *flags) == 0
    assert evaluate(tmp_path / "leo", "--open_set") == 0
    assert all(line.done == line.total for line in lines)
    weights, strengths = 6 * len(LAPLACIAN_WEIGHTS), 6 * len(STRENGTHS)
    assert [(line.title, line.total) for line in lines] == [
        ("choose laplacian_weight", weights),
        ("choose score_scale", 6),
        ("validation", 6),
        ("confidence", 2 * 6),
        ("test", 4),
        ("train", 2),
        ("choose ridge_strength", strengths),
        ("choose score_scale", 6),
        ("ensemble", 6),
        ("ensemble", 6),
        ("confidence", 6),
        ("test", 4),
        ("test", 4),
        ("leo, other classes", 4),
    ]


def test_a_finished_run_leaves_what_it_promises_and_nothing_half_written(trained):
    assert {path.name for path in trained.iterdir()} == {
        ".lock",
        "config.json",
        "confidence.json",
        "checkpoints",
        "best",
        "events",
        "results.json",
        "learning_curve.png",
        "history.csv",
    }
    names = sorted(path.name for path in (trained / "checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000010", "step-00000012"]
    assert [path.name for path in (trained / "best").iterdir()] == ["checkpoint.json"]


def test_the_steps_of_a_run_move_every_variable(trained):
    first, last = values_of(trained, 5), values_of(trained, 12)
    moved = {name for name in first if (first[name] != last[name]).any()}
    still = {name for name in first if name not in moved}
    assert still == {"adam/learning_rate"}
    assert len(moved) == 7 + 2 * 7 + 1  # variables, their moments, iterations


@pytest.mark.slow
def test_5_steps_and_then_7_more_end_bit_for_bit_like_12_at_once(
    trained, train, tmp_path, capsys
):
    workdir = tmp_path / "run"
    assert train(workdir, "--num_steps=5") == 0
    assert train(workdir) == 0
    assert f"Resuming from step 5 in {workdir}." in capsys.readouterr().err
    assert outcome(workdir) == outcome(trained)


@pytest.fixture(scope="module")
def whole(train, quickly, tmp_path_factory):
    """A run like `trained`, made like `quick_jobs`. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with quickly():
        assert train(workdir, "--quiet") == 0
    return workdir


@pytest.fixture
def whole_copy(whole, tmp_path):
    """A copy of it that tests may damage."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.usefixtures("quick_job")
def test_a_stopped_run_saves_and_the_same_command_ends_it_as_if_never_stopped(
    train, whole, tmp_path, stop_at, capsys
):
    workdir = tmp_path / "run"
    stop_at(7, signal.SIGTERM)
    assert train(workdir) == 143
    assert "Stopped and saved at step 7." in capsys.readouterr().err
    assert not (workdir / "results.json").exists()
    assert train(workdir) == 0
    assert outcome(workdir) == outcome(whole)


@pytest.mark.usefixtures("quick_job")
def test_mixed_episodes_are_told_and_tested_at_the_middle_or_as_asked(
    train, tmp_path, capsys
):
    flags = ["--way=2-4", "--shot=1-3", "--num_steps=6", "--test_shot=4"]
    assert train(tmp_path / "run", *flags) == 0
    said = capsys.readouterr().err
    assert (
        "Training episodes: 2-4-way 1-3-shot, 3 queries per class, 2 per step." in said
    )
    drawn = [f"{way}-way {shot}-shot" for way in (2, 3, 4) for shot in (1, 2, 3)]
    assert f"Drawn for each step, for all its episodes: {', '.join(drawn)}." in said
    assert said.count("3-way 4-shot, 8 queries per class") == 2  # val and test
    results = results_of(tmp_path / "run")
    assert results["test"] == {"way": 3, "shot": 4, "num_query": 8}
    assert results["config"]["episodes"]["way"] == "2-4"
    assert train(tmp_path / "run", *flags) == 0  # reads the same data


@pytest.mark.usefixtures("quick_job")
def test_an_interrupted_run_says_so_by_its_exit_status(train, tmp_path, stop_at):
    stop_at(1, signal.SIGINT)
    assert train(tmp_path / "run", "--quiet") == 130


@pytest.mark.usefixtures("quick_job")
def test_classes_held_out_and_dropped_are_the_same_when_resumed_and_evaluated(
    train, evaluate, tmp_path, write_split, capsys
):
    data, run_dir = tmp_path / "data", tmp_path / "run"
    for seed, split in enumerate(("train", "test")):
        labels = np.repeat([f"{split}_{i}" for i in range(8)], 12)
        if split == "test":
            labels[13:24] = "test_0"  # leaves one row in class 1
        write_split(data / "tiny" / f"{split}.npz", split, 8, seed, labels=labels)
    flags = (f"--data_path={data}", "--val_classes=3", "--drop_small_classes")
    assert train(run_dir, *flags, "--num_steps=5") == 0
    said = capsys.readouterr().err
    assert "3 of 8 classes of train are val: " in said and "test: dropped 1" in said
    first = manifest_of(run_dir, 5)["data"]
    assert train(run_dir, *flags, "--seed=0", "--num_steps=8") == 0
    assert manifest_of(run_dir, 8)["data"] == first and len(first) == 3
    assert evaluate(run_dir) == 0
    assert evaluate(run_dir, *flags[1:], "--test_shot=2") == 0
    assert train(run_dir, flags[0], "--val_classes=2", "--num_steps=8") == 3
    write_split(data / "tiny" / "test.npz", "test", 8, seed=2, labels=labels)
    assert evaluate(run_dir) == 3  # different data, even after dropping classes
    assert "the run's own test data" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_run_resumes_bit_for_bit_too(train, tmp_path, stop_at):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    flags = ["--jit=on", "--num_steps=4", "--validate_every=4", "--quiet"]
    assert train(whole, *flags) == 0
    stop_at(3, signal.SIGTERM)
    assert train(halves, *flags) == 143
    assert train(halves, *flags) == 0
    assert outcome(halves, 4) == outcome(whole, 4)
    assert results_of(whole)["jit"] is True


@pytest.mark.usefixtures("quick_job")
def test_going_on_for_longer_does_not_switch_the_compiler(train, tmp_path, monkeypatch):
    monkeypatch.setattr(run_settings, "_JIT_PAYS_AFTER", 2)  # auto: off up to 2 steps
    for steps in (2, 3):
        flags = ("--jit=auto", f"--num_steps={steps}", "--num_test_episodes=2")
        assert train(tmp_path, *flags, "--quiet") == 0
        assert manifest_of(tmp_path, steps)["jit"] is False


@pytest.mark.usefixtures("quick_job")
def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    whole, whole_copy, train, capsys
):
    newest = whole_copy / "checkpoints" / "step-00000012"
    os.truncate(next(newest.glob("*.data-*")), 100)
    assert train(whole_copy) == 0
    told = capsys.readouterr().err
    assert f"skipped: {newest}" in told and "Resuming from step 10" in told
    assert outcome(whole_copy) == outcome(whole)
    assert (whole_copy / "checkpoints" / "unusable-step-00000012-0").is_dir()


@pytest.mark.usefixtures("quick_job")
def test_with_only_damaged_checkpoints_it_does_not_start_over(trained_copy, train):
    for path in (trained_copy / "checkpoints").iterdir():
        (path / "manifest.json").unlink()
    for _ in range(2):
        assert train(trained_copy, "--quiet") == CheckpointError.exit_code


@pytest.mark.usefixtures("quick_job")
def test_a_finished_run_started_again_trains_no_further(
    whole, whole_copy, train, capsys
):
    before = sorted((whole_copy / "events").rglob("*"))
    assert train(whole_copy) == 0
    assert f"Already trained to step 12 in {whole_copy}." in capsys.readouterr().err
    assert outcome(whole_copy) == outcome(whole)
    assert sorted((whole_copy / "events").rglob("*")) == before


@pytest.mark.usefixtures("quick_job")
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_other_data_under_the_same_flags_is_refused_naming_the_split(
    trained_copy, train, tiny_data, tmp_path, capsys, write_split, split
):
    data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))
    classes = {"train": 8, "val": 6, "test": 7}[split]
    write_split(data / "tiny" / f"{split}.npz", split, classes, seed=99)
    before = listing(trained_copy / "checkpoints")
    assert train(trained_copy, f"--data_path={data}") == InputError.exit_code
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{data / 'tiny' / split}.npz" in error and "the data" in error
    assert listing(trained_copy / "checkpoints") == before


@pytest.mark.usefixtures("quick_job")
def test_the_same_data_elsewhere_is_welcome(trained_copy, train, tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "moved")
    assert train(trained_copy, f"--data_path={data}", "--quiet") == 0


def test_another_configuration_is_refused_before_anything_changes(
    trained_copy, train, capsys
):
    before = listing(trained_copy)
    del before[".lock"]
    assert train(trained_copy, "--kl_weight=0.5") == InputError.exit_code
    assert "kl_weight is 0.001 there and 0.5 here" in capsys.readouterr().err
    after = listing(trained_copy)
    del after[".lock"]
    assert after == before


def test_results_say_all_that_is_needed_to_repeat_them(trained):
    results = results_of(trained)
    manifest = manifest_of(trained, 12)
    assert results["episodes"] == 8 and results["seed"] == 0
    assert results["test"] == {"way": 3, "shot": 1, "num_query": 11}
    assert results["step"] == manifest["progress"]["best_step"]
    assert results["steps_trained"] == 12 and results["seconds_trained"] > 0
    config = RunDirectory(trained).config()
    assert results["config"] == manifest["config"] == config.to_dict()
    assert set(results["data"]) == {"train", "val", "test"}
    assert all(len(digest) == 64 for digest in results["data"].values())
    assert results["versions"]["tensorflow"] == tf.__version__
    assert results["jit"] is False and results["device"] == environment.device()
    assert results["interval"] == "95 % over episodes"


@pytest.mark.usefixtures("quick_job")
def test_data_with_pictures_gets_one_test_episode_drawn_and_other_data_not(
    train, tmp_path, monkeypatch, trained
):
    plain = datasets._tables

    def with_pictures(*arguments):
        tables = plain(*arguments)
        for name, table in tables.items():
            images = np.full([len(table.labels), 8, 8], 200, np.uint8)
            tables[name] = EmbeddingTable(
                table.embeddings, table.labels, table.class_names, images=images
            )
        return tables

    assert not (trained / "episode.png").exists()
    monkeypatch.setattr(datasets, "_tables", with_pictures)
    assert train(tmp_path / "run", "--num_steps=1", "--quiet") == 0
    picture = (tmp_path / "run" / "episode.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


@pytest.mark.usefixtures("quick_job")
def test_runs_of_one_process_compute_nearest_centroid_once_per_data_and_shape(
    small_flags, tmp_path, monkeypatch, capsys
):
    seen = []

    def counting(learners, episodes, **options):
        seen.extend(learners)
        return evaluate(learners, episodes, **options)

    monkeypatch.setattr(train_job, "evaluate", counting)
    monkeypatch.setattr(train_job, "_baselines", {})
    said = []
    different = "--seed=9", "--feature_transform=center"
    for number, flags in enumerate(((), ("--outer_lr=0.5",), *zip(different))):
        config = parse(["run_leo.py", *small_flags, "--num_steps=1", *flags]).config
        leo_tf.train(config, tmp_path / str(number), console=Console())
        said += re.findall(r"Nearest centroid on the.*", "".join(capsys.readouterr()))
    assert seen == [BASELINE] * 3 and said[0] == said[1]
    assert len(set(said)) == 3


def test_quiet_prints_the_results_and_nothing_else(trained_copy, train, capsys):
    assert train(trained_copy, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("\ntiny, test: 3-way 1-shot, 11 queries per class, ")
    last = captured.out.splitlines()[-2:]
    assert last[0] == f"Run directory: {trained_copy}"
    assert last[1].endswith(f"-m tensorboard.main --logdir={trained_copy}")


@pytest.mark.usefixtures("quick_job")
def test_it_tells_data_device_shapes_and_how_to_look_at_a_run_of_any_name(
    train, tiny_data, tmp_path, capsys
):
    workdir = tmp_path / "Läufe 試行 1"
    assert train(workdir, "--num_steps=1", "--test_shot=2") == 0
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    tiny = tiny_data / "tiny"
    assert told[:3] == [
        f"train: 8 classes x 12 examples, {tiny / 'train.npz'}",
        f"val: 6 classes x 12 examples, {tiny / 'val.npz'}",
        f"test: 7 classes x 12 examples, {tiny / 'test.npz'}",
    ]
    assert told[3] == f"Device: {environment.device()}."
    assert (
        told[4] == "Training episodes: 3-way 1-shot, 3 queries per class, 2 per step."
    )
    assert told[5].startswith("Training: 1 steps, validated every 5 and at the end;")
    assert told[6] == "Episodes of val: 3-way 2-shot, 10 queries per class."
    assert told[7] == "Episodes of test: 3-way 2-shot, 10 queries per class."
    assert told[8].startswith("Nearest centroid on the validation episodes: ")
    last = captured.out.splitlines()[-1]
    assert shlex.split(last)[2:] == ["-m", "tensorboard.main", f"--logdir={workdir}"]


def test_a_run_without_a_name_goes_below_runs_by_data_and_shape(small_flags):
    config = parse(["run_leo.py", *small_flags]).config
    assert default_workdir(config) == "runs/tiny_3way_1shot"
