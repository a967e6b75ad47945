"""The writer of event files: data can be read back, and failures stop no run."""

import argparse
import logging
import math
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from event_files import hyperparameter_events, picture, read
from saved_runs import manifest_of, values_of
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import (
    EventMultiplexer,
)
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context

from leo_tf.monitoring.event_writer import EventWriter


def test_each_run_has_a_directory_of_its_own_so_that_curves_share_a_chart(tmp_path):
    monitor = EventWriter(tmp_path)
    monitor.scalars("train", 3, {"group/loss": 0.5})
    monitor.scalars("validation", 3, {"group/loss": 0.25})
    monitor.scalars("train", 4, {"group/loss": 0.125, "group/other": 7.0})
    assert read(tmp_path / "train") == {
        "group/loss": {3: 0.5, 4: 0.125},
        "group/other": {4: 7.0},
    }
    assert read(tmp_path / "validation") == {"group/loss": {3: 0.25}}


def test_a_histogram_counts_every_finite_entry_once(tmp_path):
    values = np.array([[0.0, 1.0, 1.0], [29.0, math.nan, math.inf]], np.float32)
    EventWriter(tmp_path).histograms("train", 1, {"kernel": values})
    buckets = read(tmp_path / "train")["kernel"][1]  # [30, (left, right, count)]
    assert buckets.shape == (30, 3) and buckets[:, 2].sum() == 4
    assert buckets[0, 0] == 0.0 and buckets[-1, 1] == 29.0
    np.testing.assert_allclose(buckets[1:, 0], buckets[:-1, 1])
    assert buckets[0, 2] == 1 and buckets[1, 2] == 2 and buckets[-1, 2] == 1


@pytest.mark.parametrize("constant", [0.0, 0.001, -5.0])
def test_a_constant_array_is_a_narrow_spike_around_it(tmp_path, constant):
    EventWriter(tmp_path).histograms("train", 1, {"rate": np.full([7], constant)})
    buckets = read(tmp_path / "train")["rate"][1]
    [bucket] = buckets[buckets[:, 2] > 0]
    assert bucket[0] <= constant <= bucket[1] and bucket[2] == 7
    if constant:
        assert buckets[-1, 1] - buckets[0, 0] < 0.01 * abs(constant)


def test_values_that_are_not_finite_break_nothing(tmp_path, caplog):
    monitor = EventWriter(tmp_path)
    monitor.scalars("train", 1, {"loss": math.nan, "other": math.inf})
    monitor.histograms("train", 1, {"kernel": np.full([3], math.nan)})
    monitor.scalars("train", 2, {"loss": 0.75})
    assert not caplog.records
    events = read(tmp_path / "train")
    assert "kernel" not in events and events["loss"][2] == 0.75
    assert math.isnan(events["loss"][1]) and math.isinf(events["other"][1])


def test_a_picture_comes_back_as_it_was_drawn(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, [5, 7, 3]).astype(np.uint8)
    EventWriter(tmp_path).images("validation", 9, {"pictures/episode": drawn})
    shown = read(tmp_path / "validation")["pictures/episode"][9]
    np.testing.assert_array_equal(picture(shown), drawn)


def test_hyperparameters_name_values_and_the_scalars_to_compare_by(tmp_path):
    metrics = {"accuracy at its best": ("validation", "group/best")}
    values = {"way": 5, "outer_lr": 0.5, "method": "leo", "train_on_val": True}
    EventWriter(tmp_path).hyperparameters("a run", values, metrics)
    events = hyperparameter_events(tmp_path)
    experiment = events["_hparams_/experiment"].experiment
    [metric] = experiment.metric_infos
    assert (metric.name.group, metric.name.tag) == ("validation", "group/best")
    assert metric.display_name == "accuracy at its best"
    assert [info.name for info in experiment.hparam_infos] == list(values)
    shown = events["_hparams_/session_start_info"].session_start_info.hparams
    assert shown["way"].number_value == 5 and shown["outer_lr"].number_value == 0.5
    assert shown["method"].string_value == "leo"
    assert shown["train_on_val"].bool_value is True


def test_the_table_of_runs_begins_with_what_tells_them_apart(tmp_path):
    values = {name: 1 for name in "zabc"}
    EventWriter(tmp_path).hyperparameters("mine (runs)", values, {}, first={"z"})
    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    flags = argparse.Namespace(generic_data="true")
    provider = MultiplexerDataProvider(events, str(tmp_path))
    board = TBContext(flags=flags, data_provider=provider, multiplexer=events)
    context, nothing = Context(board), RequestContext()
    runs = context.hparams_metadata(nothing, "")
    table = context.experiment_from_metadata(nothing, "", True, runs, [])
    assert [info.name for info in table.hparam_infos] == ["z", "a", "b", "c"]
    started = hyperparameter_events(tmp_path)["_hparams_/session_start_info"]
    assert started.session_start_info.group_name == "mine (runs)"


def test_what_was_shown_is_on_the_disk_while_the_writer_is_open(tmp_path):
    monitor = EventWriter(tmp_path)
    monitor.scalars("train", 1, {"loss": 2.0})
    monitor.texts({"command_line": "    python run_leo.py"})
    assert read(tmp_path / "train")["loss"] == {1: 2.0}
    assert read(tmp_path)["command_line"][0] == b"    python run_leo.py"


def use(monitor):
    for step in (1, 2, 3):
        monitor.scalars("train", step, {"loss": 2.0})
        monitor.histograms("train", step, {"kernel": np.arange(3.0)})
        monitor.images("validation", step, {"picture": np.zeros([2, 2, 3], np.uint8)})
        monitor.texts({"text": "text"})
        monitor.hyperparameters("a run", {"way": 5}, {})


def test_where_no_event_file_can_be_made_it_warns_once_and_goes_on(tmp_path, caplog):
    (tmp_path / "events").write_text("a file where the directory should be")
    with caplog.at_level(logging.WARNING):
        use(EventWriter(tmp_path / "events"))
    [warning] = caplog.records
    assert "TensorBoard gets no more data from this run" in warning.getMessage()


def test_a_file_that_may_not_grow_costs_the_events_and_not_the_run(tmp_path, caplog):
    monitor = EventWriter(tmp_path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for step in (1, 2, 3):
            monitor.histograms(
                "train", step, {str(i): np.arange(9.0) for i in range(9)}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    [warning] = caplog.records
    assert "TensorBoard gets no more data" in warning.getMessage()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
    ],
)
def test_a_disk_that_fills_up_costs_the_events_and_not_the_run(
    tmp_path, caplog, monkeypatch, error
):
    monitor = EventWriter(tmp_path)
    monitor.scalars("train", 1, {"loss": 2.0})

    def fail(*unused, **unused_options):
        raise error

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(tf.io.TFRecordWriter, "write", fail)
        use(monitor)
    use(monitor)  # space again, but a curve with a gap would mislead
    [warning] = caplog.records
    assert "No space left on device" in warning.getMessage()
    assert read(tmp_path / "train") == {"loss": {1: 2.0}}


def test_text_that_is_no_utf8_costs_the_events_and_not_the_run(tmp_path, caplog):
    monitor = EventWriter(tmp_path)
    with caplog.at_level(logging.WARNING):
        monitor.texts({"command_line": "python \udcff/run_leo.py"})
        use(monitor)
    [warning] = caplog.records
    assert "TensorBoard gets no more data" in warning.getMessage()


@pytest.mark.usefixtures("quick_job")
def test_a_run_goes_on_where_it_can_show_nothing(trained_copy, train):
    shutil.rmtree(trained_copy / "events")
    (trained_copy / "events").write_text("in the way")
    assert train(trained_copy, "--num_steps=13", "--quiet") == 0
    assert (trained_copy / "checkpoints" / "step-00000013").is_dir()


@pytest.mark.usefixtures("quick_job")
def test_how_often_a_run_is_shown_changes_none_of_its_bits(train, tmp_path):
    runs = [tmp_path / "often", tmp_path / "seldom"]
    for run, log_every in zip(runs, (1, 3)):
        flags = "--num_steps=4", "--validate_every=2", f"--log_every={log_every}"
        assert train(run, *flags, "--quiet") == 0
    mine, other = (values_of(run, 4) for run in runs)
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value, other[name])
    mine, other = (manifest_of(run, 4)["progress"] for run in runs)
    for record, its in zip(mine["history"], other["history"], strict=True):
        assert record["val_accuracy"] == its["val_accuracy"]


def test_curves_are_scalars_for_readers_of_event_files_too(tmp_path):
    EventWriter(tmp_path).scalars("train", 3, {"group/loss": 0.5})
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("group/loss")] == [(3, 0.5)]
