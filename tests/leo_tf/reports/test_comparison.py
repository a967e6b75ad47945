"""The report of a comparison on a terminal, in Markdown and in pictures."""

import pathlib

import pytest

from leo_tf.environment import program
from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.job_results import Comparison, Row
from leo_tf.evaluation.results import Calibration
from leo_tf.reports import comparison as report
from leo_tf.reports.figures import BLUE, ORANGE, pixels
from leo_tf.reports.table import show

BINS = Bins((0, 0, 30, 0, 10), (0, 0, 15.0, 0, 8.5), (0, 0, 12, 0, 9))
RIDGE = Row(
    "ridge",
    Interval(0.6123, 0.0123),
    Interval(-0.0877, 0.0051),
    Calibration(Interval(1.25, 0.1), 0.0875, BINS),
    *(0, 0, 0, False, 0.0, 0.00123),
    {"ridge_strength": 0.123456},
    {},
)
MAML = Row(
    "maml",
    Interval(0.65, 0.011),
    Interval(-0.05, 0.002),
    Calibration(Interval(2345.6, 0.1), 0.31, BINS),
    *(1234, 500, 1500, True, 99.4, 0.0042),
    {},
    {"outer_lr": 0.01},
)
LEO = Row(
    "leo",
    Interval(0.7, 0.01),
    None,
    Calibration(Interval(0.75, 0.1), 0.021, BINS, 0.5, Interval(0.7, 0.1), 0.0123),
    *(172736, 2000, 3000, False, 180.0, 0.0105),
    {},
    {},
)
PT_MAP = RIDGE._replace(
    name="pt_map",
    accuracy=Interval(0.8, 0.01),
    difference=Interval(0.1, 0.01),
    validation=Interval(0.77, 0.005),
    chosen={},
)
SHAPE = {"way": 5, "shot": 1, "num_query": 19}


def comparison(**changes):
    given = {"preset": "glyphs", "first_order": True}
    values = [RIDGE, MAML, LEO], "leo", "glyphs", SHAPE, 400, 0, given, True
    return Comparison(*values, pathlib.Path("job"))._replace(**changes)


def validated(*accuracies, **changes):
    """Returns the comparison with validation accuracies, in the order of rows."""
    rows = [
        row._replace(validation=Interval(accuracy, 0.005))
        for row, accuracy in zip((RIDGE, MAML, LEO), accuracies)
    ]
    return comparison(rows=rows, **changes)


def test_it_ends_with_the_method_that_validated_best_and_how_to_export_it():
    found = validated(0.71, 0.68, 0.66, directory=pathlib.Path("a job"))
    found = found._replace(lead=Interval(0.03, 0.004))
    sentences = (
        "Best on the validation episodes: Ridge regression on untransformed features, "
        "71.00 ± 0.50 %, 3.00 ± 0.40 points above MAML on untransformed features, "
        "paired by episode. In the test it has 61.23 ± 1.23 %."
    )
    command = f"{program()} --mode=export '--workdir=a job/ridge' "
    last = report.terminal(found)[-1]
    said = f"{sentences} To export Ridge regression:\n    "
    assert last == f"{said}{command}--export_dir=exported\n"
    assert sentences in report.markdown(found)
    json = report.as_dict(found)
    assert json["best_on_validation"] == "ridge"
    assert json["lead"] == {"mean": 0.03, "half_width_95": 0.004}


@pytest.mark.parametrize("lead", [0.0, 0.00004, -0.00004])
def test_two_that_validated_alike_are_level(lead):
    rows = [
        RIDGE._replace(name="ridge@soft", transform="soft"),
        MAML._replace(transform="lda"),
        LEO._replace(name="lda", transform="lda"),
    ]
    rows = [row._replace(validation=Interval(0.7, 0.005)) for row in rows]
    found = comparison(rows=rows, reference="lda", lead=Interval(lead, 0.001))
    assert report.advice(found) == (
        "Best on the validation episodes: Ridge regression on soft features, 70.00 ± "
        "0.50 %, level with MAML on lda features. In the test it has 61.23 ± 1.23 %."
    )
    assert found.ranked(rows)[2].words == "LDA + nearest centroid"


def test_of_one_method_there_is_nothing_to_lead():
    found = validated(0.71)._replace(reference="ridge")
    assert "71.00 ± 0.50 %. In the test it has" in report.advice(found)


def test_a_row_names_its_transform_where_not_all_stand_on_one():
    def titles(shared):
        rows = [
            RIDGE._replace(transform="soft", shared=shared),
            RIDGE._replace(name="ridge@lda", transform="lda", shared=shared),
            RIDGE._replace(name="ridge@none", shared=shared),
            MAML._replace(shared=shared),
            LEO._replace(name="simpleshot", transform="center", shared=shared),
        ]
        return [row.title for row in rows]

    named = ["Ridge regression, lda", "Ridge regression, none", "MAML", "SimpleShot"]
    assert titles(shared=False) == ["Ridge regression, soft", *named]
    assert titles(shared=True) == ["Ridge regression", *named]


def test_the_reference_is_called_as_its_row():
    rows = [RIDGE, LEO._replace(name="leo@lda", transform="lda", shared=False)]
    found = comparison(rows=rows, reference="leo@lda")
    assert "| minus LEO, lda |" in report.markdown(found)
    assert "Differences to LEO, lda are paired" in report.markdown(found)


def test_without_validation_classes_of_their_own_none_is_the_best():
    for found in (comparison(), validated(0.7, 0.6, 0.5, selects=False)):
        assert report.advice(found) == "" and len(report.terminal(found)) == 3
        assert report.as_dict(found)["best_on_validation"] is None


def test_a_terminal_shows_what_methods_reach_and_what_they_cost(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    show(report.terminal(comparison()))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "",
        "glyphs, test: 5-way 1-shot, 19 queries per class; "
        "± is the 95 % interval over 400 episodes",
        "",
        "  method             accuracy in %      minus LEO       NLL   ECE in %   at T",
        " " + "━" * 77,
        "  Ridge regression    61.23 ± 1.23   -8.77 ± 0.51     1.250        8.8      -",
        "  MAML                65.00 ± 1.10   -5.00 ± 0.20   2.3e+03       31.0      -",
        "  LEO                 70.00 ± 1.00                    0.750        2.1    1.2",
        "",
        "",
        "  method             validation   parameters   best step              steps"
        "   training   ms to adapt",
        " " + "━" * 100,
        "  Ridge regression            -            0           -                  -"
        "          -          1.23",
        "  MAML                        -        1,234         500   1,500 (diverged)"
        "       99 s          4.20",
        "  LEO                         -      172,736       2,000              3,000"
        "    3.0 min         10.50",
        "",
    ]


def test_markdown_has_all_columns_in_one_table_and_says_what_they_are():
    text = report.markdown(comparison())
    assert text.splitlines() == [
        "# glyphs, test: 5-way 1-shot, 19 queries per class; "
        "± is the 95 % interval over 400 episodes",
        "",
        "| method | accuracy in % | minus LEO | NLL | ECE in % | at T | validation "
        "| parameters | best step | steps | training | ms to adapt |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| Ridge regression | 61.23 ± 1.23 | -8.77 ± 0.51 | 1.250 | 8.8 | - | - | 0 "
        "| - | - | - | 1.23 |",
        "| MAML | 65.00 ± 1.10 | -5.00 ± 0.20 | 2.3e+03 | 31.0 | - | - | 1,234 "
        "| 500 | 1,500 (diverged) | 99 s | 4.20 |",
        "| LEO | 70.00 ± 1.00 |  | 0.750 | 2.1 | 1.2 | - | 172,736 "
        "| 2,000 | 3,000 | 3.0 min | 10.50 |",
        "",
        "All methods answered the same episodes. Differences to LEO are paired by "
        "episode. NLL is the negative log-likelihood of a query in nats, ECE the "
        "expected calibration error in 15 bins, and at T the same after dividing "
        "logits by a temperature fitted on validation episodes. Validation is the "
        "accuracy in % on validation episodes: choose a method by it. The checkpoint "
        "of the best step, which has the best validation accuracy, was tested. "
        "Training is the time of all steps and of compiling. A task's time to adapt "
        "is the median of 50 tasks, one at a time.",
        "",
        "Given: `--preset=glyphs --first_order=true`",
        "",
        "Ridge regression, chosen on validation episodes: `--ridge_strength=0.123`",
        "",
        "MAML: `--outer_lr=0.01`",
    ]
    assert text.endswith("`\n")


def test_draws_the_reference_and_an_unselected_checkpoint_are_told():
    found = comparison(samples=3, reference="maml", selects=False)
    text = report.markdown(found)
    assert "mean of 3 draws where a method draws; ± is" in text.splitlines()[0]
    assert "| minus MAML |" in text and "Differences to MAML" in text
    said = "classes were trained on too, so the last checkpoint was tested"
    assert said in text and "best validation" not in text


def test_json_says_what_was_tested_and_each_method_under_its_name():
    found = report.as_dict(comparison(samples=3))
    assert found == {
        "best_on_validation": None,
        "lead": None,
        "methods": {row.name: row.as_dict() for row in (RIDGE, MAML, LEO)},
        "difference_to": "leo",
        "test": SHAPE,
        "episodes": 400,
        "test_samples": 3,
        "interval": "95 % over episodes",
    }


def test_the_picture_has_a_dot_with_its_interval_for_each_method_in_their_order():
    unsure = RIDGE._replace(accuracy=Interval(0.5, float("inf")))
    [axes] = report.accuracies(comparison(rows=[unsure, MAML, LEO])).axes
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles == ["Ridge regression", "MAML", "LEO"]
    bottom, top = axes.get_ylim()
    assert bottom > top, "the first is above"
    drawn = []
    for container in axes.containers:
        line, _, [bar] = container
        [segment] = bar.get_segments()
        drawn.append((*line.get_xydata()[0], *segment[:, 0], line.get_color()))
    expected = [
        (50.0, 0, 50.0, 50.0, BLUE),
        (65.0, 1, 63.9, 66.1, BLUE),
        (70.0, 2, 69.0, 71.0, ORANGE),
    ]
    for one, other in zip(drawn, expected, strict=True):
        assert one[:-1] == pytest.approx(other[:-1]) and one[-1] == other[-1]
    assert [text.get_text() for text in axes.texts] == ["50.00", "65.00", "70.00"]


def test_the_reliability_picture_has_a_panel_for_each_method():
    figure = report.reliabilities(comparison())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{row.title}\nECE 8.8 %" for row in (RIDGE, MAML, LEO)]
    assert figure.get_suptitle() == "glyphs, test: 5-way 1-shot, 19 queries per class"
    pixels(figure)


def test_transductive_methods_have_a_table_of_their_own_that_says_what_they_see(
    capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "100")
    found = comparison(rows=[RIDGE, PT_MAP, LEO])
    said = "Transductive methods, which see all queries of an episode together:"
    show(report.terminal(found))
    printed = capsys.readouterr().out
    assert printed.count(said) == 2  # accuracies and costs
    first, second, *_ = printed.split(said)
    assert "PT-MAP" not in first and "Ridge regression" in first and "LEO" in first
    assert "PT-MAP" in second.split("Ridge")[0]
    before, after = report.markdown(found).split(said)
    assert "PT-MAP" not in before and "| Ridge regression |" in before
    assert after.startswith("\n\n| method | accuracy in %")
    assert "| PT-MAP | 80.00" in after and "| LEO |" not in after
    assert report.as_dict(found)["methods"]["pt_map"]["transductive"] is True
    assert said not in report.markdown(comparison())
    [axes] = report.accuracies(found).axes
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles == ["Ridge regression", "LEO", "PT-MAP (transductive)"]


def test_the_best_answers_each_query_by_itself_and_a_better_transductive_is_told():
    rows = [*validated(0.71, 0.68, 0.66).rows, PT_MAP]
    found = comparison(rows=rows)
    assert found.best.name == "ridge"
    assert report.as_dict(found)["best_on_validation"] == "ridge"
    sentence = (
        "Best on the validation episodes: Ridge regression on untransformed features, "
        "71.00 ± 0.50 %. In the test it has 61.23 ± 1.23 %. If all queries come at "
        "once, PT-MAP on untransformed features validated better: 77.00 ± 0.50 %; "
        "80.00 ± 1.00 % in the test."
    )
    assert report.advice(found) == sentence
    worse = PT_MAP._replace(validation=Interval(0.7, 0.005))
    assert "PT-MAP" not in report.advice(comparison(rows=[*rows[:-1], worse]))
    assert comparison(rows=[PT_MAP]).best is None


def test_the_title_says_that_queries_are_unbalanced():
    shape = {"way": 5, "shot": 1, "num_query": 15, "query_dirichlet": 2.0}
    said = report.title(comparison(shape=shape))
    assert said.startswith(
        "glyphs, test: 5-way 1-shot, 75 queries unbalanced (Dirichlet 2); ± is"
    )


def test_a_best_that_cannot_be_exported_says_so_and_names_the_best_that_can():
    found = validated(0.71, 0.68, 0.66)
    rows = [found.rows[0]._replace(is_exportable=False), *found.rows[1:]]
    last = report.terminal(found._replace(rows=rows))[-1]
    assert "Ridge regression cannot be exported. To export MAML:" in last
    assert "job/maml" in last
    none = [row._replace(is_exportable=False) for row in rows]
    last = report.terminal(found._replace(rows=none))[-1]
    assert last.startswith("Best on the") and "To export" not in last
