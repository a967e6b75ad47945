"""TensorBoard output of a whole run: every documented tag, at its steps."""

import pathlib

import numpy as np
import pytest
from event_files import hyperparameter_events, picture, read, under
from saved_runs import manifest_of, values_of

from leo_tf.data_pipeline import dataset as datasets
from leo_tf.environment import program
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.monitoring import run_summary
from leo_tf.runs.directory import RunDirectory

VARIABLES = {
    "encoder/kernel",
    "relation_network/kernel_0",
    "relation_network/kernel_1",
    "relation_network/kernel_2",
    "decoder/kernel",
    "inner_lr",
    "finetuning_lr",
}
HEALTH = {
    "support_loss_start",
    "support_loss_latent",
    "support_loss_end",
    "support_loss_drop",
    "latent_step",
    "stddev_floor_share",
    "grew/inner_lr_init",
    "grew/finetuning_lr_init",
}
# One step on latents, one of fine-tuning: before, between and after.
INNER_STEPS = {f"support_loss_after_{i:02}" for i in range(3)}
EVERY_2, VALIDATED = [2, 4, 6, 8, 10, 12], [5, 10, 12]


@pytest.fixture(scope="module")
def shown(trained):
    runs = "train", "validation", "centroid"
    return {run: read(trained / "events" / run) for run in runs}


def groups(events) -> set[str]:
    return {tag.split("/")[0] for tag in events}


def test_training_shows_every_promised_signal_and_no_other(shown):
    events = shown["train"]
    assert under(events, "accuracy_and_loss") == {
        "accuracy",
        "loss",
        "steps_not_finite",
    }
    parts = {"query", "kl", "encoder", "l2", "orthogonality"}
    assert under(events, "loss_parts") == parts
    assert under(events, "inner_loop") == HEALTH
    assert under(events, "inner_loop_steps") == INNER_STEPS
    per_variable = {
        "optimisation_gradient_norm",
        "optimisation_gradient_norm_after_clipping",
        "optimisation_clipped_share",
        "optimisation_update_to_weight",
        "tensors_variables",
        "tensors_gradients",
    }
    for group in per_variable:
        assert under(events, group) == VARIABLES, group
    assert under(events, "optimisation") == {"inner_lr", "finetuning_lr"}
    assert under(events, "speed") == {
        "steps_per_second",
        "episodes_per_second",
        "share_of_time_waiting_for_input",
    }
    others = {"accuracy_and_loss", "loss_parts", "inner_loop", "inner_loop_steps"}
    assert groups(events) == per_variable | others | {"optimisation", "speed"}


def test_validation_shows_every_promised_signal_and_no_other(shown):
    events = shown["validation"]
    assert under(events, "accuracy_and_loss") == {"accuracy", "loss"}
    assert under(events, "loss_parts") == {"query", "l2", "orthogonality"}
    assert under(events, "inner_loop") == HEALTH
    assert under(events, "inner_loop_steps") == INNER_STEPS
    assert under(events, "pictures") == {"confusion", "reliability"}
    assert under(events, "tensors_latents") == {"before", "after"}
    assert under(events, "validation") == {"best_accuracy"}
    assert len(groups(events)) == 7
    assert set(shown["centroid"]) == {"accuracy_and_loss/accuracy"}


def test_the_group_that_tells_most_is_the_first_by_name(shown):
    tags = {tag for events in shown.values() for tag in events}
    assert min(groups(tags)) == "accuracy_and_loss"
    histograms = {group for group in groups(tags) if group.startswith("tensors_")}
    assert max(groups(tags) - histograms - {"validation"}) < min(histograms)


def test_training_is_shown_at_its_interval_and_validation_at_its_own(shown):
    for tag, values in shown["train"].items():
        expected = VALIDATED if tag.startswith("tensors_") else EVERY_2
        assert list(values) == expected, tag
    for run in ("validation", "centroid"):
        for tag, values in shown[run].items():
            assert list(values) == VALIDATED, tag


def test_shown_numbers_are_those_of_the_run(shown, trained):
    train, validation = shown["train"], shown["validation"]
    history = manifest_of(trained, 12)["progress"]["history"]
    best = 0.0
    for record in history:
        step, best = record["step"], max(best, record["val_accuracy"])
        for tag, value in {
            "accuracy_and_loss/accuracy": record["val_accuracy"],
            "accuracy_and_loss/loss": record["val_loss"],
            "validation/best_accuracy": best,
        }.items():
            assert validation[tag][step] == pytest.approx(value, rel=1e-6)
    # Steps 11 and 12 are both a log interval and the last validation interval.
    loss = train["accuracy_and_loss/loss"][12]
    assert loss == pytest.approx(history[-1]["train_loss"])
    parts = [train[f"loss_parts/{part}"][12] for part in under(train, "loss_parts")]
    assert sum(parts) == pytest.approx(loss, rel=1e-5)


def test_the_line_of_nearest_centroid_is_level_and_its_accuracy(shown, trained):
    line = set(map(float, shown["centroid"]["accuracy_and_loss/accuracy"].values()))
    config = RunDirectory(trained).config()
    split = datasets.load(config, ["val"])["val"]
    episodes = datasets.evaluation_episodes(config, split, 6)
    scores = evaluate({"centroid": NearestCentroid()}, episodes)["centroid"]
    assert list(line) == [pytest.approx(scores.accuracy.mean(), rel=1e-6)]


def test_histograms_and_rates_are_those_of_the_variables(shown, trained):
    events, values = shown["train"], values_of(trained, 12)
    for name in VARIABLES:
        value = values[f"leo/{name}"]
        histogram = events[f"tensors_variables/{name}"][12]
        assert histogram[:, 2].sum() == value.size
        assert histogram[0, 0] == pytest.approx(value.min(), rel=1e-5)
        assert histogram[-1, 1] == pytest.approx(value.max(), rel=1e-5)
    for name in under(events, "optimisation"):
        rate = events[f"optimisation/{name}"][12]
        assert rate == pytest.approx(values[f"leo/{name}"].mean(), rel=1e-5)


def test_steps_of_adaptation_begin_and_end_where_the_summary_says(shown):
    for run in ("train", "validation"):
        events = shown[run]
        for number, name in enumerate(("start", "latent", "end")):
            steps = events[f"inner_loop_steps/support_loss_after_{number:02}"]
            assert steps == events[f"inner_loop/support_loss_{name}"]


def test_clipping_ends_at_its_threshold_and_its_share_is_a_share(shown):
    events = shown["train"]
    for name in VARIABLES:
        after = events[f"optimisation_gradient_norm_after_clipping/{name}"]
        for step, before in events[f"optimisation_gradient_norm/{name}"].items():
            assert 0 < after[step] <= min(before, 0.1) * (1 + 1e-6)
            share = events[f"optimisation_clipped_share/{name}"][step]
            assert share in (0.0, 0.5, 1.0)
            assert (share == 0.0) == (before == pytest.approx(after[step], rel=1e-4))


def test_pictures_change_as_the_method_learns(shown):
    for name in ("confusion", "reliability"):
        drawn = shown["validation"][f"pictures/{name}"]
        first, last = (picture(drawn[step]) for step in (5, 12))
        assert first.shape == last.shape and (first != last).any()


def test_texts_tell_configuration_data_and_the_command_to_go_on(trained, tiny_data):
    texts = read(trained / "events")
    assert {"configuration", "data", "command_line"} <= set(texts)
    [command] = texts["command_line"].values()
    command = command.item().decode()
    assert command.startswith(f"    {program()} --")
    assert f"--workdir={trained}" in command and "--outer_lr=0.02" in command
    [configuration] = texts["configuration"].values()
    assert b"| outer_lr | 0.02 | optimizer |" in configuration.item()
    assert b"| test_way | - | episodes |" in configuration.item()
    [data] = texts["data"].values()
    assert b"| val | 6 | 72 | 8 | 3-way 1-shot, 11 queries |" in data.item()


def test_runs_are_compared_by_what_is_trained_and_not_by_where(trained):
    events = hyperparameter_events(trained / "events")
    shown = events["_hparams_/session_start_info"].session_start_info.hparams
    assert shown["outer_lr"].number_value == 0.02 and shown["way"].number_value == 3
    assert shown["method"].string_value == "leo"
    assert not {"data_path", "log_every", "test_way", "adaptation_steps"} & set(shown)
    columns = events["_hparams_/experiment"].experiment.hparam_infos
    first = {column.name for column in columns if column.differs}
    assert {"method", "outer_lr", "way"} <= first, "always, and what is changed"
    assert not {"random_prior", "dropout_rate"} & first, "nothing that is as usual"


def test_runs_of_one_name_in_different_jobs_are_told_apart(trained):
    events = hyperparameter_events(trained / "events")
    title = events["_hparams_/session_start_info"].session_start_info.group_name
    assert title == f"{trained.name} ({trained.parent.name})"


def test_trials_of_one_number_in_different_searches_are_told_apart():
    titles = [
        run_summary.title(pathlib.Path("/runs") / job / "maml" / "trial_00")
        for job in ("one", "two")
    ]
    assert titles == ["trial_00 (one/maml)", "trial_00 (two/maml)"]


def test_runs_are_compared_by_scalars_that_are_there(trained):
    events = hyperparameter_events(trained / "events")
    metrics = events["_hparams_/experiment"].experiment.metric_infos
    for metric in metrics:
        run = read(trained / "events" / metric.name.group)
        assert metric.name.tag in run


def test_latent_codes_are_written_for_the_projector_with_a_label_each(trained):
    directory = trained / "events" / "validation"
    codes = np.loadtxt(directory / "latent_codes.tsv", delimiter="\t")
    header, *labels = (directory / "latent_codes_labels.tsv").read_text().splitlines()
    # 6 validation episodes of 3 classes, before and after; 4 latents.
    assert codes.shape == (36, 4) and header == "class\tadaptation\tepisode"
    labels = [label.split("\t") for label in labels]
    assert [label[1] for label in labels] == 18 * ["before"] + 18 * ["after"]
    assert {label[0] for label in labels} <= {f"val_{i}" for i in range(6)}
    before, after = codes[:18], codes[18:]
    assert (np.abs(before - after).max(axis=1) > 1e-4).all()
    assert not (directory / "latent_codes_sprite.png").exists()
