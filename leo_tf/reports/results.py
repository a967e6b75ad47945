"""Report of a run: JSON and terminal; also texts that all reports share."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.evaluation.confidence import COVERAGE, FALSE_ALARMS, SCORES, OpenSet
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import BASELINE, Calibration, Results, remark
from leo_tf.files import finite
from leo_tf.methods.registry import method_named
from leo_tf.reports.table import Table

# Columns of `surety`.
SURETY = "NLL", "ECE in %", "at T"
# Columns of `open_set`.
_RATES = "method", "by", "FPR", "false alarms", "found", "coverage", "size"


def as_json(results: Results, **metadata: Any) -> dict:
    """Returns the content of results.json: numbers with intervals, then `metadata`."""
    methods: dict[str, dict[str, Any]] = {
        name: {**accuracy.as_dict(), "loss": finite(results.losses[name])}
        for name, accuracy in results.methods.items()
    }
    methods[results.method].update(results.calibration.as_dict())
    if results.open_set is not None:
        methods[results.method]["open_set"] = results.open_set.as_dict()
    name, difference = f"{results.method}_minus_{BASELINE}", results.difference
    return {
        "accuracy": methods,
        **({name: difference.as_dict()} if difference else {}),
        "episodes": results.episodes,
        "interval": "95 % over episodes",
        **metadata,
    }


def terminal(results: Results) -> list[str | Table]:
    """Returns the terminal's output: accuracies and their paired difference."""
    rows: list[tuple[str, ...]] = []
    for name, accuracy in results.methods.items():
        title = method_named(name).title
        if name == results.method:
            title += remark(results.share_not_finite)
            rows.append((title, str(accuracy), *surety(results.calibration)))
        else:  # the baseline
            made_of_one = method_named(results.method).feature_transform
            features = " on untransformed features" if made_of_one else ""
            title = f"{title[0].lower()}{title[1:]}{features}"
            rows.append((title, str(accuracy)))
    if results.difference is not None:
        rows.append(("difference, paired", signed(results.difference)))
    columns, sections = ("method", "accuracy in %", *SURETY), (len(results.methods),)
    table = Table(columns, rows, left=("method",), sections=sections)
    scope = f"± is the 95 % interval over {results.episodes} episodes"
    parts: list[str | Table] = [f"\n{results.title}; {scope}", table]
    if results.open_set is not None:
        title = method_named(results.method).title
        parts += open_set({title: results.open_set})
    return parts


def episodes(shape: Mapping[str, Any]) -> str:
    """Returns the shape of test episodes in words, from `dataset.evaluation_shape`."""
    way, shot, num_query = (shape[name] for name in ("way", "shot", "num_query"))
    text, dirichlet = f"{way}-way {shot}-shot", shape.get("query_dirichlet")
    if dirichlet is None:
        return f"{text}, {num_query} queries per class"
    return f"{text}, {way * num_query} queries unbalanced (Dirichlet {dirichlet:g})"


def title(
    dataset: str, shape: Mapping[str, Any], samples: int, step: int | None = None
) -> str:
    """Returns the title of test results.

    `shape` is that of the episodes. `samples` is the number of draws that predictions
    were averaged over, or 0.
    """
    text = f"{dataset}, test: {episodes(shape)}"
    text += f", step {step}" if step is not None else ""
    return text + (f", mean of {samples} draws" if samples else "")


def data(config: Config) -> str:
    """Returns the name of a data set and the transforms of its features."""
    features, name = config.features, config.data.dataset_name
    words, given = [features.feature_transform], dataclasses.asdict(features)
    if features.feature_power != 1:
        words.append(f"power {features.feature_power:g}")
    for setting in features.chosen:
        if given[setting] is not None:
            words.append(f"{setting.removeprefix('transform_')} {given[setting]:g}")
    return name if words == ["none"] else f"{name} ({', '.join(words)})"


def flags(settings: Mapping[str, object]) -> str:
    """Returns settings as flags of a command line."""

    typed = (
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in settings.items()
    )
    return shlex.join(typed)


def signed(difference: Interval) -> str:
    """Returns a difference in percentage points, with its sign."""
    mean, half_width = (100 * value for value in difference)
    return f"{mean:+.2f} ± {half_width:.2f}"


def surety(calibration: Calibration) -> tuple[str, str, str]:
    """Returns the cells of `SURETY`: NLL in nats, ECE, and ECE at the temperature.

    The temperature is the one fitted on validation episodes.
    """
    nll, scaled = calibration.nll.mean, calibration.scaled_ece
    text = f"{nll:.2g}" if nll >= 1000 else f"{nll:.3f}"
    with_it = "-" if scaled is None else f"{100 * scaled:.1f}"
    return text, f"{100 * calibration.ece:.1f}", with_it


def open_set(found: Mapping[str, OpenSet]) -> list[str | Table]:
    """Returns tables of how well methods detect other classes, by title."""
    areas = [
        (method, *(str(each.auroc[score]) for score in SCORES))
        for method, each in found.items()
    ]
    rates = []
    for method, each in found.items():
        shares = each.fpr[each.score], each.false_alarms, each.found, each.coverage
        size = f"{each.size.mean:.2f} ± {each.size.half_width:.2f}"
        rates.append((method, each.score, *map(str, shares), size))
    one = next(iter(found.values()))
    asked = f"{one.episodes} episodes, {one.num_query} queries of a class; "
    return [
        f"Queries of {one.outside} classes outside each episode. {asked}"
        "AUROC in % of detecting them, by score:",
        Table(("method", *SCORES), areas, ("method",)),
        "In %, by the score that was best on validation episodes:",
        Table(_RATES, rates, ("method", "by")),
        "FPR: others accepted where 95 % of an episode's own queries are. False "
        "alarms: own queries rejected at the threshold that rejected "
        f"{100 * FALSE_ALARMS:.0f} % on validation episodes. Found: others rejected "
        "there. Coverage: prediction sets with the right class; the aim is "
        f"{100 * COVERAGE:.0f} %. Size: classes of a set.",
    ]
