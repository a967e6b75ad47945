"""Results of runs and of jobs, as numbers."""

import json
import math
import pathlib
import statistics

import numpy as np
import pytest

from leo_tf.evaluation import job_results
from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval, interval
from leo_tf.evaluation.job_results import Reproduction, Row, Trial, best_of
from leo_tf.evaluation.results import Calibration, results_of

LEO = np.array([0.5, 0.75, 1.0, 0.25])
CENTROID = np.array([0.5, 0.25, 0.75, 0.25])
# Half of the queries right at a confidence of 0.9: off by 0.4.
BINS = Bins(np.array([0, 8]), np.array([0.0, 7.2]), np.array([0.0, 4.0]))
NLL = np.array([0.5, 1.0, 1.5, 2.0])


def scores(accuracy, loss=1.25):
    return EpisodeScores(np.asarray(accuracy), loss, NLL[: len(accuracy)], BINS)


def results(leo=LEO, centroid=CENTROID):
    asked = {"leo": scores(leo), "centroid": scores(centroid, loss=1.5)}
    return results_of(asked, "tiny, test: 5-way")


def by_hand(values):
    """Mean and half width, by the textbook."""
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, 1.959964 * math.sqrt(variance / n)


def test_means_and_half_widths_are_those_of_the_textbook():
    found = results()
    assert found.methods["leo"] == pytest.approx(by_hand(LEO))
    assert found.methods["centroid"] == pytest.approx(by_hand(CENTROID))
    assert found.losses == {"leo": 1.25, "centroid": 1.5} and found.episodes == 4


def test_results_have_the_title_and_the_accuracy_of_the_method_that_was_asked_for():
    found = results()
    assert found.title == "tiny, test: 5-way" and found.method == "leo"
    assert found.accuracy == found.methods["leo"] != found.methods["centroid"]


def test_the_difference_is_paired_by_episode():
    assert results().difference == pytest.approx(by_hand(LEO - CENTROID))
    # Equal in each episode, however much episodes differ: no doubt at all.
    assert results(LEO, LEO).difference == (0.0, 0.0)


def test_nearest_centroid_alone_has_no_difference():
    assert results_of({"centroid": scores(LEO)}, "").difference is None


def test_an_interval_in_json_is_a_mean_and_a_half_width_or_none():
    as_dict = Interval(0.5, 0.25).as_dict()
    assert as_dict == {"mean": 0.5, "half_width_95": 0.25}
    assert interval(np.array([0.5])).as_dict() == {"mean": 0.5, "half_width_95": None}


def test_calibration_in_json_is_strict_where_numbers_are_not_finite():
    broken = Bins(np.array([8]), np.array([math.nan]), np.array([4.0]))
    found = EpisodeScores(LEO, 1.0, np.array([math.nan, 1.0]), broken)
    as_dict = Calibration.of(found).as_dict()
    assert as_dict == {
        "nll": {"mean": None, "half_width_95": None},
        "ece": None,
        "bins": {"count": [8.0], "confidence": [None], "right": [4.0]},
    }
    json.dumps(as_dict, allow_nan=False)


def test_a_row_in_json_has_each_number_under_its_own_name():
    calibration = Calibration.of(scores(LEO))
    accuracy, difference = Interval(0.5, 0.1), Interval(-0.2, 0.05)
    chosen, own = {"ridge_strength": 0.5}, {"kl_weight": 1.0}
    costs = 27, 5, 12, True, 3.5, 0.25
    validation = Interval(0.75, 0.01)
    rest = chosen, own, 0.125, validation
    row = Row("maml", accuracy, difference, calibration, *costs, *rest)
    assert row.as_dict() == {
        "title": "MAML",
        "transductive": False,
        "feature_transform": "none",
        "accuracy": {"mean": 0.5, "half_width_95": 0.1},
        "validation": {"mean": 0.75, "half_width_95": 0.01},
        "difference": {"mean": -0.2, "half_width_95": 0.05},
        **calibration.as_dict(),
        "trainable_parameters": 27,
        "best_step": 5,
        "steps_trained": 12,
        "share_not_finite": 0.125,
        "diverged": True,
        "seconds_trained": 3.5,
        "seconds_to_adapt_to_a_task": 0.25,
        "chosen_on_validation": chosen,
        "settings_of_its_own": own,
    }
    for name in ("difference", "validation"):
        assert row._replace(**{name: None}).as_dict()[name] is None


def reproduction(*accuracies):
    runs = [
        job_results.TestedRun(seed, "train+val", 5, 2.0, scores(a))
        for seed, a in accuracies
    ]
    return Reproduction("", runs[0], runs, (), "", {}, pathlib.Path())


def test_the_spread_of_a_reproduction_is_over_runs_and_its_interval_over_episodes():
    found = reproduction((4, LEO), (5, CENTROID), (6, LEO / 2))
    means = [LEO.mean(), CENTROID.mean(), LEO.mean() / 2]
    assert found.mean == pytest.approx(sum(means) / 3)
    assert found.spread == pytest.approx(statistics.stdev(means))
    pooled = by_hand([*LEO, *CENTROID, *(LEO / 2)])
    assert found.over_episodes == pytest.approx(pooled)
    assert reproduction((4, LEO)).spread is None


def test_a_tested_run_in_json_has_each_number_under_its_own_name():
    run = job_results.TestedRun(4, "train", 15, 2.5, scores(LEO), 0.125)
    mean, half_width = by_hand(LEO)
    assert run.as_dict() == {
        "seed": 4,
        "trained_on": "train",
        "step": 15,
        "seconds_trained": 2.5,
        "share_not_finite": 0.125,
        "accuracy": pytest.approx({"mean": mean, "half_width_95": half_width}),
        **Calibration.of(run.scores).as_dict(),
    }


def trial(mean, diverged=False):
    accuracy = None if mean is None else Interval(mean, 0.1)
    return Trial({"outer_lr": 0.1}, accuracy, 5, 12, 2.5, diverged, 0.125)


def test_the_best_trial_is_the_first_of_the_best_that_did_not_diverge():
    trials = [trial(0.5), trial(None), trial(0.7), trial(0.9, diverged=True)]
    assert best_of([*trials, trial(0.7)]) == 2
    assert best_of(trials[1::2]) is None


def test_a_trial_in_json_has_each_number_under_its_own_name():
    assert trial(0.5, diverged=True).as_dict() == {
        "settings": {"outer_lr": 0.1},
        "validation_accuracy": {"mean": 0.5, "half_width_95": 0.1},
        "accuracy_at_rungs": (),
        "best_step": 5,
        "steps_trained": 12,
        "share_not_finite": 0.125,
        "seconds_trained": 2.5,
        "diverged": True,
    }
    assert trial(None).as_dict()["validation_accuracy"] is None
