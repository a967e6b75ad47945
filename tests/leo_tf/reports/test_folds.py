"""The report of a comparison over folds: what it says if folds differ."""

import pathlib

import pytest

from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.job_results import Comparison, FoldedComparison, Row
from leo_tf.evaluation.results import Calibration
from leo_tf.reports import folds as report

CALIBRATION = Calibration(Interval(1.0, 0.1), 0.1, Bins((0, 9), (0, 8.0), (0, 7)))


def fold(*names, num_query=5):
    cost = 0, 0, 0, False, 0.0, 0.001
    rows = [Row(n, Interval(0.5, 0.1), None, CALIBRATION, *cost, {}, {}) for n in names]
    shape = {"way": 3, "shot": 1, "num_query": num_query}
    given = {"class_folds": 2}, True, pathlib.Path("job")
    return Comparison(rows, "ridge", "mine", shape, 400, 0, *given)


def test_methods_that_only_some_folds_have_are_named_everywhere():
    folds = [fold("centroid", "pt_map", "ridge"), fold("ridge", "bd_cspn", "centroid")]
    found = FoldedComparison(folds, pathlib.Path("job"))
    values, said = report.as_dict(found), "not in the table: PT-MAP; BD-CSPN. "
    assert values["not_in_all_folds"] == ["PT-MAP", "BD-CSPN"]
    assert [*values["methods"]] == ["centroid", "ridge"]
    text = report.markdown(found)
    assert said in text and "| Ridge regression |" in text and "| PT-MAP" not in text
    assert any(said in str(part) for part in report.terminal(found))


def test_of_folds_with_the_same_methods_nothing_is_said():
    found = FoldedComparison([fold("centroid", "ridge")] * 2, pathlib.Path("job"))
    assert report.as_dict(found)["not_in_all_folds"] == []
    assert "Not in all folds" not in report.markdown(found)
    assert not any("Not in all folds" in str(part) for part in report.terminal(found))


@pytest.mark.parametrize(
    ("queries", "said"), [((5, 5), "5 queries"), ((8, 5), "5 to 8")]
)
def test_the_title_has_the_queries_of_all_folds(queries, said):
    folds = [fold("centroid", "ridge", num_query=number) for number in queries]
    found = FoldedComparison(folds, pathlib.Path("job"))
    assert f"3-way 1-shot, {said}" in report.markdown(found)
