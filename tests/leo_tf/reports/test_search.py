"""The report of a search on a terminal, in Markdown and as a picture."""

import numpy as np
import pytest

from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.job_results import Trial
from leo_tf.methods.settings import ranges
from leo_tf.reports import search as report
from leo_tf.reports.figures import BLUE, GREY, ORANGE, pixels
from leo_tf.reports.table import show

RATES = (None, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3)
MEANS = (0.3, 0.5, None, 0.7, 0.65, 0.6, 0.55)


def trials(diverged=(2, 3)):
    """Returns trials of MAML, in which the given settings are the worst finished."""
    found = []
    for number, (rate, mean) in enumerate(zip(RATES, MEANS)):
        settings = {"outer_lr": rate, "adaptation_lr_init": 10.0} if rate else {}
        accuracy = None if mean is None else Interval(mean, 0.01)
        best = None if mean is None else 1000 + number
        steps = 1200 + number, 2.5
        found.append(Trial(settings, accuracy, best, *steps, number in diverged))
    return found


def test_a_terminal_shows_the_best_five_and_the_settings_as_given(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    show(report.terminal({"maml": trials(diverged=(2,))}))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "",
        "MAML: best of 7 trials",
        "",
        "         trial   validation accuracy in %   best step   steps",
        " " + "━" * 61,
        "             3               70.00 ± 1.00       1,003   1,203",
        "             4               65.00 ± 1.00       1,004   1,204",
        "             5               60.00 ± 1.00       1,005   1,205",
        "             6               55.00 ± 1.00       1,006   1,206",
        "             1               50.00 ± 1.00       1,001   1,201",
        "  0 (as given)               30.00 ± 1.00       1,000   1,200",
        "",
        "--outer_lr=0.003 --adaptation_lr_init=10.0",
    ]


def test_markdown_has_every_trial_best_first_and_those_that_diverged_last():
    shares = {"maml": {"outer_lr": 0.25, "adaptation_lr_init": 0.75}}
    text = report.markdown({"maml": trials()}, {"trials": 7}, shares)
    rate = "--outer_lr={} --adaptation_lr_init=10.0`"
    assert text.splitlines() == [
        "# MAML",
        "",
        "| trial | validation accuracy in % | best step | steps | settings |",
        "|---:|---:|---:|---:|---|",
        "| 4 | 65.00 ± 1.00 | 1,004 | 1,204 | `" + rate.format(0.004) + " |",
        "| 5 | 60.00 ± 1.00 | 1,005 | 1,205 | `" + rate.format(0.005) + " |",
        "| 6 | 55.00 ± 1.00 | 1,006 | 1,206 | `" + rate.format(0.006) + " |",
        "| 1 | 50.00 ± 1.00 | 1,001 | 1,201 | `" + rate.format(0.001) + " |",
        "| 0 | 30.00 ± 1.00 | 1,000 | 1,200 | as given |",
        "| 2 | - (diverged) | - | 1,202 | `" + rate.format(0.002) + " |",
        "| 3 | 70.00 ± 1.00 (diverged) | 1,003 | 1,203 | `" + rate.format(0.003) + " |",
        "",
        "Importance of settings at the first rung (PED-ANOVA): `adaptation_lr_init` "
        "75 %, `outer_lr` 25 %.",
        "",
        "± is the 95 % interval over the validation episodes, the same for all.",
        "",
        "Given: `--trials=7`",
    ]
    assert text.endswith("`\n")


def test_the_conclusion_is_the_best_settings_those_given_or_none():
    def conclusion(found):
        return report.terminal({"maml": found})[-1]

    assert conclusion(trials()) == "--outer_lr=0.004 --adaptation_lr_init=10.0"
    assert conclusion(trials()[:1]) == "The settings given were best."
    all_diverged = "Every trial diverged: no settings are recommended."
    assert conclusion(trials(diverged=range(7))) == all_diverged


def test_json_names_the_best_trial_of_each_method():
    maml, leo = trials(), trials(diverged=range(7))[:1]
    shares = {"maml": {"outer_lr": 1.0}, "leo": {}}
    assert report.as_dict({"maml": maml, "leo": leo}, shares) == {
        "methods": {
            "maml": {
                "best_trial": 4,
                "importances": {"outer_lr": 1.0},
                "trials": [t.as_dict() for t in maml],
            },
            "leo": {
                "best_trial": None,
                "importances": {},
                "trials": [leo[0].as_dict()],
            },
        },
        "interval": "95 % over episodes",
    }


def test_the_picture_draws_each_trial_where_it_is_and_the_best_in_orange():
    figure = report.picture({"maml": trials()})
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["outer_lr", "adaptation_lr_init"] == list(ranges("maml"))
    axes = figure.axes[0]
    assert axes.get_xlim() == pytest.approx(ranges("maml")["outer_lr"])
    assert axes.get_xscale() == "log" and axes.get_title() == "MAML"
    drawn = {}
    for line, _, [bar] in axes.containers:
        (rate, mean), [segment] = line.get_xydata()[0], bar.get_segments()
        np.testing.assert_allclose(segment[:, 1], [mean - 1, mean + 1])
        drawn[rate] = round(mean, 6), line.get_color(), line.get_marker()
    assert drawn == {
        1e-3: (50.0, BLUE, "o"),
        3e-3: (70.0, BLUE, "x"),
        4e-3: (65.0, ORANGE, "o"),
        5e-3: (60.0, BLUE, "o"),
        6e-3: (55.0, BLUE, "o"),
    }
    [given] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert set(given.get_ydata()) == {30.0} and given.get_color() == GREY
    pixels(figure)


def test_a_share_has_a_linear_axis_and_one_validation_episode_no_bar():
    settings = {name: low for name, (low, _) in ranges("leo").items()}
    trial = Trial(settings, Interval(0.5, float("inf")), 5, 5, 1.0, False)
    figure = report.picture({"leo": [trial]})
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in figure.axes}
    assert scales.pop("dropout_rate") == "linear" and set(scales.values()) == {"log"}
    pixels(figure)


def test_a_method_without_settings_to_search_breaks_no_picture(monkeypatch):
    monkeypatch.setattr(report, "ranges", lambda name: {})
    pixels(report.picture({"maml": trials()}))


def test_a_line_for_each_trial_goes_over_its_settings_to_its_accuracy():
    figure = report.parallel({"maml": trials()})
    [axes] = figure.axes
    lines = {tuple(np.round(line.get_ydata(), 6)): line for line in axes.lines}
    # All but the given one and the one without a validation; low to high.
    low, high = ranges("maml")["outer_lr"]
    expected = {}
    for number in (1, 3, 4, 5, 6):
        rate = np.log(RATES[number] / low) / np.log(high / low)
        expected[number] = round(rate, 6), round((MEANS[number] - 0.5) / 0.2, 6)
    assert {(line[0], line[-1]) for line in lines} == set(expected.values())
    colours = {(line[0], line[-1]): each.get_color() for line, each in lines.items()}
    assert colours.pop(expected[4]) == ORANGE, "3 is better, and diverged"
    assert set(colours.values()) == {BLUE}
    assert pixels(figure).std() > 5
