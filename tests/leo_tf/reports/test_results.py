"""Results of a run: in results.json and on a terminal."""

import json
import math

import numpy as np
import pytest

from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import Calibration, results_of
from leo_tf.reports import results as report
from leo_tf.reports.table import show

LEO = np.array([0.5, 0.75, 1.0, 0.25])
CENTROID = np.array([0.5, 0.25, 0.75, 0.25])


# Half of the queries right at a confidence of 0.9: off by 0.4.
BINS = Bins(np.array([0, 8]), np.array([0.0, 7.2]), np.array([0.0, 4.0]))


def results(leo=LEO, centroid=CENTROID, loss=1.25, method="leo"):
    nll = np.linspace(0.5, 1.5, len(leo)) * loss
    scores = {
        method: EpisodeScores(np.asarray(leo), loss, nll, BINS),
        "centroid": EpisodeScores(np.asarray(centroid), 1.5, 9 * nll, BINS),
    }
    return results_of(scores, "tiny, test: 5-way")


def strict_json(value):
    def refuse(token):
        pytest.fail(f"{token} is no JSON")

    return json.loads(json.dumps(value), parse_constant=refuse)


def test_json_holds_every_number_and_the_facts():
    found, numbers = strict_json(report.as_json(results(), seed=3, step=20)), results()
    leo = found["accuracy"]["leo"]
    assert leo.pop("nll") == pytest.approx(numbers.calibration.nll.as_dict())
    assert leo.pop("bins").keys() == {"count", "confidence", "right"}
    assert leo == pytest.approx(
        {**numbers.methods["leo"].as_dict(), "loss": 1.25, "ece": 0.4}
    )
    centroid = {**numbers.methods["centroid"].as_dict(), "loss": 1.5}
    assert found["accuracy"]["centroid"] == pytest.approx(centroid)
    assert found["leo_minus_centroid"] == pytest.approx(numbers.difference.as_dict())
    assert found["episodes"] == 4 and "95 %" in found["interval"]
    assert found["seed"] == 3 and found["step"] == 20


def test_json_is_strict_where_numbers_are_not_finite():
    found = strict_json(report.as_json(results([0.5], [0.25], loss=math.nan)))
    del found["accuracy"]["leo"]["bins"]
    assert found["accuracy"]["leo"] == {
        "mean": 0.5,
        "half_width_95": None,
        "loss": None,
        "nll": {"mean": None, "half_width_95": None},
        "ece": pytest.approx(0.4),
    }
    assert found["leo_minus_centroid"] == {"mean": 0.25, "half_width_95": None}


def test_no_difference_is_in_json_where_none_is():
    found = report.as_json(results_of({"centroid": scores_of_centroid()}, ""))
    assert found.keys() == {"accuracy", "episodes", "interval"}


def scores_of_centroid():
    return EpisodeScores(CENTROID, 1.5, np.ones(4), BINS)


def test_a_terminal_shows_methods_intervals_and_the_signed_difference(capsys):
    show(report.terminal(results()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "",
        "tiny, test: 5-way; ± is the 95 % interval over 4 episodes",
    ]
    assert [line.rstrip() for line in lines[2:]] == [
        "",
        "  method                accuracy in %     NLL   ECE in %   at T",
        " ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
        "  LEO                   62.50 ± 31.63   1.250       40.0      -",
        "  nearest centroid      43.75 ± 23.46",
        "",
        "  difference, paired   +18.75 ± 23.46",
        "",
    ]


def test_nearest_centroid_alone_is_one_row(capsys):
    show(report.terminal(results_of({"centroid": scores_of_centroid()}, "tiny")))
    text = capsys.readouterr().out
    assert "Nearest centroid   43.75 ± 23.46   1.000       40.0" in text
    assert "difference" not in text


def test_a_loss_against_the_centroid_has_its_minus(capsys):
    show(report.terminal(results(CENTROID, LEO)))
    assert "-18.75 ± 23.46" in capsys.readouterr().out
    assert report.signed(Interval(0.0123, 0.004)) == "+1.23 ± 0.40"


def test_a_loss_that_explodes_does_not_break_a_table():
    def surety(nll):
        return report.surety(Calibration(Interval(nll, 0.1), 0.0875, BINS))

    assert surety(1.23456) == ("1.235", "8.8", "-")
    assert surety(4.1e75)[0] == "4.1e+75"
    assert surety(float("nan"))[0] == "nan"


def test_the_title_says_shape_step_and_draws():
    shape = {"way": 5, "shot": 1, "num_query": 19}
    title = "glyphs, test: 5-way 1-shot, 19 queries per class"
    assert report.title("glyphs", shape, 0) == title
    both = report.title("glyphs", shape, samples=3, step=20)
    assert both == f"{title}, step 20, mean of 3 draws"


def test_settings_are_flags_as_typed_in_a_shell():
    settings = {"preset": "a b", "first_order": True, "outer_lr": 0.1}
    assert report.flags(settings) == "'--preset=a b' --first_order=true --outer_lr=0.1"
