"""Injects faults into every scenario, one process each, and writes outcomes.

TensorFlow is imported once, before it has done anything; every run, and every look at
what a fault left, is in a process forked from there.

    LD_PRELOAD=fault_injector.so python fault_driver.py DIRECTORY [COUNT]

Of all the faults there are it injects COUNT, as different as can be, or all. It writes
one line of JSON each to DIRECTORY/results-*.jsonl; the log of each scenario without a
fault is in DIRECTORY/*/calls.
"""

import functools
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable

import fault_injector
import power_cut
from fault_injector import Call, Fault
from fault_scenarios import CONFIG
from more_fault_scenarios import ALL_SCENARIOS

from leo_tf.errors import CheckpointError, DiskError, InputError
from leo_tf.runs.directory import RunDirectory

_SECONDS, _LANES = 300, 2


def in_child(work: Callable[[int], None]) -> tuple[str, int]:
    """Runs `work` in a fresh process; returns what it wrote and its status.

    Args:
      work: is given a descriptor to write to.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(_SECONDS)
        try:
            work(writing)
        except BaseException:
            os.write(writing, f"raised\tnext\t{traceback.format_exc()!r}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as log:
        text = log.read()
    _, status = os.waitpid(child, 0)
    return text, os.waitstatus_to_exitcode(status)


class Log:
    """Log of a run with a fault at call `number`.

    Attributes:
      calls: up to that one.
      done: the actions that came to their end.
      refused, raised: the action that did not, and why; empty if there is none.
      hit: the action during which that call was made; the one after the last if none.
    """

    def __init__(self, text: str, number: int):
        self.calls, self.done, self.refused, self.raised, self.hit = [], [], [], [], 0
        for line in text.splitlines():
            kind, *fields = line.split("\t")
            if kind == "done":
                self.done += fields
            elif kind == "call":
                call = Call.from_line(line)
                if call.number <= number:
                    self.calls.append(call)
                    self.hit = len(self.done)
            else:
                (self.refused if kind == "refused" else self.raised).extend(fields)

    def acknowledged(self) -> bool:
        """True if the action that was hit says that it succeeded."""
        return len(self.done) > self.hit


def act(scenario, workdir: pathlib.Path, log: int) -> None:
    """Does all actions of a scenario, up to the first refusal, and reports them."""

    def tell(*fields):
        os.write(log, ("\t".join(fields) + "\n").encode())

    name = "start"
    try:
        with RunDirectory(workdir).for_training(CONFIG) as directory:
            tell("done", name)
            name = "load"
            for name, action in scenario.actions(directory):
                action()
                tell("done", name)
            name = "end"
    except DiskError as error:
        tell("refused", name, repr(str(error)))
    except (InputError, CheckpointError) as error:
        reads = name in ("start", "load", "set_aside", "export")
        tell("refused" if reads else "raised", name, repr(str(error)))
    except BaseException:
        tell("raised", name, repr(traceback.format_exc()))


def run(scenario, place: pathlib.Path, call: int, fault: Fault):
    """Runs a scenario below `place` with a fault at a call; returns log and status."""

    def work(log):
        fault_injector.arm(place, call, fault, log)
        act(scenario, place / "run", log)
        fault_injector.disarm()

    return in_child(work)


def look(scenario, place, before, done) -> list[list[str]]:
    """Checks in a fresh process; returns the promises that were broken."""

    def work(log):
        def expect(promise, kept, found):
            if not kept:
                os.write(log, f"broken\t{promise}\t{found!r}\n".encode())

        scenario.check(place / "run", before / "run", done, expect)

    text, status = in_child(work)
    broken = [line.split("\t")[1:] for line in text.splitlines()]
    return broken + ([["next", f"ended with status {status}"]] if status else [])


def inject(scenario, directory: pathlib.Path, call: Call, fault: Fault) -> dict:
    """Injects one fault; returns the call it hit, the outcome and promises broken."""
    before, place = directory / "before", directory / f"{call.number}-{fault.name}"
    shutil.copytree(before, place)
    text, status = run(scenario, place, call.number, fault)
    log = Log(text, call.number)
    broken = verdict(log, status, call, fault)
    if fault is Fault.DATA_LOST:
        power_cut.lose_data(log.calls, place)
    if fault is Fault.NAMES_LOST:
        power_cut.lose_names(log.calls, place, before)
    broken += look(scenario, place, before, set(log.done))
    shutil.rmtree(place)
    killed = fault.kills or status == -signal.SIGSEGV
    outcome = "killed" if killed else "refused" if log.refused else "done"
    return {
        "call": call.name,
        "kind": call.kind,
        "number": call.number,
        "path": call.path,
        "fault": fault.value,
        "outcome": outcome,
        "done": log.done,
        "broken": broken,
    }


def verdict(log: Log, status: int, call: Call, fault: Fault) -> list[list[str]]:
    """The promises that the run itself broke."""
    broken = []
    if [(c.number, c.name) for c in log.calls[-1:]] != [(call.number, call.name)]:
        broken.append(["hit", f"{log.calls[-1:]} instead of {call}"])
    crashed = status == -signal.SIGSEGV and _ends_tensorflow(call, fault)
    if status != (-signal.SIGKILL if fault.kills else 0) and not crashed:
        broken.append(["hit", f"ended with status {status}"])
    if log.raised:
        broken.append(["refusal", *log.raised])
    # TensorFlow makes its directory although it is there, and goes on if that fails.
    must_fail = fault.fails and call.kind == "g" and call.name != "mkdir"
    if must_fail and log.acknowledged():
        broken.append(["acknowledged", f"{call} failed, yet: {log.done}"])
    return broken


def _ends_tensorflow(call: Call, fault: Fault) -> bool:
    """Tells whether TensorFlow crashes here: it reads back what it wrote."""
    return fault.fails and call.kind == "r" and call.path.endswith("saved_model.pb")


def prepare(scenario, place: pathlib.Path, unused_log: int):
    scenario.prepare(place / "run")


def plan(directory: pathlib.Path) -> list[tuple]:
    """Prepares the scenarios; returns all faults to inject."""
    planned = []
    for number, scenario in enumerate(ALL_SCENARIOS.values()):
        place = directory / str(number)
        (place / "before").mkdir(parents=True)
        text, status = in_child(functools.partial(prepare, scenario, place / "before"))
        assert not text and not status, f"{status} {text}"
        shutil.copytree(place / "before", place / "none")
        text, status = run(scenario, place / "none", 0, Fault.NONE)
        log = Log(text, sys.maxsize)
        assert not status and not log.refused and not log.raised, f"{status} {text}"
        (place / "calls").write_text(text)
        for call in log.calls:
            planned += [(scenario, place, call, fault) for fault in call.faults()]
    return planned


def lane(planned: list[tuple], results: pathlib.Path):
    names = {scenario: name for name, scenario in ALL_SCENARIOS.items()}
    with results.open("w") as file:
        for scenario, place, call, fault in planned:
            result = inject(scenario, place, call, fault)
            line = {"scenario": names[scenario], **result}
            file.write(json.dumps(line) + "\n")
            file.flush()


def selection(planned: list[tuple], count: int) -> list[tuple]:
    """Returns a sample of all, each chosen for the most that none before had."""
    random.Random(0).shuffle(planned)
    chosen, had = [], set()
    for _ in range(count):
        chosen.append(max(planned, key=lambda item: len(_traits(*item) - had)))
        had |= _traits(*chosen[-1])
    return chosen


@functools.cache
def _traits(scenario, place, call: Call, fault: Fault) -> frozenset:
    kind, file = (call.name, call.kind), pathlib.Path(call.path).name
    singles = {scenario, call.name, kind, fault}
    pairs = {(scenario, kind), (scenario, fault), (kind, fault), (file, fault)}
    return frozenset(singles | pairs)


def main(directory: pathlib.Path, count: int | None = None):
    importlib.import_module("leo_tf.methods.inductive.maml")  # what exporting needs
    planned = plan(directory)
    if count:
        planned = selection(planned, count)
    children = []
    for number in range(_LANES):
        child = os.fork()
        if not child:
            try:
                lane(planned[number::_LANES], directory / f"results-{number}.jsonl")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(1 if any(statuses) else 0)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
