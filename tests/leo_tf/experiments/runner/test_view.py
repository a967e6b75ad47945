"""The view of many runs: running ones, the total, and failures."""

import pytest

from leo_tf.console import Console
from leo_tf.errors import DiskError
from leo_tf.experiments.runner import view
from leo_tf.experiments.runner.tasks import Sign, Task, as_dict
from leo_tf.experiments.runner.view import View


def task(name, steps=100, cost=1.0) -> Task:
    return Task(name, "", {}, "", "", "", {}, steps=steps, step_cost=cost)


@pytest.fixture
def clock(monkeypatch):
    """Replaces the time. A test sets its seconds."""
    now = [1000.0]
    monkeypatch.setattr(view.time, "monotonic", lambda: now[0])
    return now


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_where_nothing_can_be_redrawn_a_line_says_how_far_all_are(clock, capsys):
    with View([task("a"), task("b"), task("ridge", 0)], Console()) as shown:
        shown.show(Sign("ridge", "choosing"))
        clock[0] += 10
        shown.show(Sign("a", "step 20", 20, 100))
        assert lines_of(capsys) == ["0 of 3 runs done; ridge choosing; a 20/100"]
        shown.show(Sign("ridge", has_ended=True))
        clock[0] += 10
        shown.show(Sign("a", "step 40", 40, 100))
        # 20 steps in 20 seconds, 160 left. Steps done before do not count.
        assert lines_of(capsys) == ["1 of 3 runs done, 2:40 left; a 40/100"]
        shown.show(Sign("a", "validation", 3, 7))  # other units
        clock[0] += 10
        shown.show(None)
        assert lines_of(capsys)[0].endswith("; a 40/100")
        clock[0] += 51
        shown.show(None)
        assert lines_of(capsys)[0].endswith("; a 40/100 (no progress for 1:01)")


def test_what_is_repeated_or_counts_something_else_never_lowers_what_is_done(
    clock, capsys
):
    with View([task("a", 600)], Console()) as shown:
        shown.show(Sign("a", "step 300", 300, 600))
        shown.show(Sign("a", "step 600", 600, 600))
        # Of a worker that was restarted, or tests as many episodes as there are steps.
        shown.show(Sign("a", "test", 10, 600))
        clock[0] += 10
        shown.show(None)
        assert lines_of(capsys) == ["0 of 1 runs done; a 600/600 test"]
        shown.show(Sign("a", "test 20/600  2.0 episodes/s  4:50 left"))
        clock[0] += 10
        shown.show(None)
        assert lines_of(capsys)[0].endswith(
            "a 600/600 test 20/600  2.0 episodes/s  4:50 left"
        )


def test_the_time_left_knows_that_steps_of_some_methods_are_quicker(clock, capsys):
    with View([task("slow"), task("quick", cost=0.25)], Console()) as shown:
        shown.show(Sign("slow", "step 0", 0, 100))
        shown.show(Sign("slow", "step 50", 50, 100))
        clock[0] += 20
        shown.show(None)
        # 50 steps in 20 seconds: as long again, and 100 of a quarter of that each.
        assert lines_of(capsys)[0].startswith("0 of 2 runs done, 0:30 left")


def test_a_run_that_is_silent_or_warns_or_fails_is_told_of_even_if_all_else_is_quiet(
    clock, capsys
):
    for quiet in (False, True):
        with View([task("a")], Console(quiet=quiet)) as shown:
            shown.show(Sign("a", "its worker ended", is_warning=True))
            error = DiskError("x", "to write", "no room")
            shown.show(Sign("a", has_ended=True, error=as_dict(error)))
        said = lines_of(capsys)
        assert said[0] == "a: its worker ended"
        assert said[1:] == ([] if quiet else [f"a: {error}"]), "the command says it"


def test_what_a_run_is_is_told_once_when_it_begins(clock, capsys):
    with View([task("a")._replace(said="trial 1: --outer_lr=1")], Console()) as shown:
        assert lines_of(capsys) == []
        shown.show(Sign("a", "step 20", 20, 100))
        shown.show(Sign("a", "step 30", 30, 100))
        assert lines_of(capsys) == ["trial 1: --outer_lr=1"]


def test_on_a_terminal_each_running_run_has_a_line_and_silence_is_shown(clock, capsys):
    with View([task("a"), task("b")], Console()) as shown:
        shown.show(Sign("a", "step 20  accuracy 63.1 %", 20, 100))
        shown.show(Sign("b", "compiling"))
        details = {
            each.description: each.fields["details"] for each in shown._bars.tasks
        }
        assert (
            details["a"] == "step 20  accuracy 63.1 %" and details["b"] == "compiling"
        )
        clock[0] += 61
        shown.show(Sign("a", "step 30", 30, 100))
        bars = {each.description: each for each in shown._bars.tasks}
        assert bars["b"].fields["details"] == "no progress for 1:01"
        assert bars["a"].completed == 30 and bars["all runs"].total == 200
        shown.show(Sign("b", has_ended=True))
        bars = {each.description: each for each in shown._bars.tasks}
        assert "b" not in bars and bars["all runs"].completed == 130
        assert bars["all runs"].fields["details"].startswith("1 of 2 runs done, ")


def test_the_total_knows_what_was_trained_at_earlier_rungs_and_what_later_ones_will(
    clock, capsys
):
    again = [task(name, cost=0.5)._replace(begun=30) for name in "ab"]
    with View(again, Console(), later=100.0) as shown:
        shown.show(Sign("a", "step 30", 30, 100))
        shown.show(Sign("a", "step 70", 70, 100))
        [total] = (t for t in shown._bars.tasks if t.description == "all runs")
        assert (total.completed, total.total) == (0.5 * (70 + 30), 0.5 * 200 + 100)
        clock[0] += 20
        shown.show(None)
        # 20 units in 20 seconds; 15, 35 and 100 are left.
        expected = "0 of 2 runs done, 2:30 left with later rungs"
        assert lines_of(capsys)[0].startswith(expected)
