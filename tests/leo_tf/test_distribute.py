"""Training on several devices and in several processes computes what one device does.

Shapes: B tasks in the meta-batch.
"""

import functools
import json
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
import replica_jobs
import tensorflow as tf
from replica_jobs import free_ports, start_job
from saved_runs import results_of, values_of

from leo_tf import noise as noise_lib
from leo_tf.checkpoints import Checkpoints
from leo_tf.distribute import Replicas

# Eight processes of TensorFlow: minutes on two cores.
pytestmark = pytest.mark.slow

TIME_LIMIT = 240.0  # on a loaded machine; seconds


@pytest.fixture(scope="module")
def jobs(small_flags, tmp_path_factory):
    """Directory and processes of each job, all at work at once."""
    flags = [*small_flags, "--dtype=float64"]
    devices, workers = (
        tmp_path_factory.mktemp(name) for name in ("devices", "workers")
    )
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = ({"type": "worker", "index": index} for index in range(2))
    configs = (json.dumps({"cluster": cluster, "task": task}) for task in tasks)
    started = {
        "devices": (devices, [start_job("devices", devices, flags)]),
        "workers": (
            workers,
            [start_job("worker", workers, flags, TF_CONFIG=c) for c in configs],
        ),
    }
    yield started
    for _, processes in started.values():
        for process in processes:
            process.kill()


def finished(job) -> pathlib.Path:
    """What a job left, after its last process has ended."""
    directory, processes = job
    for process in processes:
        process.wait(TIME_LIMIT)
    return directory


@pytest.fixture(scope="module")
def devices(jobs) -> pathlib.Path:
    """What training on two devices of one process left behind."""
    return finished(jobs["devices"])


@pytest.fixture(scope="module")
def workers(jobs) -> pathlib.Path:
    """What two workers left behind."""
    return finished(jobs["workers"])


def statuses_of(directory: pathlib.Path) -> dict[str, int]:
    return json.loads((directory / "statuses.json").read_text())


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory) -> pathlib.Path:
    """The same training on one device."""
    directory = tmp_path_factory.mktemp("alone")
    assert train(directory, "--dtype=float64", "--quiet") == 0
    return directory


@functools.cache
def steps_alone(dtype, method):
    return replica_jobs.train_steps(Replicas(), dtype, method, jit=False)


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [("float64", 1e-12), ("maml", 1e-12), ("float32", 1e-6), ("compiled", 1e-10)],
)
def test_two_replicas_update_as_one_device_does(devices, case, tolerance):
    dtype, method, _ = replica_jobs.CASES[case]
    mine, theirs = steps_alone(dtype, method), np.load(devices / f"{case}.npz")
    assert set(theirs.files) == set(mine) and len(mine) > 20
    spoiled = [name for name in mine if name.startswith("non_finite") and mine[name]]
    assert spoiled == ["non_finite of step 3"]
    for name, value in mine.items():
        scale = np.max(np.abs(value))
        limit = tolerance * scale if np.isfinite(scale) else 0.0
        np.testing.assert_allclose(
            theirs[name], value, rtol=tolerance, atol=limit, err_msg=name
        )


def assert_equal_values(mine, theirs, tolerance):
    assert mine.keys() == theirs.keys() and len(mine) > 20
    for name, value in theirs.items():
        limit = tolerance * np.max(np.abs(value))
        np.testing.assert_allclose(mine[name], value, 0, limit, err_msg=name)


def test_a_run_on_two_devices_is_the_run_on_one(devices, alone):
    assert_equal_values(values_of(devices / "whole", 12), values_of(alone, 12), 1e-12)


def test_a_run_of_two_workers_is_the_run_on_one(workers, alone):
    chief = workers / "worker 0"
    assert_equal_values(values_of(chief / "whole", 12), values_of(alone, 12), 1e-12)
    accuracies = [results_of(run)["accuracy"] for run in (chief / "whole", alone)]
    assert accuracies[0]["leo"]["mean"] == accuracies[1]["leo"]["mean"]


@pytest.mark.parametrize("job", ["devices", "workers"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(job, request):
    directory = request.getfixturevalue(job)
    directory = directory / "worker 0" if job == "workers" else directory
    whole, parts = (values_of(directory / run, 12) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, strict=True, err_msg=name)


def test_one_device_tests_what_two_have_trained(devices, evaluate, capsys):
    capsys.readouterr()
    assert evaluate(devices / "whole", "--quiet") == 0
    mean = results_of(devices / "whole")["accuracy"]["leo"]["mean"]
    assert f"{100 * mean:.2f} ±" in capsys.readouterr().out


def test_one_device_goes_on_where_two_have_stopped_if_allowed(
    devices, alone, train, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(devices / "parts", run)
    for step in (10, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    assert train(run, "--dtype=float64", "--quiet") == 3
    assert "strategy" in capsys.readouterr().err
    assert train(run, "--dtype=float64", "--allow_changes", "--quiet") == 0
    assert_equal_values(values_of(run, 12), values_of(alone, 12), 1e-12)


def test_only_the_chief_reads_and_writes(workers):
    names = {path.name for path in (workers / "worker 1").iterdir()}
    assert names - {"process"} == {"numbers.npy", "statuses.json"}


def test_all_workers_get_the_chiefs_numbers_bit_for_bit(workers):
    for number in range(2):
        numbers = np.load(workers / f"worker {number}" / "numbers.npy")
        assert numbers.tobytes() == replica_jobs.NUMBERS.tobytes()


def test_a_signal_to_one_worker_saves_and_stops_all(workers):
    for number in range(2):
        status = statuses_of(workers / f"worker {number}")["stopped"]
        assert status == 128 + signal.SIGTERM
    stopped = workers / "worker 0" / "stopped"
    newest = Checkpoints(stopped).newest(pytest.fail)
    assert newest.step > 5 and not (stopped / "results.json").exists()


def test_sigterm_ends_a_worker_that_has_not_begun_to_train(workers):
    path = workers / "worker 1" / "process"
    if not path.exists():
        pytest.skip("only Linux says which signals a process catches")
    [caught] = re.findall(r"SigCgt:\s*(\w+)", path.read_text())
    assert not int(caught, 16) >> (signal.SIGTERM - 1) & 1


def test_a_worker_that_dies_ends_the_others_with_one_line(workers):
    assert statuses_of(workers / "worker 0")["left"] == 7
    lines = (workers / "errors0").read_text().splitlines()
    assert sum("2 workers until the end" in line for line in lines) == 1
    assert not any(line.startswith("Traceback") for line in lines)


def test_workers_of_other_flags_are_refused_on_all(workers):
    for number in range(2):
        assert statuses_of(workers / f"worker {number}")["other flags"] == 2


def test_a_meta_batch_that_cannot_be_split_is_refused(devices):
    assert statuses_of(devices)["odd"] == 2
    assert not (devices / "odd").exists()


def test_a_method_that_is_not_trained_has_no_replicas(train, tmp_path, capsys):
    flags = ["--method=centroid", "--strategy=mirrored", "--quiet"]
    assert train(tmp_path / "run", *flags) == 2
    assert capsys.readouterr().err.startswith("error: --strategy: expected none with")


def test_workers_need_to_know_of_each_other(train, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert train(tmp_path / "run", "--strategy=multi_worker", "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: TF_CONFIG: expected") and not captured.out
    assert captured.err.count("\n") == 1 and not list(tmp_path.iterdir())


def draw(tasks: int, first_task=0):
    shapes = [tasks, 3, 2, 7], [tasks, 3, 4, 7]
    options = {"dtype": tf.float32, "dropout_rate": 0.3, "first_task": first_task}
    return noise_lib.draw(*shapes, 5, 2, 1, seed=5, step=9, **options)


def test_a_part_of_the_meta_batch_draws_its_own_rows_of_the_whole():
    whole = tf.nest.flatten(draw(6))
    for first, last in ((0, 2), (2, 6)):
        part = tf.nest.flatten(draw(last - first, tf.constant(first)))
        assert len(part) == len(whole)
        for mine, all_tasks in zip(part, whole):
            np.testing.assert_array_equal(mine, all_tasks[first:last], strict=True)


def test_the_place_in_the_meta_batch_compiles_no_draw_anew():
    draw(4)
    functions = noise_lib._normals, noise_lib._masks
    counts = [each.experimental_get_tracing_count() for each in functions]
    for first_task in (0, 1, tf.constant(8), tf.constant(9, tf.int64)):
        draw(4, first_task)
    assert [each.experimental_get_tracing_count() for each in functions] == counts
