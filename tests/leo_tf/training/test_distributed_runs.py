"""Whole runs on two devices and in two processes are the run on one device."""

import json
import pathlib
import re
import shutil
import signal

import keras
import numpy as np
import pytest
from replica_jobs import (
    NUMBERS,
    RECIPE,
    assert_steps_equal,
    finished,
    free_ports,
    pictures,
    start_job,
)
from saved_runs import results_of, values_of

from leo_tf.embedding import pretraining
from leo_tf.embedding.backbones import BACKBONE_FILE
from leo_tf.runs.checkpoints import Checkpoints

# Time for three processes to load TensorFlow and train.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(small_flags, tmp_path_factory):
    """Directory and processes of each job. All jobs run at once."""
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


@pytest.fixture(scope="module")
def devices(jobs) -> pathlib.Path:
    """Run directory of a training on two devices of one process."""
    return finished(*jobs["devices"])


@pytest.fixture(scope="module")
def workers(jobs) -> pathlib.Path:
    """Run directory of a training by two workers."""
    return finished(*jobs["workers"])


def statuses_of(directory: pathlib.Path) -> dict[str, int]:
    return json.loads((directory / "statuses.json").read_text())


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory) -> pathlib.Path:
    """The same training on one device."""
    directory = tmp_path_factory.mktemp("alone")
    assert train(directory, "--dtype=float64", "--quiet") == 0
    return directory


@pytest.mark.parametrize(
    ("case", "tolerance"), [("maml", 1e-12), ("float32", 3e-5), ("compiled", 1e-10)]
)
def test_two_replicas_update_as_one_device_does(devices, case, tolerance):
    assert_steps_equal(devices, case, tolerance)


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


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    directory = tmp_path_factory.mktemp("backbones")
    finished(directory, [start_job("pretrain", directory, [])])
    pretraining.pretrain(*pictures(46), RECIPE, directory / "alone")

    def weights(name):
        return keras.models.load_model(directory / name / BACKBONE_FILE).get_weights()

    return weights


def test_two_devices_pre_train_the_backbone_of_one(backbones):
    for mine, theirs in zip(backbones("whole"), backbones("alone"), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_pre_training_on_two_devices_resumes_to_the_bit(backbones):
    for mine, theirs in zip(backbones("parts"), backbones("whole"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_pictures_that_cannot_be_divided_evenly_spoil_nothing(backbones):
    assert all(np.isfinite(values).all() for values in backbones("odd"))


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
        assert numbers.tobytes() == NUMBERS.tobytes()


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
