"""Worker processes: dead ones are restarted, hung ones ended, all stop on request.

The workers here are without TensorFlow: see `fake_worker`.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import fake_worker
import psutil
import pytest

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.errors import CheckpointError, FlagError, InputError, Stopped, WorkerError
from leo_tf.experiments.runner import engines, local, machines, worker
from leo_tf.experiments.runner.engines import Engine, train_all
from leo_tf.experiments.runner.local import LocalRunner
from leo_tf.experiments.runner.tasks import Sign, Task, as_dict, from_dict
from leo_tf.runs.manifest import UnreadableError

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch):
    monkeypatch.setattr(local, "COMMAND", (sys.executable, fake_worker.__file__))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as users have it


def tasks(directory, *names) -> list[Task]:
    return [Task(n, str(directory / n), {}, "", "", "", {}, steps=10) for n in names]


@contextlib.contextmanager
def running(directory, jobs=2):
    runner = LocalRunner(
        [{"SLOT": str(slot)} for slot in range(jobs)], directory / "logs"
    )
    try:
        yield runner
    finally:
        runner.close()


def train(directory, *names, jobs=2):
    with running(directory, jobs) as runner:
        return train_all(runner, tasks(directory, *names), Console(quiet=True))


def starts(directory: pathlib.Path) -> int:
    return len(list(directory.glob("start_*")))


def test_a_run_that_fails_or_whose_worker_dies_takes_no_other_with_it(tmp_path, capsys):
    names = "quick", "dies-2", "fails", "long-dead/dies-9", "torn", "last/quick"
    found = train(tmp_path, *names)
    assert list(found) != [] and set(found) == set(names)
    assert found["quick"] is None and found["last/quick"] is None
    assert found["dies-2"] is None and starts(tmp_path / "dies-2") == 3
    assert isinstance(found["fails"], InputError) and found["fails"].hint == "Mend it."
    for name in ("long-dead/dies-9", "torn"):
        error = found[name]
        assert isinstance(error, WorkerError) and error.where == name
        assert "signal 9" in error.received and str(tmp_path / "logs") in error.hint
        assert starts(tmp_path / name) == 4, "once, and thrice again"
    said = capsys.readouterr().err
    assert "dies-2: its worker ended (signal 9); resuming from its last" in said
    assert "noise of a library" in (tmp_path / "logs" / "0.log").read_text()


def test_a_worker_without_a_sign_of_life_is_ended_and_its_run_started_again(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local, "HUNG_SECONDS", 3.0)
    monkeypatch.setattr(local, "_READ_SECONDS", 0.0)
    found = train(tmp_path, "hangs-1", "talks")  # however many signs others send
    assert found == {"hangs-1": None, "talks": None}
    assert starts(tmp_path / "hangs-1") == 2
    assert "its worker ended (no sign of life for 3 s)" in capsys.readouterr().err


def wait_for(*paths: pathlib.Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_stops_all_runs_and_each_is_saved(tmp_path):
    def stop():
        wait_for(tmp_path / "a/long/ready", tmp_path / "b/long/ready")
        os.kill(os.getpid(), signal.SIGINT)

    names = "a/long", "b/long", "waiting/quick"
    with running(tmp_path) as runner:
        threading.Thread(target=stop).start()
        with pytest.raises(Stopped) as stopped:
            train_all(runner, tasks(tmp_path, *names), Console(quiet=True))
    assert stopped.value.signal == signal.SIGINT
    for name in names[:2]:
        assert (tmp_path / name / "saved").exists() and starts(tmp_path / name) == 1
    assert not (tmp_path / "waiting").exists(), "it was not begun"


def test_a_signal_to_all_processes_at_once_ends_no_run_unsaved(tmp_path):
    # As systemd and Slurm send it; then this process asks the worker, too.
    with running(tmp_path, jobs=1) as runner:
        runner.submit(tasks(tmp_path, "long")[0])
        wait_for(tmp_path / "long" / "ready")
        os.kill(int((tmp_path / "long" / "start_0").read_text()), signal.SIGTERM)
        time.sleep(0.1)
        runner.cancel()
        while (sign := runner.watch(1.0)) is None or not sign.has_ended:
            pass
    assert isinstance(sign.outcome, Stopped)
    assert (tmp_path / "long" / "saved").exists() and starts(tmp_path / "long") == 1


def test_a_signal_while_there_is_nothing_to_save_stops_too_and_starts_nothing(tmp_path):
    with running(tmp_path, jobs=1) as runner:
        runner.submit(tasks(tmp_path, "stops")[0])
        signs = []
        while not signs or not signs[-1].has_ended:
            if (sign := runner.watch(1.0)) is not None:
                signs.append(sign)
    assert isinstance(signs[-1].outcome, Stopped) and starts(tmp_path / "stops") == 1
    assert not any(sign.is_warning for sign in signs)


def test_output_that_is_no_sign_is_passed_over(tmp_path, monkeypatch):
    code = "print('of a sitecustomize', flush=True); import runpy; "
    code += f"runpy.run_path({fake_worker.__file__!r}, run_name='__main__')"
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-c", code))
    assert train(tmp_path, "quick", "torn")["quick"] is None


def test_a_worker_that_cannot_be_started_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "COMMAND", ("/nothing here",))
    error = train(tmp_path, "quick")["quick"]
    assert isinstance(error, WorkerError) and error.expected == "a worker to train it"
    assert "nothing here" in error.received


@pytest.mark.parametrize("computes", [True, False])
def test_a_run_that_computes_gives_signs_whatever_it_reports(computes, monkeypatch):
    signs: list[Sign] = []

    def train(task, console):
        end = time.monotonic() + (60 if computes else 0.6)
        while time.monotonic() < end and not signs:
            time.sleep(0 if computes else 0.01)

    monkeypatch.setattr(worker, "_train", train)
    monkeypatch.setattr(worker, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(worker, "_LEAST_CPU_SECONDS", 0.005)
    ended = worker.work(tasks(pathlib.Path(), "a")[0], signs.append)
    assert ended.has_ended and ended.error is None
    assert set(signs) == ({Sign("a")} if computes else set())


def test_only_steps_of_training_are_told_as_steps(monkeypatch):
    def train(task, console):
        with console.progress("train", 10, 4) as line:
            line.advance(6, "step 10")
        with console.progress("test", 20, unit="episodes") as line:
            now[0] += 5
            line.advance(10)

    signs, now = list[Sign](), [1000.0]
    monkeypatch.setattr(worker, "_train", train)
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    worker.work(tasks(pathlib.Path(), "a")[0], signs.append)
    test = Sign("a", "test 10/20  2.0 episodes/s  0:05 left")
    assert signs == [Sign("a", "step 10", 10, 10), test]


@pytest.mark.parametrize("fails", [False, True])
def test_a_full_disk_of_the_logs_ends_no_run(fails, monkeypatch):
    def train(task, console):
        console.say("said")
        console.warn("warned")
        with console.progress("training", 10) as line:
            line.note("noted")
            line.warn("warned of")
        if fails:
            raise ValueError("not of the disk")

    signs: list[Sign] = []
    monkeypatch.setattr(worker, "_train", train)
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115, closing it fails
    monkeypatch.setattr(sys, "stderr", full)
    ended = worker.work(tasks(pathlib.Path(), "a")[0], signs.append)
    with contextlib.suppress(OSError):
        full.close()
    assert [s.text for s in signs] == ["said", "warned", "noted", "warned of"]
    assert ("not of the disk" in str(ended.outcome)) == fails
    assert (ended.outcome is None) != fails


def test_the_longest_runs_begin_first_but_for_those_without_training(tmp_path):
    of = {"a": (10, 1.0), "b": (10, 3.0), "c": (0, 9.0), "d": (20, 1.0)}
    sized = [
        task._replace(steps=steps, step_cost=cost)
        for task, (steps, cost) in zip(tasks(tmp_path, *of), of.values())
    ]
    begun = []
    with running(tmp_path) as runner:
        submit = runner.submit
        runner.submit = lambda task: (begun.append(task.name), submit(task))
        train_all(runner, sized, Console(quiet=True))
    assert begun == ["c", "b", "d", "a"]


def test_what_the_results_need_is_loaded_while_workers_train(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "leo_tf.model.leo", None)  # it cannot be loaded
    with running(tmp_path) as runner:
        [task] = tasks(tmp_path, "quick")
        for each in (task, task._replace(to_test=True, steps=0)):
            train_all(runner, [each], Console(quiet=True))
        with pytest.raises(ImportError):
            train_all(runner, [task._replace(to_test=True)], Console(quiet=True))
        while (sign := runner.watch(1.0)) is None or not sign.has_ended:
            pass  # it was begun


def test_a_worker_is_not_ended_for_signs_that_are_still_to_be_read(
    tmp_path, monkeypatch
):
    with running(tmp_path, jobs=1) as runner:
        runner.submit(tasks(tmp_path, "talks")[0])
        while runner.watch(1.0) is None:
            pass
        [process] = runner._workers.values()
        process.seen -= 2 * local.HUNG_SECONDS  # this process was stopped for so long
        while not (sign := runner.watch(1.0) or Sign("")).has_ended:
            pass
    assert sign.error is None and starts(tmp_path / "talks") == 1


def test_a_worker_saves_its_run_and_ends_when_its_driver_was_killed(tmp_path):
    code = f"""
import pathlib, sys
sys.path[:0] = {sys.path!r}
from leo_tf.experiments.runner import local
from leo_tf.experiments.runner.tasks import Task
local.COMMAND = (sys.executable, {fake_worker.__file__!r})
runner = local.LocalRunner([{{}}], pathlib.Path({str(tmp_path / "logs")!r}))
runner.submit(Task("long", {str(tmp_path / "long")!r}, {{}}, "", "", "", {{}}))
while True:
    runner.watch(1.0)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as driver:
        wait_for(tmp_path / "long" / "ready")
        driver.kill()
    wait_for(tmp_path / "long" / "saved")
    wait_for_end([int((tmp_path / "long" / "start_0").read_text())])


@pytest.mark.parametrize("line", [b'["torn', b'["of", "other code"]\n'])
@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_though_its_driver_was_killed_while_it_wrote_to_it(
    busy, line, tmp_path
):
    [task] = tasks(tmp_path, "long")
    lines = json.dumps(task._replace(log=os.devnull)).encode() + b"\n" if busy else b""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    lines = lines.replace(os.devnull.encode(), str(tmp_path / "log").encode())
    with subprocess.Popen(local.COMMAND, **pipes) as process:
        process.stdout.close()
        process.stdin.write(lines)
        process.stdin.flush()
        if busy:
            wait_for(tmp_path / "long" / "ready")
        process.stdin.write(line)
        process.stdin.close()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
        said = process.stderr.read().decode()
    assert (tmp_path / "long" / "saved").exists() == busy
    said += (tmp_path / "log").read_text() if busy else ""
    assert "Traceback" not in said and "BrokenPipe" not in said


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_early_workers_end_though_their_driver_was_killed_and_they_still_load(tmp_path):
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from leo_tf.experiments.runner import local
local.COMMAND = (sys.executable, {fake_worker.__file__!r})
with local.started_early(2, 1):
    print(*(each._process.pid for each in local._waiting), flush=True)
    time.sleep(600)
"""
    options = {"env": {**os.environ, "LOADING": "600"}, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **options) as driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        driver.kill()
    assert len(pids) == 2
    wait_for_end(pids)


def test_a_job_takes_the_workers_that_were_started_early_and_ends_the_rest(
    tmp_path, children
):
    with local.started_early(3, 1):
        early = {each._process.pid for each in local._waiting}
        with running(tmp_path, jobs=2) as runner:
            assert len(children()) == 2
            jobs = tasks(tmp_path, "0/talks", "1/talks")  # so long that both have one
            assert set(train_all(runner, jobs, Console(quiet=True)).values()) == {None}
        assert {int((tmp_path / n / "talks/start_0").read_text()) for n in "01"} < early
        assert {(tmp_path / n / "talks/slot").read_text() for n in "01"} == {"0", "1"}
        for slot in "01":
            log = (tmp_path / "logs" / f"{slot}.log").read_text()
            assert "noise of a library" in log
    assert children() == []


def test_workers_that_a_job_of_few_runs_does_not_need_end_while_it_trains(tmp_path):
    def alive():
        return [each._process.pid for each in runner._workers.values()]

    with local.started_early(3, 1), running(tmp_path, jobs=4) as runner:
        needed, *others = alive()
        counts, watch = [], runner.watch
        runner.watch = lambda seconds: (counts.append(alive()), watch(seconds))[1]
        for name in ("0/talks", "1/quick"):  # the second is of a later rung
            assert train_all(runner, tasks(tmp_path, name), Console(quiet=True)) == {
                name: None
            }
            assert (tmp_path / name / "start_0").read_text() == str(needed)
        assert all(each == [needed] for each in counts)
        assert not any(psutil.pid_exists(pid) for pid in others)


def test_workers_end_without_unloading_anything(tmp_path, monkeypatch, children):
    monkeypatch.setenv("TORN_DOWN", str(tmp_path / "torn_down"))
    train(tmp_path, "quick", jobs=1)
    assert children() == []
    assert not (tmp_path / "torn_down").exists()


def test_two_hundred_runs_leave_the_drivers_memory_and_descriptors_as_they_were(
    tmp_path,
):
    mine = psutil.Process()
    with running(tmp_path) as runner:
        names = [f"{number}/quick" for number in range(200)]
        train_all(runner, tasks(tmp_path, *names[:20]), Console(quiet=True))
        before = mine.num_fds(), mine.num_threads(), mine.memory_info().rss
        train_all(runner, tasks(tmp_path, *names[20:]), Console(quiet=True))
        after = mine.num_fds(), mine.num_threads(), mine.memory_info().rss
    assert after[0] <= before[0] and after[1] <= before[1]
    assert after[2] - before[2] < 8 * 2**20
    pids = {(tmp_path / name / "start_0").read_text() for name in names}
    assert len(pids) == 2, "a process does one run after the other"


def test_workers_listen_on_no_socket(tmp_path):
    with running(tmp_path, jobs=1) as runner:
        runner.submit(tasks(tmp_path, "long")[0])
        wait_for(tmp_path / "long" / "ready")
        pid = int((tmp_path / "long" / "start_0").read_text())
        for process in (psutil.Process(), psutil.Process(pid)):
            assert [c for c in process.net_connections() if c.status == "LISTEN"] == []


def test_an_error_goes_to_json_and_comes_back_whole():
    error = InputError("here", "this", "that", "Mend it.")
    again = from_dict(as_dict(error))
    assert type(again) is InputError and str(again) == str(error)
    assert from_dict(as_dict(Stopped(2))).signal == 2
    unreadable = from_dict(as_dict(UnreadableError("a", "b", "c")))
    assert type(unreadable) is CheckpointError  # its exit status is that


@pytest.mark.parametrize(
    ("gpus", "share", "expected"),
    [
        ([], 0.0, ["", "", "", ""]),
        (["0"], 0.25, ["0", "0", "0", "0"]),
        (["4", "7"], 0.5, ["4", "4", "7", "7"]),
        (["0", "1", "2", "3"], 1.0, ["0", "1", "2", "3"]),
        (["0", "1", "2", "3"], 2.0, ["0,1", "2,3", "0,1", "2,3"]),
        (["0", "1"], 0.7, ["0", "1", "0", "1"]),
        (["0", "1"], 0.3, ["0", "0", "0", "1"]),
    ],
)
def test_each_worker_has_its_gpus(gpus, share, expected):
    found = [engines._gpu_of(slot, gpus, share) for slot in range(4)]
    assert [each.get("CUDA_VISIBLE_DEVICES", "") for each in found] == expected
    assert all(each["TF_FORCE_GPU_ALLOW_GROWTH"] == "true" for each in found if gpus)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"jobs": -1}, "--jobs"),
        ({"run_cpus": 0}, "--run_cpus"),
        ({"run_gpus": 0.0}, "--run_gpus"),
        ({"run_gpus": 1.5}, "--run_gpus"),
        ({"jobs": 2, "cluster": "auto"}, "--jobs"),
        ({"jobs": 0, "run_cpus": 2}, "--run_cpus: expected none with --jobs=0"),
        ({"jobs": 0, "run_gpus": 1.0}, "--run_gpus: expected none with --jobs=0"),
    ],
)
def test_what_makes_no_sense_of_an_engine_is_refused(settings, where):
    with pytest.raises(ValueError, match=where):
        Engine(**settings)


@pytest.mark.parametrize(("share", "expected"), [(0.3, 6), (0.7, 2), (1.0, 2), (2, 1)])
def test_so_many_run_at_a_time_as_fit_on_the_gpus(share, expected):
    assert engines._places_on(["0", "1"], share) == expected


@pytest.mark.parametrize("jobs", [1, None])
def test_a_run_on_all_devices_has_all_gpus(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_gpus", lambda: ["0", "1"])
    config = Config().replace(strategy="mirrored")
    runner = Engine(jobs).start(config, tmp_path, Console(quiet=True))
    runner.close()
    assert [e["CUDA_VISIBLE_DEVICES"] for e in runner._environment] == ["0,1"]


def test_more_gpus_than_there_are_and_a_missing_ray_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(engines, "_gpus", list)
    with pytest.raises(FlagError, match="--run_gpus: expected none: no GPU is here"):
        Engine(1, run_gpus=1).check(Config())
    with pytest.raises(FlagError, match="--run_gpus: expected none with --strategy"):
        Engine(1, run_gpus=0.5).check(Config().replace(strategy="mirrored"))
    monkeypatch.setattr(machines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlagError, match="--cluster: expected the package ray"):
        Engine(0, "auto").check(Config())


@pytest.mark.parametrize("jobs", [1, 2, None])
def test_the_threads_of_a_run_do_not_depend_on_how_many_there_are_at_a_time(
    jobs, tmp_path, monkeypatch
):
    monkeypatch.setattr(engines, "_gpus", list)
    monkeypatch.setattr(engines, "cores", lambda: 7)
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    runner = Engine(jobs, run_cpus=2).start(Config(), tmp_path, Console(quiet=True))
    runner.close()
    places = runner._environment
    assert len(places) == (jobs or 3) and places.count(places[0]) == len(places)
    for name in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        assert places[0][name] == "2"
    assert str(tmp_path / "shared" / "xla") in places[0]["TF_XLA_FLAGS"]
