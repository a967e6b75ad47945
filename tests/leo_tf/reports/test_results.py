"""Results as numbers and as a table."""

import json
import math

import numpy as np
import pytest

from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.reports import results as report

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
    return report.results_of(scores)


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


def test_the_difference_is_paired_by_episode():
    difference = results().difference
    assert difference == pytest.approx(by_hand(LEO - CENTROID))
    # Equal in each episode, however much episodes differ: no doubt at all.
    assert results(LEO, LEO).difference == (0.0, 0.0)


def strict_json(value):
    def refuse(token):
        pytest.fail(f"{token} is no JSON")

    return json.loads(json.dumps(value), parse_constant=refuse)


def test_json_holds_every_number_and_the_facts():
    found = strict_json(report.as_json(results(), seed=3, step=20))
    mean, half_width = by_hand(LEO)
    leo = found["accuracy"]["leo"]
    nll, nll_half_width = by_hand(np.linspace(0.5, 1.5, 4) * 1.25)
    assert leo.pop("nll") == pytest.approx(
        {"mean": nll, "half_width_95": nll_half_width}
    )
    assert leo.pop("bins").keys() == {"count", "confidence", "right"}
    assert leo == pytest.approx(
        {"mean": mean, "half_width_95": half_width, "loss": 1.25, "ece": 0.4}
    )
    mean, half_width = by_hand(LEO - CENTROID)
    assert found["leo_minus_centroid"] == pytest.approx(
        {"mean": mean, "half_width_95": half_width}
    )
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


def test_the_table_shows_methods_intervals_and_the_signed_difference(capsys):
    report.print_table(results(), "tiny, test: 5-way")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "tiny, test: 5-way; ± is the 95 % interval over 4 episodes"
    rows = [line.split() for line in lines[2:] if line.strip(" ━─")]
    assert rows == [
        ["method", "accuracy", "in", "%", "NLL", "ECE", "in", "%"],
        ["LEO", "62.50", "±", "31.63", "1.250", "40.0"],
        ["nearest", "centroid", "43.75", "±", "23.46"],
        ["difference,", "paired", "+18.75", "±", "23.46"],
    ]


def test_a_loss_against_the_centroid_has_its_minus(capsys):
    report.print_table(results(CENTROID, LEO), "tiny")
    assert "-18.75 ± 23.46" in capsys.readouterr().out


def test_a_loss_that_explodes_does_not_break_a_table():
    assert report.nats(1.23456) == "1.235"
    assert report.nats(4.1e75) == "4.1e+75"
    assert report.nats(float("nan")) == "nan"
