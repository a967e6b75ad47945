"""The report of a reproduction on a terminal and in Markdown."""

import pathlib

import numpy as np

from leo_tf.configs.presets import Accuracy
from leo_tf.evaluation import job_results
from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.evaluate import EpisodeScores
from leo_tf.reports import reproduction as report
from leo_tf.reports.table import show

BINS = Bins(np.array([8.0]), np.array([6.0]), np.array([4.0]))


def run_of(seed, trained_on, step, *accuracies):
    scores = EpisodeScores(np.array(accuracies), 1.0, np.ones(len(accuracies)), BINS)
    return job_results.TestedRun(seed, trained_on, step, 2.5, scores)


FOUND = job_results.Reproduction(
    title="mini, test: 5-way 1-shot, 15 queries per class",
    selection=run_of(4, "train", 1500, 0.5, 0.5),
    runs=[
        run_of(4, "train+val", 1500, 0.5, 0.7),
        run_of(5, "train+val", 2500, 0.6, 0.8),
    ],
    published=(Accuracy(61.76, 0.08, "train+val", "the paper"),),
    note="Not as published: --outer_lr.",
    given={"preset": "mini_1shot"},
    directory=pathlib.Path("job"),
)
# Of 0.5, 0.7, 0.6, 0.8: deviation 0.1291, over 4 episodes.
POOLED = 195.9964 * 0.12909944 / 2


def test_a_terminal_shows_every_run_and_the_summary(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    show(report.terminal(FOUND))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "",
        "mini, test: 5-way 1-shot, 15 queries per class; "
        "± of a run is the 95 % interval over its episodes",
        "",
        "  trained on   seed    step   accuracy in %",
        " " + "━" * 43,
        "  train           4   1,500    50.00 ± 0.00",
        "  train+val       4   1,500   60.00 ± 19.60",
        "  train+val       5   2,500   70.00 ± 19.60",
        "",
        "",
        "  on train+val                          accuracy in %",
        " " + "━" * 53,
        "  mean over 2 runs on train+val                 65.00",
        "  standard deviation over these runs             7.07",
        f"  95 % interval over their 4 episodes         ± {POOLED:.2f}",
        "  published, train+val: the paper        61.76 ± 0.08",
        "",
        "Not as published: --outer_lr.",
    ]


def test_markdown_says_what_each_interval_is_of():
    text = report.markdown(FOUND)
    assert text.splitlines() == [
        "# mini, test: 5-way 1-shot, 15 queries per class",
        "",
        "| trained on | seed | step | accuracy in % |",
        "|---|---:|---:|---:|",
        "| train | 4 | 1,500 | 50.00 ± 0.00 |",
        "| train+val | 4 | 1,500 | 60.00 ± 19.60 |",
        "| train+val | 5 | 2,500 | 70.00 ± 19.60 |",
        "",
        "| on train+val | accuracy in % |",
        "|---|---:|",
        "| mean over 2 runs on train+val | 65.00 |",
        "| standard deviation over these runs | 7.07 |",
        f"| 95 % interval over their 4 episodes | ± {POOLED:.2f} |",
        "| published, train+val: the paper | 61.76 ± 0.08 |",
        "",
        "± of a run is the 95 % interval over its test episodes. The run trained on "
        "the training classes only was tested at the step of its best validation; "
        "the others made as many steps. The sources of published numbers do not say "
        "what ± means there.",
        "",
        "Not as published: --outer_lr.",
        "",
        "Given: `--preset=mini_1shot`",
    ]
    assert text.endswith("`\n")


def test_one_run_has_no_spread_and_nothing_published_is_said():
    found = FOUND._replace(runs=FOUND.runs[:1], published=(), note="")
    text = report.markdown(found)
    assert "| standard deviation over these runs | - |" in text
    assert "| published | no number |" in text and "\n\n\n" not in text
    assert len(report.terminal(found)) == 3


def test_json_tells_means_spread_and_pooled_interval_apart():
    found = report.as_dict(FOUND)
    assert found == {
        "mean_over_runs": FOUND.mean,
        "standard_deviation_over_runs": FOUND.spread,
        "half_width_95_over_all_episodes": FOUND.over_episodes.half_width,
        "published": [
            {
                "percent": 61.76,
                "half_width": 0.08,
                "trained_on": "train+val",
                "source": "the paper",
            }
        ],
        "note": "Not as published: --outer_lr.",
        "interval": "95 % over episodes",
        "runs": [run.as_dict() for run in FOUND.runs],
        "selection": FOUND.selection.as_dict(),
    }
