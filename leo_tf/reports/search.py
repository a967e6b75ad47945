"""Report of a search for settings: JSON, Markdown, terminal and pictures."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from leo_tf.evaluation.job_results import Trial, best_of
from leo_tf.evaluation.results import remark
from leo_tf.methods.settings import LINEAR, ranges
from leo_tf.methods.variants import variant_named
from leo_tf.reports.figures import BLUE, GREY, ORANGE, new_panels
from leo_tf.reports.results import flags
from leo_tf.reports.table import Table, document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 5  # best trials on the terminal
_COLUMNS = "trial", "validation accuracy in %", "best step", "steps"
_AS_GIVEN = "as given"


def as_dict(
    found: dict[str, list[Trial]], importances: Mapping[str, Mapping[str, float]]
) -> dict:
    """Returns the content of results.json; `importances` are per method and setting."""
    methods = {
        name: {
            "best_trial": best_of(trials),
            "importances": importances[name],
            "trials": [t.as_dict() for t in trials],
        }
        for name, trials in found.items()
    }
    return {"methods": methods, "interval": "95 % over episodes"}


def _ranked(trials: list[Trial]) -> list[tuple[int, Trial]]:
    return sorted(enumerate(trials), key=lambda pair: -pair[1].rank)


def _cells(trial: Trial) -> tuple[str, str, str]:
    """Returns the cells of a trial without its number and settings."""
    accuracy = "-" if trial.accuracy is None else str(trial.accuracy)
    accuracy += " (diverged)" if trial.diverged else remark(trial.share_not_finite)
    best = "-" if trial.best_step is None else f"{trial.best_step:,}"
    return accuracy, best, f"{trial.steps:,}"


def terminal(found: dict[str, list[Trial]]) -> list[str | Table]:
    """Returns the terminal's output: each method's best trials and the given one."""
    parts: list[str | Table] = []
    for name, trials in found.items():
        rows = []
        for place, (number, trial) in enumerate(_ranked(trials)):
            if place < _SHOWN or number == 0:
                mark = f" ({_AS_GIVEN})" if not trial.settings else ""
                rows.append((f"{number}{mark}", *_cells(trial)))
        best = best_of(trials)
        conclusion = "Every trial diverged: no settings are recommended."
        if best is not None:
            conclusion = flags(trials[best].settings) or "The settings given were best."
        heading = f"\n{variant_named(name).title}: best of {len(trials)} trials"
        parts += [heading, Table(_COLUMNS, rows), conclusion]
    return [*parts, *(f"\n{line}" for line in _best_transforms(found))]


def _best_transforms(found: Mapping[str, list[Trial]]) -> list[str]:
    """Returns lines with the best transform of each method that has several."""
    variants: dict[str, list[tuple[float, str]]] = {}
    for name, trials in found.items():
        number = best_of(trials)
        if number is not None:
            method = variant_named(name).method
            variants.setdefault(method, []).append((trials[number].rank, name))
    several = [max(each) for each in variants.values() if len(each) > 1]
    return [
        f"{variant_named(name).title}: best on validation, {100 * rank:.2f} %. "
        f"--methods={name} uses its settings."
        for rank, name in several
    ]


def markdown(
    found: dict[str, list[Trial]],
    given: Mapping[str, object],
    importances: Mapping[str, Mapping[str, float]],
) -> str:
    """Returns all trials, best first; `given` are the settings that the user typed."""
    parts: list[str | Table] = []
    columns = (*_COLUMNS, "settings")
    for name, trials in found.items():
        rows = []
        for number, trial in _ranked(trials):
            settings = f"`{flags(trial.settings)}`" if trial.settings else _AS_GIVEN
            rows.append((str(number), *_cells(trial), settings))
        parts.append(Table(columns, rows, columns[-1:], variant_named(name).title))
        parts.append(_what_matters(importances[name]))
    scope = "± is the 95 % interval over the validation episodes, the same for all."
    lines = *_best_transforms(found), scope, f"Given: `{flags(given)}`"
    return document([*parts, *lines])


def _what_matters(importances: Mapping[str, float]) -> str:
    """Returns the importances of settings in a sentence; "" if they are unknown."""
    if not importances:
        return ""
    ranked = sorted(importances.items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in ranked)
    return f"Importance of settings at the first rung (PED-ANOVA): {shares}."


def parallel(found: dict[str, list[Trial]]) -> "Figure":
    """Draws each trial as a line through its settings to its accuracy.

    Darker lines have better validation accuracy. The best trial is orange.
    """
    title = "validation accuracy of trials; orange: the best"
    figure, panels = new_panels(len(found), 1, 8.0, 2.6, title)
    for axes, (name, trials) in zip(panels, found.items()):
        limits = ranges(name)
        drawn = [(n, t) for n, t in enumerate(trials) if t.settings and t.accuracy]
        reached = [t.accuracy.mean for _, t in drawn if t.accuracy]
        low, high = min(reached, default=0.0), max(reached, default=1.0)
        best = best_of(trials)
        for number, trial in sorted(drawn, key=lambda pair: pair[1].rank):
            goodness = _place(trial.accuracy.mean, low, high) if trial.accuracy else 0.0
            heights = [_place(trial.settings[s], *limits[s], s) for s in limits]
            colour = ORANGE if number == best else BLUE
            alpha = 1.0 if number == best else 0.15 + 0.6 * goodness
            axes.plot([*heights, goodness], color=colour, alpha=alpha)
        ends = [f"{low:g} to {high:g}" for low, high in limits.values()]
        labels = [f"{s}\n{end}" for s, end in zip(limits, ends)]
        labels.append(f"accuracy\n{100 * low:.2f} to {100 * high:.2f} %")
        axes.set_xticks(range(len(labels)), labels, fontsize=7)
        axes.set_yticks([])
        axes.grid(axis="x", alpha=0.5)
        axes.set_title(variant_named(name).title, fontsize=8, parse_math=False)
    return figure


def _place(value: float, low: float, high: float, setting: str = "") -> float:
    """Returns a value scaled from low, 0, to high, 1, in the logarithm if drawn so."""
    if setting and setting not in LINEAR:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low) if high > low else 1.0


def picture(found: dict[str, list[Trial]]) -> "Figure":
    """Draws validation accuracy against each setting, with the best trial in orange.

    If the given settings were best, nothing is orange.
    """
    drawn = [(name, setting) for name in found for setting in ranges(name)]
    title = "validation; orange: the best trial, crosses: diverged"
    figure, panels = new_panels(len(drawn), 3, 3.2, 2.6, title)
    for axes, (name, setting) in zip(panels, drawn):
        _draw(axes, found[name], setting)
        scale = "linear" if setting in LINEAR else "log"
        axes.set(xscale=scale, xlim=ranges(name)[setting])  # the whole range of draws
        axes.set_xlabel(setting, fontsize=8)
        axes.set_ylabel("accuracy in %", fontsize=8)
        axes.set_title(variant_named(name).title, fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.tick_params(which="minor", labelbottom=False)
        axes.grid(alpha=0.3)
    return figure


def _draw(axes, trials: list[Trial], setting: str) -> None:
    best = best_of(trials)
    for number, trial in enumerate(trials):
        if trial.accuracy is None:
            continue
        mean, width = (100 * value for value in trial.accuracy)
        if not trial.settings:
            axes.axhline(mean, color=GREY, linestyle="--")
            place = {"transform": axes.get_yaxis_transform(), "va": "bottom"}
            axes.text(0.02, mean, "settings as given", fontsize=6, color=GREY, **place)
            continue
        colour, layer = (ORANGE, 3) if number == best else (BLUE, 2)
        style = {"color": colour, "zorder": layer, "clip_on": False}  # not cut off
        at, mark = trial.settings[setting], "x" if trial.diverged else "o"
        width = width if math.isfinite(width) else 0.0
        axes.errorbar(at, mean, yerr=width, fmt=mark, markersize=4, **style)
