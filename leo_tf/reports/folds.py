"""Report of a comparison over folds of the classes: JSON, Markdown and terminal."""

import statistics
from typing import Any

from leo_tf.evaluation.confidence import OpenSet
from leo_tf.evaluation.job_results import FoldedComparison
from leo_tf.reports import results as report
from leo_tf.reports.table import Table, document


def as_dict(found: FoldedComparison) -> dict:
    """Returns the content of results.json."""
    methods = {}
    for name in found.names:
        values = _accuracies(found, name)
        methods[name] = {
            "title": found.rows(name)[0].plain_title,
            "transductive": found.rows(name)[0].is_transductive,
            "mean_over_folds": statistics.fmean(values),
            "standard_deviation_over_folds": statistics.stdev(values),
            "folds": [row.accuracy.as_dict() for row in found.rows(name)],
        }
        if tested := _open_sets(found, name):
            methods[name]["open_set"] = [each.as_dict() for each in tested]
    return {
        "best_on_validation": found.best,
        "not_in_all_folds": found.left_out,
        "methods": methods,
        "difference_to": found.folds[0].reference,
        "interval": "95 % over the episodes of a fold",
    }


def terminal(found: FoldedComparison) -> list[str | Table]:
    """Returns the terminal's output: accuracies over all folds, and in each fold."""
    whole, reached = _table(found), slice(3)
    kept = [row[reached] for row in whole.rows]
    each = [(row[0], *row[3:]) for row in whole.rows]
    parts: list[str | Table] = [
        f"\n{_title(found)}",
        Table(whole.columns[reached], kept, whole.left),
        Table((whole.columns[0], *whole.columns[3:]), each, whole.left),
        *_left_out(found),
        *_unknown(found),
    ]
    return [*parts, *([f"{said}\n"] if (said := _advice(found)) else [])]


def markdown(found: FoldedComparison) -> str:
    """Returns the table and the meaning of its columns."""
    meaning = (
        "Each class is tested in one fold, so the spread over folds shows how much the "
        "choice of classes matters. The runs share training classes, so it is not a "
        "confidence interval. Differences are within folds. The directories fold_0, "
        "fold_1, ... contain the comparison of each, with intervals over episodes."
    )
    typed = {k: v for k, v in found.folds[0].given.items() if k != "fold"}
    given = f"Given: `{report.flags(typed)}`"
    parts: list[str | Table] = [f"# {_title(found)}", _table(found)]
    parts += [*_left_out(found), meaning, *_unknown(found), _advice(found), given]
    return document(parts)


def _title(found: FoldedComparison) -> str:
    first = found.folds[0]
    each: list[Any] = [fold.shape["num_query"] for fold in found.folds]
    shape = first.shape
    if len(set(each)) > 1:  # as many as the smallest class of each fold leaves
        shape = {**shape, "num_query": f"{min(each)} to {max(each)}"}
    tested = report.title(first.dataset, shape, first.samples)
    return f"{tested}; ± is the standard deviation over {len(found.folds)} folds"


def _table(found: FoldedComparison) -> Table:
    reference = found.folds[0].reference
    minus = f"minus {found.folds[0].reference_title}"
    numbers = tuple(f"fold {i}" for i in range(len(found.folds)))
    columns = "method", "accuracy in %", minus, *numbers
    own, rows = _accuracies(found, reference), []
    for name in found.names:
        values = _accuracies(found, name)
        gains = [mine - theirs for mine, theirs in zip(values, own)]
        minus = "" if name == reference else _spread(gains, "+")
        each = (f"{100 * value:.2f}" for value in values)
        rows.append((_method(found, name), _spread(values), minus, *each))
    return Table(columns, rows, left=columns[:1])


def _method(found: FoldedComparison, name: str) -> str:
    row = found.rows(name)[0]
    return row.plain_title + " (sees all queries)" * row.is_transductive


def _left_out(found: FoldedComparison) -> list[str]:
    """Returns a line about methods that only some folds have, if there are any."""
    titles = "; ".join(found.left_out)
    where = "The results of each fold are in fold_0, fold_1, ..."
    said = f"Not in all folds, so not in the table: {titles}. {where}"
    return [said] if titles else []


def _unknown(found: FoldedComparison) -> list[str | Table]:
    """Returns a table of how well other classes were detected, if requested."""
    rows = []
    for name in found.names:
        if tested := _open_sets(found, name):
            areas = [each.auroc[each.score].mean for each in tested]
            shares = ("false_alarms", "found", "coverage")
            rates = [[getattr(each, s).mean for each in tested] for s in shares]
            sizes = [each.size.mean for each in tested]
            size = f"{statistics.fmean(sizes):.2f} ± {statistics.stdev(sizes):.2f}"
            cells = (_spread(values) for values in (areas, *rates))
            rows.append((_method(found, name), *cells, size))
    columns = ("method", "AUROC", "false alarms", "found", "coverage", "size")
    said = (
        "Unknown classes, by the score that was best on validation; in % but for size, "
    )
    said += "± the standard deviation over folds:"
    return [said, Table(columns, rows, ("method",))] if rows else []


def _open_sets(found: FoldedComparison, name: str) -> list[OpenSet]:
    """Returns the results of a method on queries of other classes, if in all folds."""
    tested = [row.open_set for row in found.rows(name) if row.open_set]
    return tested if len(tested) == len(found.folds) else []


def _accuracies(found: FoldedComparison, name: str) -> list[float]:
    return [row.accuracy.mean for row in found.rows(name)]


def _spread(values: list[float], sign: str = "") -> str:
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"{100 * mean:{sign}.2f} ± {100 * deviation:.2f}"


def _advice(found: FoldedComparison) -> str:
    if found.best is None:
        return ""
    row, values = found.rows(found.best)[0], _accuracies(found, found.best)
    said = f"Best on the validation episodes of all folds: {row.words}. "
    return f"{said}In the tests it has {_spread(values)} %."
