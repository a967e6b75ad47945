"""Results of a run: for results.json and a terminal; and texts that reports share."""

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
# Of `open_set`.
_RATES = "method", "by", "FPR", "false alarms", "found", "coverage", "size"


def as_json(results: Results, **facts: Any) -> dict:
    """Returns what results.json holds: numbers with intervals, then the `facts`."""
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
        **facts,
    }


def terminal(results: Results) -> list[str | Table]:
    """Returns what a terminal shows: accuracies and their paired difference."""
    rows: list[tuple[str, ...]] = []
    for name, accuracy in results.methods.items():
        title = method_named(name).title
        if name == results.method:
            title += remark(results.share_not_finite)
            rows.append((title, str(accuracy), *surety(results.calibration)))
        else:  # beside, not asked for
            made_of_one = method_named(results.method).feature_transform
            features = " on features as they are" if made_of_one else ""
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
    """Returns the shape of test episodes, as `dataset.evaluation_shape` has it."""
    way, shot, num_query = (shape[name] for name in ("way", "shot", "num_query"))
    text, dirichlet = f"{way}-way {shot}-shot", shape.get("query_dirichlet")
    if dirichlet is None:
        return f"{text}, {num_query} queries a class"
    return f"{text}, {way * num_query} queries unbalanced (Dirichlet {dirichlet:g})"


def title(
    dataset: str, shape: Mapping[str, Any], samples: int, step: int | None = None
) -> str:
    """Returns what was tested, in a line.

    `shape` is that of the episodes; `samples` are the draws that predictions were
    averaged over, or 0.
    """
    text = f"{dataset}, test: {episodes(shape)}"
    text += f", step {step}" if step is not None else ""
    return text + (f", mean of {samples} draws" if samples else "")


def data(config: Config) -> str:
    """Returns the name of a data set, with what is done to its features, in words."""
    features, name = config.features, config.data.dataset_name
    words, given = [features.feature_transform], dataclasses.asdict(features)
    if features.feature_power != 1:
        words.append(f"power {features.feature_power:g}")
    for setting in features.chosen:
        if given[setting] is not None:
            words.append(f"{setting.removeprefix('transform_')} {given[setting]:g}")
    return name if words == ["none"] else f"{name} ({', '.join(words)})"


def flags(settings: Mapping[str, object]) -> str:
    """Returns settings as they are typed."""

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
    """Returns the cells of `SURETY`: NLL in nats, however large, and the ECE.

    The last is with logits divided by the temperature of validation episodes.
    """
    nll, scaled = calibration.nll.mean, calibration.scaled_ece
    text = f"{nll:.2g}" if nll >= 1000 else f"{nll:.3f}"
    with_it = "-" if scaled is None else f"{100 * scaled:.1f}"
    return text, f"{100 * calibration.ece:.1f}", with_it


def open_set(found: Mapping[str, OpenSet]) -> list[str | Table]:
    """Returns tables of how well methods, by title, recognise other classes."""
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
    asked = f"{one.episodes} episodes, {one.num_query} queries of a class, balanced; "
    return [
        f"Queries of {one.outside} classes outside each episode. {asked}"
        "AUROC in % of recognising them by:",
        Table(("method", *SCORES), areas, ("method",)),
        "By the one of the first three that was best on validation episodes, in %:",
        Table(_RATES, rates, ("method", "by")),
        "FPR: others taken for known where 95 % of an episode's own are. False alarms: "
        "own queries called none of these, where "
        f"{100 * FALSE_ALARMS:.0f} % of validation's were. Found: others called that. "
        "Coverage: prediction sets that hold the right class, where "
        f"{100 * COVERAGE:.0f} % were to. Size: classes of a set.",
    ]
