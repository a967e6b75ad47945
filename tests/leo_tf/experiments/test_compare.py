"""Comparing methods: numbers are right, the job resumes, and reports what it did."""

import json
import os
import pathlib
import shutil
import signal
import sys

import fake_worker
import numpy as np
import pytest
from saved_runs import chosen_on, config_of, listing, results_of

from leo_tf import console
from leo_tf.cli import main as command_line
from leo_tf.cli.flags import parse
from leo_tf.configs.schema import Config
from leo_tf.console import ProgressLine
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.environment import program
from leo_tf.errors import DivergedError
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.evaluation.intervals import interval
from leo_tf.experiments import compare as compare_job
from leo_tf.experiments import run_group
from leo_tf.experiments import train as train_job
from leo_tf.experiments.evaluate import evaluate as evaluate_run
from leo_tf.experiments.evaluate import score
from leo_tf.experiments.runner import local, worker
from leo_tf.experiments.runner.tasks import Sign, Task
from leo_tf.export.exporter import export_model
from leo_tf.files import near
from leo_tf.methods import defaults, transform_fitting
from leo_tf.methods.defaults import SLOWER
from leo_tf.methods.registry import METHODS, build
from leo_tf.methods.variants import variant_named
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.kept_results import read_kept
from leo_tf.runs.run import load_run
from leo_tf.runs.variables import restore_variables
from leo_tf.serving import Classifier
from leo_tf.training import trainer

pytestmark = pytest.mark.usefixtures("quick_jobs")
NAMES = "leo,ridge,maml"
_FEW = ("--num_steps=4", "--validate_every=2")


@pytest.fixture(scope="module")
def compare(small_flags, quick_jobs):
    """Returns a function that compares in a directory and returns the exit status."""

    def compare(workdir, *flags) -> int:
        mode = "--mode=compare", f"--methods={NAMES}", f"--workdir={workdir}"
        mode += ("--jobs=0",)
        return command_line.main(["run_leo.py", *small_flags, *_FEW, *mode, *flags])

    return compare


@pytest.fixture(scope="module")
def comparison(compare, tmp_path_factory):
    """A finished comparison. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("comparison") / "job"
    assert compare(workdir, "--quiet") == 0
    return workdir


@pytest.fixture(autouse=True)
def no_more_pictures(comparison, monkeypatch):
    """Draws no plots, because those of `comparison` are enough."""
    for name in ("accuracies", "reliabilities"):
        monkeypatch.setattr(compare_job.report, name, lambda found: None)
    monkeypatch.setattr(compare_job, "save", lambda path, picture: None)


def evaluated(workdir, *flags):
    mode = ["--mode=evaluate", f"--workdir={workdir}"]
    return evaluate_run(workdir, **parse(["run_leo.py", *mode, *flags]).explicit)


def exported(workdir, export_dir) -> tuple[dict, str]:
    """Exports a run; returns the content of export.json, and the model card."""
    version = export_model(workdir, export_dir)
    card = (version / "README.md").read_text("utf-8")
    return json.loads((version / "export.json").read_text()), card


@pytest.mark.long
@pytest.mark.parametrize("name", ["leo", "ridge"])
def test_the_export_of_a_compared_run_has_what_the_comparison_measured(
    name, comparison, tmp_path
):
    results = results_of(comparison)
    metadata, card = exported(comparison / name, tmp_path)
    told, row = metadata["test_accuracy"], results["methods"][name]["accuracy"]
    assert (told["mean"], told["half_width_95"]) == (row["mean"], row["half_width_95"])
    assert told["test"] == results["test"] and told["episodes"] == 8
    assert f"{100 * row['mean']:.2f} ±" in card and "was not tested" not in card
    with pytest.warns(UserWarning, match="^4 classes; .* 3-way 1-shot"):
        Classifier(tmp_path).fit(np.eye(4, 8, dtype=np.float32), range(4))


@pytest.mark.long
@pytest.mark.parametrize("name,draws", [("leo", 30), ("ridge", 0)])
def test_draws_that_a_comparison_averaged_over_are_told_of_those_that_draw(
    name, draws, comparison, tmp_path
):
    job = tmp_path / "job"
    shutil.copytree(comparison / name, job / name)
    results = results_of(comparison)
    results["config"]["run"]["test_samples"] = 30
    (job / "results.json").write_text(json.dumps(results))
    metadata, _ = exported(job / name, tmp_path / "out")
    assert metadata["test_accuracy"]["test_samples"] == draws


@pytest.mark.parametrize("change", ["step", "data", "settings", "choice", "damaged"])
def test_what_a_comparison_measured_of_another_checkpoint_is_not_told(
    change, comparison, tmp_path
):
    job = tmp_path / "job"
    shutil.copytree(comparison / "ridge", job / "ridge")
    results = results_of(comparison)
    row = results["methods"]["ridge"]
    if change == "step":
        row["best_step"] += 1
    elif change == "data":
        results["data"]["test"] = "another"
    elif change == "settings":
        row["settings_of_its_own"]["feature_transform"] = "center"
    elif change == "choice":
        row["chosen_on_validation"]["ridge_strength"] *= 2
    text = "{" if change == "damaged" else json.dumps(results)
    (job / "results.json").write_text(text)
    metadata, card = exported(job / "ridge", tmp_path / "out")
    assert metadata["test_accuracy"] is None and "was not tested" in card


def accuracies_of(workdir) -> np.ndarray:
    """Returns accuracies [E] of the test episodes, by the best checkpoint of a run."""
    config = config_of(workdir)
    split = datasets.load(config, ["test"])["test"]
    learner = build(config, split.embedding_size)
    best = Checkpoints(workdir).best()
    restore_variables(best.path, {v.path: v.value for v in learner.trainable_variables})
    episodes = datasets.evaluation_episodes(config, split, config.run.num_test_episodes)
    return evaluate({"method": learner}, episodes)["method"].accuracy


def test_a_comparison_counts_as_measured_only_if_it_is_the_same(comparison):
    path, values = comparison / "results.json", results_of(comparison)
    config, data = Config.from_dict(values["config"], str(path)), values["data"]
    rows = values["methods"]
    own = {name: row["settings_of_its_own"] for name, row in rows.items()}
    kept = read_kept(path, config, data, own)
    for name, row in rows.items():
        assert kept.measured[name].accuracy.mean == row["accuracy"]["mean"]
        assert kept.steps[name] == (row["best_step"], row["steps_trained"])
    more = config.replace(num_test_episodes=config.run.num_test_episodes + 1)
    for other in (
        (more, data, own),
        (config, {**data, "test": "of another"}, own),
        (config, data, {**own, "ridge": {"ridge_strength": 9.0}}),
    ):
        assert read_kept(path, *other) is None
    assert read_kept(path.with_name("none.json"), config, data, own) is None


def test_every_method_is_in_the_order_of_the_paper_with_the_numbers_of_its_run(
    comparison,
):
    found = results_of(comparison)["methods"]
    assert list(found) == ["ridge", "maml", "leo"]
    for name, row in found.items():
        alone = evaluated(comparison / name)
        assert row["accuracy"]["mean"] == alone.methods[name].mean
        assert row["accuracy"]["half_width_95"] == alone.methods[name].half_width
        assert row["nll"]["mean"] == pytest.approx(alone.calibration.nll.mean)
        assert row["ece"] == pytest.approx(alone.calibration.ece)
        for sums, expected in alone.calibration.bins._asdict().items():
            assert row["bins"][sums] == pytest.approx(expected)


def test_differences_are_to_leo_and_paired(comparison):
    found = results_of(comparison)
    assert found["difference_to"] == "leo"
    assert found["methods"]["leo"]["difference"] is None
    difference = found["methods"]["ridge"]["difference"]
    # Both are also compared with nearest centroid on the same episodes.
    means = [found["methods"][name]["accuracy"]["mean"] for name in ("ridge", "leo")]
    assert difference["mean"] == pytest.approx(means[0] - means[1])
    ridge, leo = (accuracies_of(comparison / name) for name in ("ridge", "leo"))
    width = interval(ridge - leo).half_width
    assert difference["half_width_95"] == pytest.approx(width)
    elsewhere = interval(np.sort(ridge) - np.sort(leo)).half_width
    assert width != pytest.approx(elsewhere, rel=0.1), "else it tells nothing"


def test_it_says_what_each_method_cost(comparison):
    found = results_of(comparison)["methods"]
    assert [found[n]["steps_trained"] for n in found] == [0, 4, 4]
    # MAML: 3 classes x (8 weights and a bias). LEO: 8 x 4, 3 x 8 x 8, 4 x 16 and rates.
    assert [found[n]["trainable_parameters"] for n in found] == [0, 27, 300]
    for name, row in found.items():
        pointer = (comparison / name / "best" / "checkpoint.json").read_text()
        assert row["best_step"] == json.loads(pointer)["step"]
    assert found["maml"]["best_step"] == 2, "not the last"
    assert found["ridge"]["seconds_trained"] == 0.0 < found["leo"]["seconds_trained"]
    assert all(0 < found[n]["seconds_to_adapt_to_a_task"] < 5 for n in found)
    assert found["ridge"]["chosen_on_validation"].keys() == {
        "ridge_strength",
        "score_scale",
    }


def test_what_a_method_chose_it_chose_on_the_validation_episodes(comparison):
    row = results_of(comparison)["methods"]["ridge"]
    assert row["chosen_on_validation"] == chosen_on(comparison / "ridge", "val")


def cells_of(found: dict) -> dict[str, str]:
    """Returns the row of results.md for an entry of results.json."""

    def percent(value, sign=""):
        mean, half_width = (100 * value[key] for key in ("mean", "half_width_95"))
        return f"{mean:{sign}.2f} ± {half_width:.2f}"

    trained = {
        "best step": str(found["best_step"]),
        "steps": str(found["steps_trained"]),
        "training": f"{found['seconds_trained']:.0f} s",
    }
    if not found["steps_trained"]:
        trained = dict.fromkeys(trained, "-")
    return {
        "method": found["title"],
        "accuracy in %": percent(found["accuracy"]),
        "minus LEO": percent(found["difference"], "+") if found["difference"] else "",
        "NLL": f"{found['nll']['mean']:.3f}",
        "ECE in %": f"{100 * found['ece']:.1f}",
        "at T": f"{100 * found['ece_scaled']:.1f}",
        "validation": f"{100 * found['validation']['mean']:.2f}",
        "parameters": str(found["trainable_parameters"]),
        **trained,
        "ms to adapt": f"{1000 * found['seconds_to_adapt_to_a_task']:.2f}",
    }


def test_the_directory_holds_the_table_and_two_pictures(comparison):
    text = (comparison / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| method",
        *(f"| {METHODS[name].title}" for name in ("ridge", "maml", "leo")),
    ]
    titles, *values = ([c.strip() for c in row.split("|")[1:-1]] for row in rows)
    found = results_of(comparison)["methods"]
    for row, name in zip(values, ("ridge", "maml", "leo"), strict=True):
        assert dict(zip(titles, row, strict=True)) == cells_of(found[name])
    assert "-" in values[0] and "2" in values[1]
    for name in ("accuracy.png", "reliability.png"):
        picture = (comparison / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_started_again_it_trains_nothing_and_prints_the_same(
    comparison, compare, tmp_path, capsys
):
    workdir = pathlib.Path(shutil.copytree(comparison, tmp_path / "copy"))

    def checkpoints():
        return {k: v for k, v in listing(workdir).items() if "/checkpoints/" in k}

    before, results = checkpoints(), results_of(workdir)
    assert compare(workdir, "--quiet") == 0
    table = capsys.readouterr().out
    assert checkpoints() == before
    again = results_of(workdir)["methods"]
    for name, row in results["methods"].items():
        assert row["accuracy"] == again[name]["accuracy"]
        assert METHODS[name].title in table
        assert f"{100 * row['accuracy']['mean']:.2f} ±" in table
    assert "minus LEO" in table and "over 8 episodes" in table


def test_interrupted_in_one_method_it_goes_on_there(
    compare, comparison, tmp_path, monkeypatch, capsys
):
    class Line(ProgressLine):
        def advance(self, units, details=""):
            super().advance(units, details)
            if self.title == "train" and self.done == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "_SECONDS_PER_CALL", 0.0)
    flags = tmp_path / "job", "--methods=ridge,maml,centroid_euclidean"
    with monkeypatch.context() as patch:
        patch.setattr(console, "ProgressLine", Line)
        assert compare(*flags) == 128 + signal.SIGTERM
    told = capsys.readouterr()
    assert "Stopped and saved at step 3" in told.err and told.out == ""
    made = sorted(path.name for path in (tmp_path / "job").iterdir())
    assert made == [".lock", "centroid_euclidean", "job.json", "maml", "ridge"]
    assert compare(*flags, "--quiet") == 0
    whole, found = results_of(comparison), results_of(tmp_path / "job")
    for name in ("ridge", "maml"):
        mine, its = found["methods"][name], whole["methods"][name]
        assert mine["accuracy"] == its["accuracy"]


def test_what_one_method_cannot_do_is_refused_before_any_is_trained(
    compare, tmp_path, capsys
):
    assert compare(tmp_path / "job", "--test_way=4", "--quiet") == 2
    assert "error: --test_way: expected 3, as --way" in capsys.readouterr().err
    flags = "--test_samples=2", "--methods=ridge,leo_deterministic"
    assert compare(tmp_path / "job", *flags, "--quiet") == 2
    assert "error: --test_samples" in capsys.readouterr().err
    flags = "--strategy=multi_worker", "--methods=leo"
    assert compare(tmp_path / "job", *flags, "--quiet") == 2
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_a_run_is_no_place_for_a_comparison(trained, compare, capsys):
    before = listing(trained)
    assert compare(trained, "--quiet") == 3
    assert "that of one run" in capsys.readouterr().err
    assert listing(trained) == before


def test_a_test_of_draws_says_so_and_is_not_the_test_of_means(comparison):
    found = evaluated(comparison / "leo", "--test_samples=3")
    assert "mean of 3 draws" in found.title
    assert found.calibration.nll != evaluated(comparison / "leo").calibration.nll
    assert found == evaluated(comparison / "leo", "--test_samples=3")


def test_the_draws_of_a_comparison_are_those_of_evaluate(compare, comparison, tmp_path):
    workdir = pathlib.Path(shutil.copytree(comparison, tmp_path / "copy"))
    assert compare(workdir, "--methods=leo", "--test_samples=3", "--quiet") == 0
    found = results_of(workdir)["methods"]["leo"]
    alone = evaluated(comparison / "leo", "--test_samples=3")
    assert found["accuracy"]["mean"] == alone.methods["leo"].mean
    assert found["nll"]["mean"] == pytest.approx(alone.calibration.nll.mean, rel=1e-6)
    assert found["ece"] == pytest.approx(alone.calibration.ece, rel=1e-6)
    means = results_of(comparison)["methods"]["leo"]
    assert found["nll"]["mean"] != pytest.approx(means["nll"]["mean"], rel=1e-4)


def test_without_leo_differences_are_to_the_last_method(
    compare, comparison, tmp_path, capsys
):
    workdir = pathlib.Path(shutil.copytree(comparison, tmp_path / "copy"))
    assert compare(workdir, "--methods=ridge,maml", "--quiet") == 0
    assert "minus MAML" in capsys.readouterr().out
    assert results_of(workdir)["methods"]["maml"]["difference"] is None


def test_a_runs_configuration_is_the_comparisons_with_its_method(comparison):
    job = results_of(comparison)["config"]
    for name in ("ridge", "maml", "leo"):
        config = json.loads((comparison / name / "config.json").read_text())
        assert config["methods"]["method"] == name
        assert {**config, "methods": 0} == {**job, "methods": 0}


def test_a_directory_is_named_by_the_data_if_none_is_given(
    small_flags, tmp_path, monkeypatch
):
    config = parse(["run_leo.py", "--mode=compare", *small_flags]).config
    monkeypatch.chdir(tmp_path)
    with run_group.open_group("compare", config) as group:
        assert near(group.path) == "runs/tiny_3way_1shot_comparison"
        assert json.loads((group.path / "job.json").read_text()) == {"mode": "compare"}


@pytest.mark.parametrize("mode", ["train", "search", "reproduce", "evaluate"])
def test_the_directory_of_a_comparison_is_no_place_for_another_job(
    comparison, small_flags, mode, capsys
):
    (comparison / ".lock").unlink(missing_ok=True)
    before = listing(comparison)
    flags = [f"--mode={mode}", f"--workdir={comparison}", "--quiet"]
    assert command_line.main(["run_leo.py", *small_flags, *flags]) == 3
    assert "received that of --mode=compare." in capsys.readouterr().err
    (comparison / ".lock").unlink(missing_ok=True)
    assert listing(comparison) == before


@pytest.mark.parametrize("content", ["", "[]", '{"mode": 1}'])
def test_a_damaged_job_file_is_an_error_of_one_line(compare, tmp_path, content, capsys):
    (tmp_path / "job.json").write_text(content)
    assert compare(tmp_path, "--quiet") == 3
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'job.json'}: expected a JSON object")


def test_a_method_that_diverges_is_named(compare, tmp_path, monkeypatch, capsys):
    def diverging(*given, **options):
        raise DivergedError("step 7", "few", "many", "Try a lower rate.")

    monkeypatch.setattr(run_group, "train_one", diverging)
    assert compare(tmp_path / "job", "--methods=maml", "--quiet") == 6
    told = capsys.readouterr().err
    assert told.startswith("error: MAML, step 7: expected few, received many. Leave")


def test_a_method_that_diverged_after_a_validation_is_tested_at_its_best(
    compare, comparison, tmp_path, monkeypatch
):
    train = run_group.train_one

    def diverging(config, path, *given, **options):
        run = train(config, path, *given, **options)
        if path.name == "maml":
            raise DivergedError("step 17", "few", "many")
        return run

    monkeypatch.setattr(run_group, "train_one", diverging)
    workdir = pathlib.Path(shutil.copytree(comparison, tmp_path / "copy"))
    assert compare(workdir, "--quiet") == 0
    found, before = results_of(workdir)["methods"], results_of(comparison)["methods"]
    for name, row in found.items():
        assert row["diverged"] == (name == "maml") and not before[name]["diverged"]
        assert row["accuracy"] == before[name]["accuracy"]
    lines = (workdir / "results.md").read_text().splitlines()
    [line] = (line for line in lines if line.startswith("| MAML"))
    assert "| 4 (diverged) |" in line


def test_the_table_says_what_was_given_and_chosen_and_how_checkpoints_were_selected(
    comparison, compare, tmp_path
):
    text, chosen = (comparison / "results.md").read_text(), results_of(comparison)
    assert "\nGiven: `" in text and " --num_steps=4 " in text
    strength = chosen["methods"]["ridge"]["chosen_on_validation"]["ridge_strength"]
    told = f"chosen on validation episodes: `--ridge_strength={strength:.3g} "
    assert f"Ridge regression, {told}" in text
    assert "which has the best validation accuracy, was tested." in text
    flags = "--methods=maml", "--train_on_val", "--first_order", "--quiet"
    assert compare(tmp_path / "job", *flags) == 0
    text = (tmp_path / "job" / "results.md").read_text()
    assert "--train_on_val=true" in text and "--first_order=true" in text
    assert "trained on too, so the last checkpoint" in text
    assert "best validation" not in text


VARIANTS = "leo@lda,centroid@lda,ridge@lda,ridge,leo"


@pytest.fixture(scope="module")
def on_transforms(compare, tmp_path_factory):
    """A comparison of methods on transforms, and its fitted transforms."""
    workdir, fitted = tmp_path_factory.mktemp("on_transforms") / "job", []
    fit = compare_job.fit_transform

    def counted(config, splits):
        fitted.append(config.methods.method)
        return fit(config, splits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_job, "fit_transform", counted)
        flags = f"--methods={VARIANTS}", "--transform_dims=3"
        assert compare(workdir, *flags, "--quiet") == 0
    return workdir, fitted


def test_every_method_stands_on_every_transform_in_one_comparison(on_transforms):
    workdir, _ = on_transforms
    rows = results_of(workdir)["methods"]
    assert list(rows) == ["centroid@lda", "ridge", "ridge@lda", "leo", "leo@lda"]
    assert [row["title"] for row in rows.values()] == [
        *("Nearest centroid, lda", "Ridge regression", "Ridge regression, lda"),
        *("LEO", "LEO, lda"),
    ]
    for name, row in rows.items():
        config = config_of(workdir / name)
        method, _, transform = name.partition("@")
        assert config.methods.method == method
        assert config.features.feature_transform == (transform or "none")
        assert config.features.transform_dims == (3 if transform else None)
        alone = evaluated(workdir / name)
        assert row["accuracy"]["mean"] == alone.methods[method].mean
        assert row["feature_transform"] == (transform or "none")
        own = {"feature_transform": "lda"} if transform else {}
        assert row["settings_of_its_own"] == own
    text = (workdir / "results.md").read_text()
    assert text.startswith("# tiny, test: 3-way") and "minus LEO |" in text
    assert "Ridge regression, lda: `--feature_transform=lda`" in text
    assert "None" not in text


def test_a_transform_is_fitted_once_for_all_that_are_not_trained(on_transforms):
    workdir, fitted = on_transforms
    assert fitted == ["centroid", "leo"], "LEO may want other dims"
    kept = [
        (workdir / name / "transform.npz").read_bytes()
        for name in ("centroid@lda", "ridge@lda")
    ]
    assert kept[0] == kept[1]


def test_resumed_it_fits_no_transform_again(
    on_transforms, compare, tmp_path, monkeypatch
):
    workdir = pathlib.Path(shutil.copytree(on_transforms[0], tmp_path / "copy"))
    shutil.rmtree(workdir / "ridge@lda")
    before = results_of(workdir)["methods"]["ridge@lda"]

    def refitted(*unused):
        pytest.fail("it was fitted")

    for module in (train_job, compare_job):
        monkeypatch.setattr(module, "fit_transform", refitted)
    flags = f"--methods={VARIANTS}", "--transform_dims=3", "--quiet"
    assert compare(workdir, *flags) == 0
    again = results_of(workdir)["methods"]["ridge@lda"]
    assert again["accuracy"] == before["accuracy"]


def test_the_lead_of_the_best_is_paired_by_validation_episode(on_transforms):
    workdir, _ = on_transforms
    found = results_of(workdir)
    rows = found["methods"]
    ranked = sorted(rows, key=lambda name: -rows[name]["validation"]["mean"])
    assert ranked[0] == found["best_on_validation"]
    best, other = (validated(workdir / name) for name in ranked[:2])
    assert interval(best).mean == pytest.approx(rows[ranked[0]]["validation"]["mean"])
    expected = interval(best - other)
    assert found["lead"]["mean"] == pytest.approx(expected.mean)
    assert found["lead"]["half_width_95"] == pytest.approx(expected.half_width)
    assert "points above" in (workdir / "results.md").read_text()


def validated(workdir) -> np.ndarray:
    """Returns accuracies [E] of the validation episodes, by a run's best checkpoint."""
    run = load_run(workdir)
    run.restore_best()
    split = datasets.load(run.config, ["val"])["val"]
    count = run.config.run.num_val_episodes
    episodes = datasets.evaluation_episodes(run.config, split, count)
    return evaluate({"method": run.learner}, episodes)["method"].accuracy


def test_what_needs_no_training_runs_first_and_is_told_so(compare, tmp_path, capsys):
    flags = "--methods=maml,centroid@soft,ridge", "--num_steps=2"
    assert compare(tmp_path / "job", *flags) == 0
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.endswith(" of 3)")]
    assert lines == [
        "Nearest centroid, soft (1 of 3)",
        "Ridge regression (2 of 3)",
        "MAML (3 of 3)",
    ]
    assert "\nTraining: 2 steps, validated every " in told
    assert compare(tmp_path / "untrained", "--methods=ridge") == 0
    assert "Training" not in capsys.readouterr().err


@pytest.fixture
def two_classes(write_split, tiny_data, tmp_path):
    """Flags of a data set with two training classes."""
    shutil.copytree(tiny_data, tmp_path / "data")
    write_split(tmp_path / "data" / "tiny" / "train.npz", "train", 2, 5)
    return f"--data_path={tmp_path / 'data'}", "--way=2"


class _WouldTrain(Exception):
    pass


def would_train(small_flags, *flags):
    """Returns the names that a comparison would train, in order."""
    names = []

    def instead(job):
        names.extend(job.settings)
        raise _WouldTrain

    options = parse(["run_leo.py", "--mode=compare", *small_flags, *flags])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_job, "planned", instead)
        with pytest.raises(_WouldTrain):
            compare_job.compare(
                options.config, workdir=options.workdir, **options.arguments
            )
    return names


def test_without_names_it_compares_what_helps_most_the_untrained_first(
    small_flags, tmp_path
):
    assert would_train(small_flags, f"--workdir={tmp_path}") == [
        *("centroid", "centroid@within", "centroid@soft", "centroid@lda"),
        *("ridge", "ridge@within", "ridge@soft", "ridge@lda"),
        *("logistic", "logistic@within", "logistic@soft", "logistic@lda"),
        *("simpleshot", "distribution_calibration@lda", "soft_kmeans@lda"),
        *("bd_cspn@lda", "laplacian_shot@lda", "pt_map@lda"),
        *("leo", "leo@lda", "protonet@lda"),
        *("generator", "meta_sgd", "maml"),
    ]


@pytest.mark.parametrize("flag", ["--test_way=2", "--way=2-4", "--test_way=3"])
def test_a_default_that_keeps_its_way_is_left_out_at_another_and_told(
    small_flags, tmp_path, caplog, flag
):
    names = would_train(small_flags, flag, f"--workdir={tmp_path}")
    told = [record.getMessage() for record in caplog.records]
    if flag == "--test_way=3":  # that of training
        assert names[-2:] == ["meta_sgd", "maml"] and not told
    else:
        assert names[-4:] == ["leo", "leo@lda", "protonet@lda", "generator"]
        [line] = [line for line in told if "left out" in line]
        assert line.startswith("Meta-SGD and MAML: left out") and "--way" in line


def test_methods_that_see_many_queries_together_are_compared_only_if_asked_for(
    small_flags, tmp_path, caplog, monkeypatch
):
    def together(*flags):
        place = f"--workdir={tmp_path / str(len(flags))}"
        names = would_train(small_flags, place, *flags)
        return [n for n in names if variant_named(n).entry.transductive]

    monkeypatch.setattr(defaults, "_MOST_TOGETHER", 3 * 4)
    few = together("--test_num_query=4")
    assert few == [f"{name}@lda" for name in SLOWER[1:]] and not caplog.records
    assert together("--test_num_query=5", "--num_steps=2") == []
    [line] = [record.getMessage() for record in caplog.records]
    assert "episodes of 3 classes and up to 15 queries: Soft k-means, lda; BD" in line
    flags = "--test_num_query=5", "--methods=pt_map,ridge", "--num_steps=2"
    assert together(*flags) == ["pt_map"]
    for more in ("val", "test"):  # episodes of either decide

        def shape(config, split, more=more):
            return {"way": 3, "shot": 1, "num_query": 4 + (split.name == more)}

        monkeypatch.setattr(compare_job.dataset, "evaluation_shape", shape)
        assert together("--test_num_query=4", *["--num_steps=2"] * 3) == []


def test_what_knows_the_training_classes_is_left_out_where_it_takes_long_or_too_much(
    small_flags, tmp_path, caplog, monkeypatch
):
    name = "distribution_calibration@lda"
    assert name in would_train(small_flags, f"--workdir={tmp_path / 'a'}")
    with monkeypatch.context() as patch:
        patch.setattr(defaults, "_MOST_CALIBRATED", 2)
        assert name not in would_train(small_flags, f"--workdir={tmp_path / 'b'}")
    assert "3 classes" in caplog.text and "Distribution calibration, lda" in caplog.text
    caplog.clear()
    monkeypatch.setattr(transform_fitting, "_MOST_NUMBERS", 50)
    assert name not in would_train(small_flags, f"--workdir={tmp_path / 'c'}")
    line = "Distribution calibration, lda is left out: "
    assert line in caplog.text and "covariances of the training cl" in caplog.text
    # Few dimensions fit.
    flags = f"--workdir={tmp_path / 'd'}", "--transform_dims=2"
    assert name in would_train(small_flags, *flags)
    flags = f"--workdir={tmp_path / 'e'}", f"--methods={name}"
    assert would_train(small_flags, *flags) == [name], "it will be refused"


def test_the_slower_methods_are_all_that_know_classes_or_see_queries_together():
    built_in = {
        name
        for name, entry in METHODS.items()
        if entry.knows_classes or entry.transductive
    }
    assert built_in == {*SLOWER}


def test_a_default_that_the_data_does_not_allow_is_left_out_and_told(
    small_flags, two_classes, tmp_path, caplog
):
    names = would_train(small_flags, *two_classes, f"--workdir={tmp_path / 'job'}")
    within = ("centroid", "ridge", "logistic")  # two classes are enough for it
    untrained = [name for each in within for name in (each, f"{each}@within")]
    others = "generator", "meta_sgd", "maml"
    assert names == [*untrained, "simpleshot", "leo", *others]
    told = [record.getMessage() for record in caplog.records]
    assert sum("is left out: " in line for line in told) == 8 + len(SLOWER)
    line = next(line for line in told if "Ridge regression, soft" in line)
    assert (
        "classes: expected 3 or more for --feature_transform=soft, received 2" in line
    )


def test_one_that_was_asked_for_and_cannot_be_is_an_error_before_any_is_trained(
    compare, two_classes, tmp_path, capsys
):
    flags = *two_classes, "--methods=centroid,leo,ridge@soft", "--quiet"
    assert compare(tmp_path / "job", *flags) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: ridge@soft: ") and "expected 3 or more" in told
    made = sorted(path.name for path in (tmp_path / "job").iterdir())
    assert made == [".lock", "job.json"]
    shared = *two_classes, "--feature_transform=soft", "--quiet"
    assert compare(tmp_path / "shared", *shared, "--methods=centroid") == 3
    assert capsys.readouterr().err.startswith("error: centroid: ")


def test_the_command_it_ends_with_exports_the_best(on_transforms, compare, capsys):
    workdir, _ = on_transforms
    flags = f"--methods={VARIANTS}", "--transform_dims=3", "--quiet"
    assert compare(workdir, *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if "To export " in line)
    best = results_of(workdir)["best_on_validation"]
    command = f"{program()} --mode=export --workdir={workdir / best} "
    assert lines[at + 1] == f"    {command}--export_dir=exported"


def test_queries_of_other_classes_are_asked_of_every_method_if_wanted(
    compare, comparison, tmp_path, capsys
):
    workdir = tmp_path / "job"
    shutil.copytree(comparison, workdir)
    assert compare(workdir, "--open_set", "--quiet") == 0
    told = capsys.readouterr().out
    assert "classes outside each episode" in told
    found, before = results_of(workdir)["methods"], results_of(comparison)["methods"]
    assert "classes outside each episode" in (workdir / "results.md").read_text()
    for name in ("leo", "ridge", "maml"):
        rates = found[name].pop("open_set")
        assert 0 < rates["auroc"]["cosine"]["mean"] < 1
        assert "open_set" not in before[name]
        assert found[name]["accuracy"] == before[name]["accuracy"]
    assert found["ridge"]["ece_scaled"] is not None


@pytest.mark.long
def test_an_ensemble_is_compared_under_the_names_of_both(compare, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"leo": {"ensemble": "ridge"}}))
    workdir = tmp_path / "job"
    flags = "--quiet", "--methods=leo,ridge", f"--method_settings={settings}"
    assert compare(workdir, *flags) == 0
    rows = results_of(workdir)["methods"]
    assert rows["leo"]["title"] == "LEO + ridge"
    chosen = rows["leo"]["chosen_on_validation"]
    assert chosen.keys() == {"ridge_strength", "score_scale", "ensemble_share"}
    mix = load_run(workdir / "leo").validation
    assert rows["leo"]["validation"]["mean"] == pytest.approx(mix.mean)


@pytest.mark.long
def test_an_ensemble_for_all_is_for_those_that_are_trained(compare, tmp_path):
    flags = "--quiet", "--methods=leo,ridge", "--ensemble=ridge"
    assert compare(tmp_path / "job", *flags) == 0
    rows = results_of(tmp_path / "job")["methods"]
    assert [row["title"] for row in rows.values()] == [
        "Ridge regression",
        "LEO + ridge",
    ]


class InThisProcess:
    """A `Runner` that trains each run when it is submitted."""

    def __init__(self, *unused: object):
        self.signs: list[Sign] = []

    def submit(self, task: Task) -> None:
        given = task if task.name in self.tests else task._replace(scores="")
        self.signs.append(worker.work(given, lambda sign: None))

    def watch(self, seconds: float) -> Sign:
        return self.signs.pop()

    def keep_for(self, count: int) -> None: ...

    def close(self) -> None: ...


@pytest.mark.long
@pytest.mark.parametrize("tests", [{"leo", "ridge", "maml"}, set()])
def test_a_run_is_tested_by_its_worker_or_else_at_the_end_with_the_same_result(
    tests, compare, comparison, tmp_path, monkeypatch, capsys
):
    def scored(learners, *rest, **options):
        asked.update(learners)
        return score(learners, *rest, **options)

    asked: dict = {}
    monkeypatch.setattr(compare_job, "score", scored)
    monkeypatch.setattr(InThisProcess, "tests", tests, raising=False)
    monkeypatch.setattr(run_group, "_LATE_SECONDS", 0.0)
    monkeypatch.setattr(local, "LocalRunner", InThisProcess)
    monkeypatch.setattr(local, "COMMAND", (sys.executable, fake_worker.__file__))
    old = tmp_path / "shared" / "scores" / "leo.npz"  # of a job that was killed
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of other data")
    assert compare(tmp_path, "--jobs=1", "--quiet") == 0
    again = {"leo", "ridge", "maml"} - tests
    assert set(asked) == again
    said = capsys.readouterr().err
    assert {
        n for n in asked if f"{n}: its worker's test scores are missing" in said
    } == again
    assert tests or str(old) in said
    mine, theirs = (results_of(each)["methods"] for each in (tmp_path, comparison))
    for name in mine:
        for field in ("accuracy", "difference", "nll", "nll_scaled", "ece"):
            assert mine[name].get(field) == approx(theirs[name].get(field)), field


@pytest.mark.long
def test_a_run_whose_scores_are_missing_is_tested_alone_with_draws_too(
    compare, tmp_path, monkeypatch
):
    monkeypatch.setattr(InThisProcess, "tests", {"leo"}, raising=False)
    monkeypatch.setattr(run_group, "_LATE_SECONDS", 0.0)
    monkeypatch.setattr(local, "LocalRunner", InThisProcess)
    monkeypatch.setattr(local, "COMMAND", (sys.executable, fake_worker.__file__))
    draws = "--methods=leo,ridge", "--test_samples=2"
    assert compare(tmp_path / "workers", "--jobs=1", "--quiet", *draws) == 0
    assert compare(tmp_path / "here", "--quiet", *draws) == 0
    mine, theirs = (results_of(tmp_path / d)["methods"] for d in ("workers", "here"))
    for name in ("leo", "ridge"):
        for field in ("accuracy", "nll", "ece"):
            assert mine[name][field] == approx(theirs[name][field]), field


def approx(value):
    return value if value is None else pytest.approx(value, rel=1e-5)
