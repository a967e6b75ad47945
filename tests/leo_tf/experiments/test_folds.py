"""Comparing over folds of the classes: each is tested once, and the spread shown."""

import json
import re
import statistics

import numpy as np
import pytest
from saved_runs import config_of, results_of

from leo_tf.cli import main as command_line
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.experiments import compare as compare_job
from leo_tf.runs.directory import JOB_FILE

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quick_jobs")]
_CLASSES = 12


@pytest.fixture(scope="module")
def compare(small_flags, all_classes, quick_jobs):
    """Returns a function that compares two methods on data without splits."""

    def compare(workdir, *flags) -> int:
        methods = "--methods=centroid,ridge,soft_kmeans", "--open_set"
        mode = "--mode=compare", *methods, f"--workdir={workdir}"
        data = f"--data_path={all_classes}", "--class_folds=3", "--jobs=0"
        return command_line.main(["run_leo.py", *small_flags, *data, *mode, *flags])

    return compare


@pytest.fixture(scope="module")
def all_classes(tmp_path_factory):
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(_CLASSES, 8)), 12, axis=0)
    path = tmp_path_factory.mktemp("data") / "all.npz"
    features = np.float32(centres + 0.7 * random.normal(size=centres.shape))
    np.savez(path, X=features, y=np.repeat(range(_CLASSES), 12))
    return path


@pytest.fixture(scope="module")
def job(compare, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("folds") / "job"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("accuracies", "reliabilities"):
            patch.setattr(compare_job.report, name, lambda found: None)
        patch.setattr(compare_job, "save", lambda path, picture: None)
        assert compare(workdir, "--quiet") == 0
    return workdir


def test_each_class_is_tested_in_one_fold(job):
    tested = []
    for fold in range(3):
        config = config_of(job / f"fold_{fold}" / "ridge")
        assert config.data.fold == fold
        tested += datasets.load(config, ["test"])["test"].class_names
    assert sorted(tested, key=int) == [str(i) for i in range(_CLASSES)]


def test_the_table_has_means_and_spread_of_the_folds(job):
    found = results_of(job)
    folds = [results_of(job / f"fold_{fold}")["methods"] for fold in range(3)]
    for name in ("centroid", "ridge", "soft_kmeans"):
        values = [fold[name]["accuracy"]["mean"] for fold in folds]
        method = found["methods"][name]
        assert method["mean_over_folds"] == pytest.approx(statistics.fmean(values))
        spread = method["standard_deviation_over_folds"]
        assert spread == pytest.approx(statistics.stdev(values)) and spread > 0
        assert method["transductive"] == (name == "soft_kmeans")
        assert method["open_set"] == [fold[name]["open_set"] for fold in folds]
    text = (job / "results.md").read_text()
    assert "standard deviation over 3 folds" in text and "| fold 2 |" in text
    assert "--class_folds=3" in text and "--fold=" not in text
    inductive = [name for name in folds[0] if name != "soft_kmeans"]
    best = max(inductive, key=lambda n: sum(f[n]["validation"]["mean"] for f in folds))
    assert found["best_on_validation"] == best and not found["not_in_all_folds"]
    assert (
        "| Soft k-means (sees all queries) |" in text and "| Ridge regression |" in text
    )
    falses = [100 * each["false_alarms"]["mean"] for each in method["open_set"]]
    spread = f"{statistics.fmean(falses):.2f} ± {statistics.stdev(falses):.2f}"
    assert re.search(
        rf"\| Soft k-means \(sees all queries\) \| [^|]+ \| {spread} \|", text
    )


def test_the_run_of_a_fold_is_tested_on_its_own_classes_only(job, evaluate, capsys):
    run = job / "fold_1" / "ridge"
    assert evaluate(run) == 0
    assert evaluate(run, "--fold=0") == 3
    assert "the run's own test data" in capsys.readouterr().err


def test_given_again_it_goes_on_and_is_no_place_for_one_comparison(
    job, compare, capsys
):
    before = (job / "fold_1" / "ridge" / "history.csv").read_bytes()
    assert json.loads((job / JOB_FILE).read_text())["mode"] == "compare --class_folds"
    assert compare(job, "--fold=1") == 3
    assert "a directory for --mode=compare" in capsys.readouterr().err
    assert compare(job / "fold_1") == 3
    assert "a directory for --mode=compare --class_folds" in capsys.readouterr().err
    assert (job / "fold_1" / "ridge" / "history.csv").read_bytes() == before
