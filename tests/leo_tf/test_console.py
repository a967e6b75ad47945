"""The progress line, with a clock of the test's own."""

import io
import os
import sys

import pytest

from leo_tf import console as progress
from leo_tf.console import Console, ProgressLine


class Clock:
    """Stands in for `time` in the module."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds(clock, capsys):
    with ProgressLine("train", total=100) as line:
        for _ in range(5):
            clock.now += 4
            line.advance(2, "loss 1.5")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "train 6/100  loss 1.5  0.5 steps/s  3:08 left",
    ]


def test_quiet_shows_nothing_at_all(clock, capfd):
    with ProgressLine("train", total=100, quiet=True) as line:
        clock.now += 60
        line.advance(2, "loss 1.5")
        line.note("step 2: validation")
    assert capfd.readouterr() == ("", "")
    assert line.done == 2


def last_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("seconds", "units", "shown"),
    [
        (10, 50, "50/1000  5.0 steps/s  3:10 left"),
        (20, 1000, "1000/1000  50.0 steps/s  0:00 left"),
        (10, 1, "1/1000  0.1 steps/s  2:46:30 left"),
    ],
)
def test_the_time_left_is_what_is_left_at_the_rate_so_far(
    clock, capsys, seconds, units, shown
):
    with ProgressLine("test", total=1000) as line:
        clock.now += seconds
        line.advance(units)
    assert last_line(capsys) == f"test {shown}"


def test_work_done_before_the_start_is_no_part_of_the_rate(clock, capsys):
    with ProgressLine("train", total=1000, done=900, unit="episodes") as line:
        clock.now += 10
        line.advance(20)
    assert last_line(capsys) == "train 920/1000  2.0 episodes/s  0:40 left"


def test_skipped_time_is_no_part_of_the_rate(clock, capsys):
    with ProgressLine("train", total=100) as line:
        clock.now += 50
        line.skip_time(40)
        line.advance(20)
    assert last_line(capsys) == "train 20/100  2.0 steps/s  0:40 left"


def test_no_clock_and_no_work_make_it_divide_by_zero(clock, capsys):
    with ProgressLine("train", total=100) as line:
        line.advance(0)
        line.advance(1)
        clock.now += 10
        line.skip_time(10)
        line.advance(0)
        line.skip_time(5)  # more than has passed
        line.advance(1)
    assert capsys.readouterr().err.startswith("train 1/100  ")


def test_a_note_is_printed_whole_and_as_it_is(capsys):
    text = "step 5: [bold]accuracy[/bold] 61.08 ± 0.49 % " + "x" * 200
    with ProgressLine("train", total=100) as line:
        line.note(text)
    assert capsys.readouterr().err == f"{text}\n"


def test_on_a_terminal_the_line_moves_and_vanishes_at_the_end(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressLine("train", total=100) as line:
        clock.now += 10
        line.advance(20, "loss 1.5")
        line._bar.refresh()
        line.note("step 20: validation")
    shown = terminal.getvalue()
    assert "loss 1.5  2.0 steps/s  0:40 left" in shown
    assert "step 20: validation\n" in shown
    assert shown.endswith("\x1b[2K"), "the moving line is erased"
    assert "train 20/100" not in shown, "no plain lines besides"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("closed", [False, True])
def test_a_full_disk_or_a_closed_pipe_behind_the_log_ends_nothing(monkeypatch, closed):
    if closed:
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    with open(writer, "w", buffering=1, closefd=False) as log:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", log)
            patched.setattr(progress, "LINE_SECONDS", 0.0)
            Console().say("hello")
            with ProgressLine("train", 3) as line:
                line.advance(1, "metadata")
                line.note("a note")
                line.warn("a warning")
            with pytest.raises(OSError):
                print("this is what would have ended it", file=log, flush=True)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, writer)  # for what is still in the buffer
    os.close(devnull)


def test_the_first_second_foretells_nothing(clock, capsys):
    with ProgressLine("train", total=100) as line:
        line._last_line -= 10  # a line is due at once
        clock.now += 0.5
        line.advance(1)
        clock.now += 10
        line.advance(1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "train 1/100  2.0 steps/s"
    assert second == "train 2/100  0.2 steps/s  8:34 left"
