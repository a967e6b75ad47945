"""The published protocol on tiny data: its three stages, sums and resuming."""

import json
import shutil
import statistics

import pytest
from saved_runs import listing, manifest_of, results_of

from leo_tf.cli import main as command_line
from leo_tf.configs.presets import PRESETS
from leo_tf.experiments import reproduce

pytestmark = pytest.mark.usefixtures("quick_jobs")
NORMAL_95 = 1.959964


@pytest.fixture(scope="module")
def run_protocol(small_flags, quick_jobs):
    """Returns a function that follows the protocol and returns the exit status."""

    def run_protocol(workdir, *flags) -> int:
        mode = "--mode=reproduce", "--seeds=2", "--seed=4", f"--workdir={workdir}"
        mode += ("--jobs=0",)
        # Far too large, so that the first validation is the best.
        rate = "--outer_lr=0.3", "--inner_lr_init=1"
        few = "--num_steps=4", "--validate_every=2"
        given = [*small_flags, *few, *mode, *rate, *flags]
        return command_line.main(["run_leo.py", *given])

    return run_protocol


@pytest.fixture(scope="module")
def grown(run_protocol, tmp_path_factory):
    """A reproduction with one seed, to which another was added.

    Returns its directory; its checkpoints and its results as they were before.
    """
    workdir = tmp_path_factory.mktemp("reproduction") / "job"
    assert run_protocol(workdir, "--seeds=1", "--quiet") == 0
    before = checkpoints(workdir), results_of(workdir)
    assert run_protocol(workdir, "--quiet") == 0
    return workdir, *before


@pytest.fixture(scope="module")
def reproduction(grown):
    """A finished reproduction with two seeds. Tests must not change it."""
    return grown[0]


def checkpoints(workdir) -> dict:
    return {k: v for k, v in listing(workdir).items() if "/checkpoints/" in k}


def config_of(workdir) -> dict:
    return json.loads((workdir / "config.json").read_text())


def test_every_seed_trains_on_both_splits_for_as_many_steps_as_were_selected(
    reproduction,
):
    selection = reproduction / "selection"
    best = json.loads((selection / "best" / "checkpoint.json").read_text())["step"]
    assert config_of(selection)["data"]["train_on_val"] is False
    history = manifest_of(selection, 4)["progress"]["history"]
    accuracies = {record["step"]: record["val_accuracy"] for record in history}
    assert accuracies[best] == max(accuracies.values())
    assert best == 2 < 4 and accuracies[best] > accuracies[4], "not the last"
    digests = [manifest_of(selection, best)["data"]]
    for seed in (4, 5):
        run = reproduction / f"seed_{seed}"
        config = config_of(run)
        assert config["data"]["train_on_val"] is True
        assert config["run"]["seed"] == seed
        assert config["run"]["num_steps"] == best
        digests.append(manifest_of(run, best)["data"])
    assert digests[1] == digests[2]
    assert digests[1]["train"] != digests[0]["train"], "classes of val are in it"
    assert digests[1]["test"] == digests[0]["test"]


def test_spread_over_runs_and_interval_over_episodes_are_told_apart(
    reproduction, evaluate, capsys
):
    found = results_of(reproduction)
    assert [run["seed"] for run in found["runs"]] == [4, 5]
    means = [run["accuracy"]["mean"] for run in found["runs"]]
    assert found["mean_over_runs"] == pytest.approx(statistics.mean(means))
    spread = abs(means[0] - means[1]) / 2**0.5
    assert found["standard_deviation_over_runs"] == pytest.approx(spread)
    widths = [run["accuracy"]["half_width_95"] for run in found["runs"]]
    pooled = found["half_width_95_over_all_episodes"]
    # Squares around the mean of all 16, within the runs and between them.
    deviations = [width * 8**0.5 / NORMAL_95 for width in widths]
    squares = sum(7 * deviation**2 for deviation in deviations) + 8 * spread**2
    assert pooled == pytest.approx(NORMAL_95 * (squares / 15 / 16) ** 0.5)
    text = (reproduction / "results.md").read_text()
    assert "| standard deviation over these runs | " in text
    assert "| 95 % interval over their 16 episodes | ± " in text


@pytest.mark.parametrize("name", ["selection", "seed_4", "seed_5"])
def test_each_run_is_tested_as_by_evaluate(reproduction, evaluate, capsys, name):
    found = results_of(reproduction)
    tested = {"selection": found["selection"]}
    tested.update({f"seed_{run['seed']}": run for run in found["runs"]})
    assert evaluate(reproduction / name, "--quiet") == 0
    mean, half_width = (
        100 * tested[name]["accuracy"][key] for key in ("mean", "half_width_95")
    )
    assert f"{mean:.2f} ± {half_width:.2f}" in capsys.readouterr().out
    assert tested[name]["trained_on"] == (
        "train" if name == "selection" else "train+val"
    )


def test_what_is_done_is_not_done_again_when_a_seed_is_added(grown):
    workdir, checkpoints_before, results = grown
    after = checkpoints(workdir)
    assert checkpoints_before.items() <= after.items()
    assert all("seed_5/" in path for path in after.keys() - checkpoints_before.keys())
    found = results_of(workdir)
    assert found["selection"] == results["selection"]
    assert [run["seed"] for run in results["runs"]] == [4]
    assert found["runs"][0] == results["runs"][0]
    assert results["standard_deviation_over_runs"] is None


def test_what_was_not_published_is_said(reproduction):
    text = (reproduction / "results.md").read_text()
    assert "| published | no number |" in text and "No accuracy was published" in text


def test_published_numbers_stand_beside_runs_of_their_preset_alone():
    preset = PRESETS["mini_1shot"]
    config = preset.config().replace(data_path="/e", seed=3)
    assert reproduce._published(config) == (preset.expected, "")
    mine = reproduce._published(config.replace(preset="mine"))
    assert mine[0] == () and "No accuracy was published" in mine[1]
    accuracies, note = reproduce._published(config.replace(outer_lr=0.1))
    assert accuracies == preset.expected and note == "Not as published: --outer_lr."
    same = config.replace(test_way=5, test_shot=1)
    assert reproduce._published(same) == (preset.expected, "")
    for other in (
        {"dataset_name": "mine"},
        {"way": 3},
        {"shot": 5},
        {"test_way": 3},
        {"test_shot": 5},
        {"method": "maml"},
        {"query_dirichlet": 2.0},
    ):
        accuracies, note = reproduce._published(config.replace(**other))
        assert accuracies == () and "mini_1shot have other" in note


def test_a_method_without_training_has_no_steps_to_select(
    run_protocol, tmp_path, capsys
):
    assert run_protocol(tmp_path / "job", "--method=ridge", "--quiet") == 2
    assert "error: --method: expected a method that is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_table_says_what_was_given_and_how_many_draws(
    reproduction, run_protocol, tmp_path, capsys
):
    workdir = shutil.copytree(reproduction, tmp_path / "copy")
    assert run_protocol(workdir, "--test_samples=3", "--quiet") == 0
    assert "per class, mean of 3 draws; ± of a run" in capsys.readouterr().out
    text = (workdir / "results.md").read_text()
    assert text.splitlines()[0].endswith(", mean of 3 draws")
    assert "\nGiven: `" in text and "--test_samples=3 " in text
    assert results_of(workdir)["runs"] != results_of(reproduction)["runs"]
