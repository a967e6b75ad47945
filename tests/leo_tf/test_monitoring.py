"""What TensorBoard is shown, read back with TensorBoard's own reader."""

import logging
import math
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from saved_runs import manifest_of, values_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from leo_tf.monitoring import Monitor

VARIABLES = {
    "encoder/kernel",
    "relation_network/kernel_0",
    "relation_network/kernel_1",
    "relation_network/kernel_2",
    "decoder/kernel",
    "inner_lr",
    "finetuning_lr",
}


def read(directory) -> dict[str, dict[int, np.ndarray]]:
    """tag -> step -> value, of every event file below a directory."""
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: {
            event.step: make_ndarray(event.tensor_proto)
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


def under(events, group) -> set[str]:
    return {
        tag.removeprefix(f"{group}/") for tag in events if tag.startswith(f"{group}/")
    }


def test_a_run_shows_every_promised_signal_and_no_other(trained):
    events = read(trained / "events")
    assert under(events, "accuracy") == {"train", "validation"}
    assert under(events, "loss") == {"train", "validation"}
    assert under(events, "loss_parts") == {
        "query",
        "kl",
        "encoder",
        "l2",
        "orthogonality",
    }
    assert under(events, "inner_loop") == {
        "support_loss_start",
        "support_loss_latent",
        "support_loss_end",
        "support_loss_drop",
        "latent_step",
        "stddev_floor_share",
    }
    for group in ("gradient_norm", "variables", "gradients"):
        assert under(events, group) == VARIABLES
    assert under(events, "learning_rate") == {"inner_lr", "finetuning_lr"}
    assert under(events, "optimisation") == {"non_finite_steps"}
    groups = {tag.split("/")[0] for tag in events}
    assert len(groups) == 9


def test_training_is_shown_at_its_interval_and_validation_at_its_own(trained):
    events = read(trained / "events")
    every_2, validated = [2, 4, 6, 8, 10, 12], [5, 10, 12]
    for tag, values in events.items():
        is_histogram = tag.startswith(("variables/", "gradients/"))
        at_validation = tag.endswith("/validation") or is_histogram
        assert list(values) == (validated if at_validation else every_2), tag


def test_shown_numbers_are_those_of_the_run(trained):
    events = read(trained / "events")
    history = manifest_of(trained, 12)["progress"]["history"]
    for record in history:
        step = record["step"]
        for tag, name in [("accuracy", "val_accuracy"), ("loss", "val_loss")]:
            shown = events[f"{tag}/validation"][step]
            assert shown == pytest.approx(record[name], rel=1e-6)
    # Steps 11 and 12 are a log interval and the last validation interval alike.
    assert events["loss/train"][12] == pytest.approx(history[-1]["train_loss"])
    parts = sum(
        events[f"loss_parts/{part}"][12] for part in under(events, "loss_parts")
    )
    assert parts == pytest.approx(events["loss/train"][12], rel=1e-5)


def test_histograms_and_rates_are_those_of_the_variables(trained):
    events = read(trained / "events")
    values = values_of(trained, 12)
    for name in VARIABLES:
        value = values[f"leo/{name}"]
        histogram = events[f"variables/{name}"][12]  # [buckets, (left, right, count)]
        assert histogram[:, 2].sum() == value.size
        assert histogram[0, 0] == pytest.approx(value.min(), rel=1e-5)
        assert histogram[-1, 1] == pytest.approx(value.max(), rel=1e-5)
        if name in under(events, "learning_rate"):
            shown = events[f"learning_rate/{name}"][12]
            assert shown == pytest.approx(value.mean(), rel=1e-5)


def test_gradient_histograms_are_of_gradients_not_of_variables(trained):
    events = read(trained / "events")
    for name in VARIABLES:
        gradients, variables = events[f"gradients/{name}"], events[f"variables/{name}"]
        assert gradients[12].any() and (gradients[12] != variables[12]).any()


SCALARS = {"learning_rates": {"inner_lr": 0.5}, "non_finite": 0}


def test_without_a_finite_step_there_is_no_mean_to_show(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.training(3, {}, **{**SCALARS, "non_finite": 3})
    monitor.validation(3, accuracy=0.5, loss=1.0, variables={}, gradients={})
    events = read(tmp_path)
    assert "loss/train" not in events
    assert events["optimisation/non_finite_steps"][3] == 3
    assert events["learning_rate/inner_lr"][3] == 0.5


def test_after_a_validation_everything_is_on_the_disk(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.training(
        1, {"loss": 2.0, "accuracy": 0.25, "loss_parts/kl": 3.0}, **SCALARS
    )
    monitor.validation(2, accuracy=0.5, loss=1.0, variables={}, gradients={})
    events = read(tmp_path)  # the writer is still open
    assert events["loss/train"] == {1: 2.0} and events["accuracy/train"] == {1: 0.25}
    assert events["loss_parts/kl"] == {1: 3.0}
    assert events["loss/validation"] == {2: 1.0}


def test_values_that_are_not_finite_break_nothing(tmp_path, caplog):
    monitor = Monitor(tmp_path)
    monitor.training(1, {"loss": math.nan}, **SCALARS)
    bad = {"kernel": tf.constant([math.nan, math.inf, 1.0])}
    monitor.validation(1, accuracy=0.5, loss=math.inf, variables=bad, gradients=bad)
    monitor.validation(2, accuracy=0.75, loss=1.0, variables={}, gradients={})
    assert not caplog.records
    assert read(tmp_path)["accuracy/validation"] == {1: 0.5, 2: 0.75}


def use(monitor):
    for step in (1, 2, 3):
        monitor.training(step, {"loss": 2.0}, **SCALARS)
        monitor.validation(step, accuracy=0.5, loss=1.0, variables={}, gradients={})


def test_where_no_event_file_can_be_made_it_warns_once_and_goes_on(tmp_path, caplog):
    (tmp_path / "events").write_text("a file where the directory should be")
    with caplog.at_level(logging.WARNING):
        use(Monitor(tmp_path / "events"))
    [warning] = caplog.records
    assert "TensorBoard gets nothing more from this run" in warning.getMessage()


def test_a_file_that_may_not_grow_costs_the_events_and_not_the_run(tmp_path, caplog):
    monitor = Monitor(tmp_path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    large = {"kernel": tf.random.stateless_normal([1000], [0, 0])}
    try:
        for step in (1, 2, 3):
            shown = {"variables": large, "gradients": large}
            monitor.validation(step, accuracy=0.5, loss=1.0, **shown)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    [warning] = caplog.records
    assert "TensorBoard gets nothing more" in warning.getMessage()


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
    monitor = Monitor(tmp_path)
    monitor.training(1, {"loss": 2.0}, **SCALARS)

    def fail(*unused, **unused_options):
        raise error

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(tf.summary, "scalar", fail)
        use(monitor)
    use(monitor)  # space again: but a curve with a hole would mislead
    [warning] = caplog.records
    assert "No space left on device" in warning.getMessage()


def test_a_run_goes_on_where_it_can_show_nothing(trained_copy, train):
    shutil.rmtree(trained_copy / "events")
    (trained_copy / "events").write_text("in the way")
    assert train(trained_copy, "--num_steps=13", "--quiet") == 0
    assert (trained_copy / "checkpoints" / "step-00000013").is_dir()
