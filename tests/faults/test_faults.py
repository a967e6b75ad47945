"""Tests that no promise breaks when any file-system call fails or is the last.

`pytest -m slow tests/faults` injects every fault, `make test-long` a few of them.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys

import fault_injector
import power_cut
import pytest
from fault_injector import Call, Fault

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[2]
DRIVER = pathlib.Path(__file__).with_name("fault_driver.py")
_FEW = "18"  # every call, fault and scenario is among them


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> pathlib.Path:
    if reason := fault_injector.why_not_here():
        pytest.skip(reason)
    return fault_injector.build(tmp_path_factory.mktemp("library"))


def _environment(library) -> dict[str, str]:
    paths = [ROOT, DRIVER.parent]
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _lines(directory: pathlib.Path, pattern: str) -> list[str]:
    paths = sorted(directory.glob(pattern))
    return [line for path in paths for line in path.read_text().splitlines()]


class Outcomes:
    """Outcomes of the faults, one dictionary each; see `fault_driver.inject`.

    Args:
      directory: the driver's.
    """

    def __init__(self, directory: pathlib.Path):
        self.all = [json.loads(line) for line in _lines(directory, "results-*.jsonl")]
        self.scenarios = len(list(directory.glob("*/calls")))
        lines = _lines(directory, "*/calls")
        calls = [Call.from_line(line) for line in lines if line.startswith("call")]
        self.calls = {(call.name, pathlib.Path(call.path).name) for call in calls}

    def broken(self, *promises: str) -> list[str]:
        """Returns the faults for which these promises were broken."""
        return [
            f"{one['scenario']}: {one['fault']} at {one['call']} {one['number']} of "
            f"{one['path']}, {one['done']} done: {broken}"
            for one in self.all
            for broken in one["broken"]
            if broken[0] in promises
        ]

    def count(self, *fields: str) -> collections.Counter:
        return collections.Counter(
            tuple(one[field] for field in fields) for one in self.all
        )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([_FEW], id="selection"),
        pytest.param([], id="all", marks=pytest.mark.slow),
    ],
)
def outcomes(request, library, tmp_path_factory) -> Outcomes:
    """Outcomes of the faults injected into every scenario."""
    directory = tmp_path_factory.mktemp("faults")
    driver = subprocess.run(
        [sys.executable, DRIVER, directory, *request.param],
        env=_environment(library),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert driver.returncode == 0, driver.stderr
    found = Outcomes(directory)
    for fields in (["fault", "outcome"], ["scenario"], ["call"]):
        print(*sorted(found.count(*fields).items()), sep="\n")
    return found


def test_every_fault_hit_the_call_it_was_meant_for(outcomes):
    assert outcomes.broken("hit") == []
    assert {fault for (fault,) in outcomes.count("fault")} == {
        fault.value for fault in Fault if fault is not Fault.NONE
    }
    assert len(outcomes.count("scenario")) == outcomes.scenarios
    assert {call for (call,) in outcomes.count("call")} == {
        name for name, _ in outcomes.calls
    }


def test_the_newest_checkpoint_is_whole_and_none_acknowledged_is_lost(outcomes):
    assert outcomes.broken("newest") == []


def test_the_best_checkpoint_is_whole_and_the_one_last_acknowledged(outcomes):
    assert outcomes.broken("best") == []


def test_earlier_checkpoints_keep_every_byte(outcomes):
    assert outcomes.broken("earlier") == []


def test_what_is_not_ours_stays(outcomes):
    assert outcomes.broken("foreign") == []


def test_a_replaced_file_has_its_old_or_its_new_content(outcomes):
    assert outcomes.broken("replaced") == []


def test_a_failing_disk_is_refused_by_our_errors_and_by_no_other(outcomes):
    assert outcomes.broken("refusal") == []
    assert outcomes.count("outcome")["refused",] > 0


def test_an_action_whose_call_failed_is_never_acknowledged(outcomes):
    assert outcomes.broken("acknowledged") == []


def test_the_next_process_goes_on_and_clears_what_was_left_behind(outcomes):
    assert outcomes.broken("next", "leftovers") == []


def test_the_calls_of_tensorflow_and_of_python_are_seen(outcomes):
    by_tensorflow = {"fopen", "fwrite", "fclose"}
    assert {(name, "variables.index") for name in by_tensorflow} <= outcomes.calls
    by_python = {"open", "write", "fsync", "close", "stat", "unlink"}
    assert {(name, "manifest.json") for name in by_python} <= outcomes.calls
    assert ("rename", "unfinished-step-00000030") in outcomes.calls
    on_directories = {"mkdir", "open", "fsync", "close", "opendir"}
    for name in ("unfinished-step-00000030", "checkpoints"):
        assert {(call, name) for call in on_directories} <= outcomes.calls


WRITES = """
import os, sys
import fault_injector
fault = fault_injector.Fault[sys.argv[3]]
descriptor = os.open(sys.argv[1], os.O_WRONLY)
log = os.open("log", os.O_WRONLY | os.O_CREAT)
fault_injector.arm(os.path.dirname(sys.argv[1]), int(sys.argv[2]), fault, log)
for text in (b"abcd", b"efgh", b"ijkl"):
    try:
        os.write(descriptor, text)
    except OSError as error:
        print(error.errno, end=" ")
"""


@pytest.mark.parametrize(
    ("fault", "status", "errors", "content"),
    [
        (Fault.NONE, 0, "", "abcdefghijkl"),
        (Fault.KILLED_BEFORE, -9, "", "abcd"),
        (Fault.KILLED_AFTER, -9, "", "abcdefgh"),
        (Fault.HALF_WRITTEN, -9, "", "abcdef"),
        (Fault.FAILS_ONCE, 0, "5 ", "abcdijkl"),
        (Fault.DISK_FULL, 0, "28 28 ", "abcd"),
        (Fault.DISK_DEAD, 0, "28 28 ", "abcd"),
    ],
)
def test_the_library_does_at_the_second_call_what_it_says(
    library, tmp_path, fault, status, errors, content
):
    file = tmp_path / "watched" / "file"
    file.parent.mkdir()
    file.touch()
    process = subprocess.run(
        [sys.executable, "-c", WRITES, file, "2", fault.name],
        env=_environment(library),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (process.returncode, process.stdout) == (status, errors)
    assert file.read_text() == content
    lines = (tmp_path / "log").read_text().splitlines()
    calls = [Call.from_line(line) for line in lines]
    assert calls[1] == Call(2, "write", "g", file.stat().st_ino, str(file), "")


def _calls(*calls) -> list[Call]:
    """Returns the calls of (name, path) or of (name, path, second path)."""
    return [
        Call(
            number,
            name,
            "g",
            os.stat(path).st_ino if os.path.exists(path) else 0,
            str(path),
            str(*other),
        )
        for number, (name, path, *other) in enumerate(calls)
    ]


def test_a_power_cut_halves_a_file_not_flushed_and_no_other(tmp_path):
    flushed, late, unflushed = (tmp_path / name for name in "abc")
    for path in (flushed, late, unflushed):
        path.write_text("12345678")
    calls = _calls(
        ("write", flushed),
        ("fsync", flushed),
        ("fsync", late),
        ("write", late),
        ("fwrite", unflushed),
    )
    power_cut.lose_data(calls, tmp_path)
    contents = [path.read_text() for path in (flushed, late, unflushed)]
    assert contents == ["12345678", "1234", "1234"]


def test_a_power_cut_undoes_a_rename_whose_directory_was_not_flushed(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for place, text in ((before, "old"), (after, "new")):
        (place / "flushed").mkdir(parents=True)
        (place / "not").mkdir()
        (place / "flushed" / "file").write_text(text)
        (place / "not" / "file").write_text(text)
    calls = _calls(
        ("rename", after / "flushed" / "beside", after / "flushed" / "file"),
        ("rename", after / "not" / "beside", after / "not" / "file"),
        ("fsync", after / "flushed"),
    )
    power_cut.lose_names(calls, after, before)
    assert (after / "flushed" / "file").read_text() == "new"
    assert (after / "not" / "file").read_text() == "old"
    assert (after / "not" / "beside").read_text() == "new"


def test_a_power_cut_takes_a_new_name_away_under_its_last_name_too(tmp_path):
    before = tmp_path / "before"
    after = tmp_path / "after"
    before.mkdir()
    for name in ("kept", "lost"):
        (after / "new").mkdir(parents=True, exist_ok=True)
        (after / "new" / name).touch()
    calls = _calls(
        ("mkdir", after / "old"),
        ("open", after / "old" / "kept"),
        ("fsync", after / "old"),
        ("open", after / "old" / "lost"),
        ("rename", after / "old", after / "new"),
        ("fsync", after),
    )
    power_cut.lose_names(calls, after, before)
    assert [path.name for path in (after / "new").iterdir()] == ["kept"]
