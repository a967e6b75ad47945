"""Comparing methods: the numbers are right, the job resumes, and says what it did."""

import json
import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
from saved_runs import listing, results_of

from configs.flags import parse
from leo_tf import command_line, experiment, several_runs, trainer, training
from leo_tf.methods import METHODS
from leo_tf.progress import ProgressLine

NAMES = "leo,ridge,maml"


@pytest.fixture(scope="module")
def compare(small_flags):
    """Compares in a directory; returns the exit status."""

    def compare(workdir, *flags) -> int:
        mode = "--mode=compare", f"--methods={NAMES}", f"--workdir={workdir}"
        return command_line.main(["run_leo.py", *small_flags, *mode, *flags])

    return compare


@pytest.fixture(scope="module")
def comparison(compare, tmp_path_factory):
    """A finished comparison: not to be changed."""
    workdir = tmp_path_factory.mktemp("comparison") / "job"
    assert compare(workdir, "--quiet") == 0
    return workdir


def evaluated(workdir, *flags):
    mode = ["--mode=evaluate", f"--workdir={workdir}", "--quiet"]
    return experiment.evaluate_run(parse(["run_leo.py", *mode, *flags]))


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


def test_differences_are_to_leo_and_paired(comparison):
    found = results_of(comparison)
    assert found["difference_to"] == "leo"
    assert found["methods"]["leo"]["difference"] is None
    difference = found["methods"]["ridge"]["difference"]
    # Both are also compared with nearest centroid on the same episodes.
    means = [found["methods"][name]["accuracy"]["mean"] for name in ("ridge", "leo")]
    assert difference["mean"] == pytest.approx(means[0] - means[1])
    widths = [
        found["methods"][name]["accuracy"]["half_width_95"] for name in ("ridge", "leo")
    ]
    unpaired = np.hypot(*widths)
    assert difference["half_width_95"] != pytest.approx(unpaired, rel=1e-3)


def test_it_says_what_each_method_cost(comparison):
    found = results_of(comparison)["methods"]
    assert [found[n]["steps_trained"] for n in found] == [0, 12, 12]
    # MAML: 3 classes x (8 weights and a bias). LEO: 8 x 4, 3 x 8 x 8, 4 x 16 and rates.
    assert [found[n]["trainable_parameters"] for n in found] == [0, 27, 300]
    assert found["maml"]["best_step"] in (5, 10, 12)
    assert found["ridge"]["seconds_trained"] == 0.0 < found["leo"]["seconds_trained"]
    assert all(0 < found[n]["seconds_to_adapt_to_a_task"] < 5 for n in found)
    assert found["ridge"]["chosen_on_validation"].keys() == {
        "ridge_strength",
        "score_scale",
    }


def test_the_directory_holds_the_table_and_two_pictures(comparison):
    text = (comparison / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| method",
        *(f"| {METHODS[name].title}" for name in ("ridge", "maml", "leo")),
    ]
    mean = results_of(comparison)["methods"]["ridge"]["accuracy"]["mean"]
    assert f"{100 * mean:.2f} ±" in rows[1] and "| - |" in rows[1]
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
        def advance(self, units, facts=""):
            super().advance(units, facts)
            if self.title == "train" and self.done == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "_SECONDS_PER_CALL", 0.0)
    flags = tmp_path / "job", "--methods=ridge,maml,centroid_euclidean"
    with monkeypatch.context() as patch:
        patch.setattr(training, "ProgressLine", Line)
        assert compare(*flags) == 128 + signal.SIGTERM
    told = capsys.readouterr()
    assert "Stopped and saved at step 7" in told.err and told.out == ""
    made = sorted(path.name for path in (tmp_path / "job").iterdir())
    assert made == ["centroid_euclidean", "maml", "ridge"]
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
    assert compare(tmp_path / "job", "--test_samples=2", "--quiet") == 2
    assert "error: --test_samples" in capsys.readouterr().err
    flags = "--strategy=multi_worker", "--methods=leo"
    assert compare(tmp_path / "job", *flags, "--quiet") == 2
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_a_run_is_no_place_for_a_comparison(trained, compare, capsys):
    before = listing(trained)
    assert compare(trained, "--quiet") == 3
    assert "that of one run" in capsys.readouterr().err
    assert listing(trained) == before


def test_a_test_of_draws_says_so_and_is_not_the_test_of_means(comparison, capsys):
    found = evaluated(comparison / "leo", "--test_samples=3")
    assert "mean of 3 draws" in capsys.readouterr().out
    assert found.calibration.nll != evaluated(comparison / "leo").calibration.nll
    assert found == evaluated(comparison / "leo", "--test_samples=3")


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


def test_a_directory_is_named_by_the_data_if_none_is_given(small_flags):
    flags = ["run_leo.py", "--mode=compare", *small_flags]
    runs = several_runs.SeveralRuns(parse([*flags, "--quiet"]), "comparison")
    assert str(runs.path) == "runs/tiny_3way_1shot_comparison"
