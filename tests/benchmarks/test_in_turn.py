import time

import pytest

from benchmarks.in_turn import (
    Contestant,
    Timing,
    measure_in_turn,
    ratios,
    spread,
    timed,
)


def make_sleeper(seconds: float, log: str):
    """A contestant whose step takes `seconds`; it notes each time it is asked."""

    def run(count: int) -> None:
        with open(log, "a") as file:
            file.write(f"{seconds} {count}\n")
        time.sleep(seconds * count)

    return run


def fail():
    raise ZeroDivisionError("a contestant that cannot be built")


def spin(count: int) -> None:
    end = time.process_time() + 0.02 * count
    while time.process_time() < end:
        pass


def test_contestants_are_asked_in_turn_for_as_many_steps_as_fill_the_time(tmp_path):
    log = tmp_path / "log"
    slow, fast = (
        Contestant(make_sleeper, (seconds, str(log)), 0.2) for seconds in (0.1, 0.005)
    )
    measure_in_turn([slow, fast], rounds=3)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [int(count) for _, count in lines[:4]] == [1, 3, 1, 3]  # warming up
    assert [seconds for seconds, _ in lines[4:]] == ["0.1", "0.005"] * 3
    counts = [int(count) for _, count in lines[4:]]
    assert 1 <= counts[0] <= 2 < 4 * counts[0] < counts[1] <= 40
    assert counts == counts[:2] * 3
    assert len(slow.timings) == len(fast.timings) == 3
    assert min(timing.wall for timing in slow.timings) >= 0.1
    assert max(timing.cpu for timing in slow.timings) < 0.02


def test_a_contestant_that_cannot_be_built_ends_the_measurement(capfd):
    with pytest.raises(EOFError):
        Contestant(fail, (), 0.1)
    assert "a contestant that cannot be built" in capfd.readouterr().err


def test_times_are_of_one_step_and_cpu_time_is_told_from_wall_time():
    sleeping = timed(lambda count: time.sleep(0.02 * count), 5)
    spinning = timed(spin, 5)
    assert sleeping.wall >= 0.02 and sleeping.cpu < 0.01
    assert 0.02 <= spinning.cpu < 0.04


def test_ratios_are_taken_within_a_round():
    mine = [Timing(2.0, 6.0), Timing(30.0, 50.0)]  # round 2: a machine ten times slower
    others = [Timing(1.0, 2.0), Timing(10.0, 10.0)]
    assert ratios(mine, others) == ([2.0, 3.0], [3.0, 5.0])


def test_a_spread_is_the_median_with_quartiles():
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0], digits=1) == "3.0 (2.0-4.0)"
