"""Successive halving: which trials resume, from where, and without extra cost."""

import json
import pathlib
import shutil

import pytest
from saved_runs import listing, outcome, results_of

from leo_tf.cli import main as command_line
from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.experiments import run_group
from leo_tf.experiments.search import steps_of
from leo_tf.experiments.study import Journal
from leo_tf.methods.drawing import BATCH, draw

pytestmark = pytest.mark.long

optuna = pytest.importorskip("optuna")
_TRIALS = 3


@pytest.fixture(scope="module")
def search(small_flags, quick_jobs):
    """Returns a function that searches for MAML and returns the exit status."""

    def search(workdir, *flags) -> int:
        steps = "--num_steps=6", "--validate_every=2", "--adaptation_steps=1"
        mode = "--mode=search", "--methods=maml", f"--workdir={workdir}", "--quiet"
        given = [*small_flags, *steps, *mode, "--jobs=0", *flags]
        return command_line.main(["run_leo.py", *given])

    return search


@pytest.fixture(scope="module")
def halved(search, tmp_path_factory):
    """A finished search of three trials and two rungs. Tests must not change it."""
    workdir = tmp_path_factory.mktemp("halved") / "job"
    assert search(workdir, f"--trials={_TRIALS}", "--rungs=2") == 0
    return workdir


@pytest.fixture(scope="module")
def whole(search, tmp_path_factory):
    """The same trials, all trained to the end."""
    workdir = tmp_path_factory.mktemp("whole") / "job"
    assert search(workdir, f"--trials={_TRIALS}", "--rungs=1") == 0
    return workdir


def trials_of(workdir: pathlib.Path) -> list[dict]:
    return results_of(workdir)["methods"]["maml"]["trials"]


def test_a_rung_is_a_third_of_the_next_and_one_that_is_validated():
    for steps, every, rungs, expected in (
        (9000, 250, 3, [1000, 3000, 9000]),
        (4000, 500, 3, [1000, 4000]),  # 444 is before the first validation
        (4000, 100, 3, [400, 1300, 4000]),
        (4000, 500, 1, [4000]),
        (5, 5, 4, [5]),
    ):
        config = Config().replace(num_steps=steps, validate_every=every)
        assert steps_of(config, rungs) == expected


def test_the_best_third_goes_on_and_the_rest_stays(halved, whole):
    found = trials_of(halved)
    first = [trial["accuracy_at_rungs"][0] for trial in found]
    ranked = sorted(range(_TRIALS), key=lambda number: (-first[number], number))
    for place, number in enumerate(ranked):
        went_on = place < 1
        assert found[number]["steps_trained"] == (6 if went_on else 2)
        assert len(found[number]["accuracy_at_rungs"]) == 1 + went_on
    # Results at the first rung do not depend on the number of rungs.
    assert first == [trial["accuracy_at_rungs"][0] for trial in rows_until_2(whole)]


def rows_until_2(whole) -> list[dict]:
    found = []
    for number in range(_TRIALS):
        path = whole / "maml" / f"trial_{number:02}" / "history.csv"
        lines = path.read_text().splitlines()
        names = lines[0].split(",")
        row = dict(zip(names, lines[1].split(",")))
        assert row["step"] == "2"
        found.append({"accuracy_at_rungs": [float(row["val_accuracy"])]})
    return found


def test_a_trial_that_waited_at_a_rung_is_the_one_that_did_not(halved, whole):
    went_on = [n for n, t in enumerate(trials_of(halved)) if t["steps_trained"] == 6]
    for number in went_on:
        mine, its = (job / "maml" / f"trial_{number:02}" for job in (halved, whole))
        assert outcome(mine, 6) == outcome(its, 6)


def test_what_is_done_is_not_done_again(halved, search, tmp_path):
    workdir = pathlib.Path(shutil.copytree(halved, tmp_path / "copy"))
    before = {k: v for k, v in listing(workdir).items() if "/step-" in k}
    assert search(workdir, f"--trials={_TRIALS}", "--rungs=2") == 0
    assert {k: v for k, v in listing(workdir).items() if "/step-" in k} == before
    assert trials_of(workdir) == trials_of(halved)


@pytest.mark.slow
def test_a_search_that_was_cut_off_between_rungs_ends_the_same(
    halved, search, tmp_path, monkeypatch
):
    workdir, asked = tmp_path / "job", []
    train_all = run_group.RunGroup.train_all

    def cut_off(self, plan, later=0.0):
        asked.append(plan)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return train_all(self, plan, later)

    with monkeypatch.context() as patch:
        patch.setattr(run_group.RunGroup, "train_all", cut_off)
        assert search(workdir, f"--trials={_TRIALS}", "--rungs=2") == 130
    assert search(workdir, f"--trials={_TRIALS}", "--rungs=2") == 0
    without_time = [
        [{k: v for k, v in t.items() if k != "seconds_trained"} for t in trials_of(job)]
        for job in (workdir, halved)
    ]
    assert without_time[0] == without_time[1]


def test_the_journal_has_a_study_for_optunas_dashboard(halved):
    backend = optuna.storages.journal.JournalFileBackend(str(halved / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="maml", storage=storage)
    for mine, trial in zip(study.trials, trials_of(halved), strict=True):
        reached = trial["accuracy_at_rungs"]
        assert list(mine.intermediate_values.values()) == reached
        state = "COMPLETE" if len(reached) == 2 else "PRUNED"
        assert mine.state.name == state
        if trial["settings"]:
            assert mine.params == trial["settings"]
    assert study.trials[0].params["outer_lr"] == 0.02, "as given"
    assert (halved / "parallel.png").read_bytes().startswith(b"\x89PNG")


def test_a_journal_that_cannot_be_written_costs_a_warning_only(tmp_path, capsys):
    journal = Journal(tmp_path / "study.journal", Console())
    first, second = draw("maml", "random", 0, range(1, 3))
    journal.begin("maml", 1, first)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, \n')  # as a full disk leaves a line
    journal.begin("maml", 2, second)
    journal.report("maml", 1, 0.5, 10)
    assert capsys.readouterr().err.count("study.journal not written: ") == 1


@pytest.mark.slow
def test_tpe_draws_from_what_came_before_and_keeps_what_it_drew(
    search, tmp_path, capsys
):
    workdir = tmp_path / "job"
    flags = "--sampler=tpe", "--rungs=1", "--num_steps=2"
    assert search(workdir, f"--trials={BATCH}", *flags) == 0
    drawn = json.loads((workdir / "trials.json").read_text())["maml"]
    assert drawn[0] == {} and len(drawn) == BATCH
    assert search(workdir, f"--trials={BATCH + 1}", *flags) == 0
    assert json.loads((workdir / "trials.json").read_text())["maml"][:-1] == drawn
    # However often it was lengthened, also within what is drawn together.
    for trials in (9, 11):
        assert search(workdir, f"--trials={trials}", *flags) == 0
    assert search(tmp_path / "at once", "--trials=11", *flags) == 0
    once = (tmp_path / "at once" / "trials.json").read_bytes()
    assert (workdir / "trials.json").read_bytes() == once
    (workdir / "trials.json").write_text('{"maml": [{}, {"outer_lr": "high"}]}')
    assert search(workdir, f"--trials={BATCH}", *flags) == 3
    assert f"error: {workdir / 'trials.json'}: " in capsys.readouterr().err


def test_each_rung_knows_what_earlier_ones_trained_and_what_later_ones_will(
    search, halved, tmp_path, monkeypatch
):
    def train_all(self, plan, later=0.0):
        told.append((later, {each.begun for each in plan.values()}))
        return whole(self, plan, later)

    told, whole = [], run_group.RunGroup.train_all
    monkeypatch.setattr(run_group.RunGroup, "train_all", train_all)
    shutil.copytree(halved, tmp_path / "job")
    assert search(tmp_path / "job", f"--trials={_TRIALS}", "--rungs=2") == 0
    # One trial goes on from step 2 to 6; a step of MAML costs a fifth of LEO's.
    assert told == [(pytest.approx(4 * 0.2), {0}), (0, {2})]
    told.clear()
    flags = "--trials=6", "--rungs=2", "--sampler=tpe"
    assert search(tmp_path / "tpe", *flags) == 0
    # Two more trials to step 2 and two on to 6, then these two, then nothing.
    found = [pytest.approx(0.2 * each) for each in (2 * 2 + 2 * 4, 2 * 4, 0)]
    assert [later for later, _ in told] == found
