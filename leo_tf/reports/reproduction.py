"""Report of the published protocol: JSON, Markdown and terminal."""

from leo_tf.evaluation.job_results import Reproduction
from leo_tf.evaluation.results import remark
from leo_tf.files import finite
from leo_tf.reports.results import flags
from leo_tf.reports.table import Table, document


def as_dict(found: Reproduction) -> dict:
    """Returns the content of results.json."""
    return {
        "mean_over_runs": found.mean,
        "standard_deviation_over_runs": found.spread,
        "half_width_95_over_all_episodes": finite(found.over_episodes.half_width),
        "published": [
            {
                "percent": accuracy.percent,
                "half_width": accuracy.half_width,
                "trained_on": accuracy.protocol,
                "source": accuracy.source,
            }
            for accuracy in found.published
        ],
        "note": found.note,
        "interval": "95 % over episodes",
        "runs": [run.as_dict() for run in found.runs],
        "selection": found.selection.as_dict(),
    }


def _runs(found: Reproduction) -> Table:
    columns = "trained on", "seed", "step", "accuracy in %"
    rows = [
        (
            run.trained_on,
            str(run.seed),
            f"{run.step:,}",
            str(run.accuracy) + remark(run.share_not_finite),
        )
        for run in (found.selection, *found.runs)
    ]
    return Table(columns, rows, left=columns[:1])


def _summary(found: Reproduction) -> Table:
    columns = "on train+val", "accuracy in %"
    number, episodes = len(found.runs), sum(len(r.scores.accuracy) for r in found.runs)
    spread = "-" if found.spread is None else f"{100 * found.spread:.2f}"
    half_width = 100 * found.over_episodes.half_width
    rows = [
        (f"mean over {number} runs on train+val", f"{100 * found.mean:.2f}"),
        ("standard deviation over these runs", spread),
        (f"95 % interval over their {episodes:,} episodes", f"± {half_width:.2f}"),
    ]
    for accuracy in found.published:
        text = f"{accuracy.percent:.2f} ± {accuracy.half_width:.2f}"
        rows.append((f"published, {accuracy.protocol}: {accuracy.source}", text))
    if not found.published:
        rows.append(("published", "no number"))
    return Table(columns, rows, left=columns[:1])


def terminal(found: Reproduction) -> list[str | Table]:
    """Returns the terminal's output: the runs, their summary, and a note if any."""
    title = f"\n{found.title}; ± of a run is the 95 % interval over its episodes"
    return [title, _runs(found), _summary(found), *([found.note] if found.note else [])]


def markdown(found: Reproduction) -> str:
    """Returns the runs, their summary, and the meaning of the intervals."""
    parts: list[str | Table] = [
        f"# {found.title}",
        _runs(found),
        _summary(found),
        "± of a run is the 95 % interval over its test episodes. The run trained on "
        "the training classes only was tested at the step of its best validation; the "
        "others made as many steps. The sources of published numbers do not say what "
        "± means there.",
        found.note,
        f"Given: `{flags(found.given)}`",
    ]
    return document(parts)
