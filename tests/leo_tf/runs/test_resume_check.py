"""Resuming a run with other settings or data: shown, refused, or allowed."""

import pathlib
import shutil

import numpy as np
import pytest
from saved_runs import listing, manifest_of, results_of, values_of

from leo_tf.cli.flags import parse
from leo_tf.console import Console
from leo_tf.errors import CheckpointError, InputError
from leo_tf.runs import settings as run_settings
from leo_tf.runs.directory import Change, RunDirectory, check_changes

pytestmark = pytest.mark.usefixtures("quick_jobs")
CHANGES = [Change("way", 5, 7), Change("data of val", "a" * 64, "b\x1b[2J" * 100)]
REFUSAL = InputError("here", "this", "that")


def rows_of(text: str) -> list[list[str]]:
    """Returns the words of each line of a table."""
    return [line.split() for line in text.splitlines() if line.split()]


@pytest.mark.parametrize("allowed", [False, True])
def test_what_differs_is_shown_as_a_table_whether_allowed_or_not(capsys, allowed):
    if allowed:
        check_changes(CHANGES, True, REFUSAL, Console())
    else:
        with pytest.raises(InputError) as caught:
            check_changes(CHANGES, False, REFUSAL, Console())
        assert caught.value is REFUSAL
    shown = capsys.readouterr()
    assert shown.out == "" and "\x1b" not in shown.err
    rows = rows_of(shown.err)
    assert ["field", "the", "run's", "now"] in rows and ["way", "5", "7"] in rows
    assert f"'{'a' * 64}'" in shown.err


def test_nothing_is_shown_or_refused_where_nothing_differs(capsys):
    check_changes([], False, REFUSAL)
    assert capsys.readouterr().err == ""


def test_the_flag_is_one_of_training_and_off_by_default():
    assert not parse(["run_leo.py"]).arguments["allow_changes"]
    assert parse(["run_leo.py", "--allow_changes"]).arguments["allow_changes"]


def test_settings_that_differ_are_a_table_and_one_line(trained_copy, train, capsys):
    before = listing(trained_copy / "checkpoints")
    assert train(trained_copy, "--kl_weight=0.5", "--quiet") == InputError.exit_code
    *table, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {trained_copy}: expected a run of the same")
    assert "kl_weight is 0.001 there and 0.5 here" in error
    assert error.endswith("or another --workdir, or --allow_changes.")
    assert ["kl_weight", "0.001", "0.5"] in rows_of("\n".join(table))
    assert listing(trained_copy / "checkpoints") == before


def test_with_the_flag_a_run_goes_on_with_other_settings_and_says_so(
    trained_copy, train, capsys
):
    more = ("--num_steps=14", "--outer_lr=0.25", "--kl_weight=0.5", "--quiet")
    assert train(trained_copy, "--allow_changes", *more) == 0
    assert ["outer_lr", "0.02", "0.25"] in rows_of(capsys.readouterr().err)
    assert RunDirectory(trained_copy).config().optimizer.outer_lr == 0.25
    manifest = manifest_of(trained_copy, 14)
    assert manifest["config"]["model"]["kl_weight"] == 0.5
    # The rate is a saved variable of the optimizer. The new one must win.
    assert values_of(trained_copy, 14)["adam/learning_rate"] == np.float32(0.25)
    # These are the run's own settings now.
    assert train(trained_copy, *more) == 0
    assert train(trained_copy, "--num_steps=14") == InputError.exit_code


def test_another_method_is_refused_even_with_the_flag(trained_copy, train, capsys):
    before = listing(trained_copy)
    flags = "--method=centroid", "--allow_changes", "--quiet"
    assert train(trained_copy, *flags) == InputError.exit_code
    assert "expected a run of centroid, received leo" in capsys.readouterr().err
    assert listing(trained_copy) == before


def test_a_changed_rate_moves_the_variables_further(trained_copy, train):
    other = pathlib.Path(shutil.copytree(trained_copy, f"{trained_copy}_other"))
    for workdir, rate in ((trained_copy, "0.02"), (other, "0.0002")):
        flags = [f"--outer_lr={rate}", "--num_steps=13", "--allow_changes", "--quiet"]
        assert train(workdir, *flags) == 0
    before = values_of(trained_copy, 12)
    kernels = [name for name in before if not name.startswith("adam/")]
    moved = []
    for workdir in (trained_copy, other):
        after = values_of(workdir, 13)
        moved.append(sum(np.abs(after[name] - before[name]).sum() for name in kernels))
    assert moved[0] > 10 * moved[1] > 0


def test_sizes_that_do_not_fit_are_refused_in_spite_of_the_flag(
    trained_copy, train, capsys
):
    before = listing(trained_copy / "checkpoints")
    config = (trained_copy / "config.json").read_bytes()
    flags = ("--num_latents=5", "--allow_changes", "--quiet")
    assert train(trained_copy, *flags) == CheckpointError.exit_code
    error = capsys.readouterr().err.splitlines()[-1]
    assert "expected float32 [1, 1, 5], received float32 [1, 1, 4]" in error
    assert listing(trained_copy / "checkpoints") == before
    assert (trained_copy / "config.json").read_bytes() == config


def test_other_data_is_a_table_and_refused_without_the_flag(
    trained_copy, train, tiny_data, tmp_path, capsys, write_split
):
    data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))
    write_split(data / "tiny" / "train.npz", "train", 8, seed=99)
    flags = (f"--data_path={data}", "--num_steps=13", "--quiet")
    assert train(trained_copy, *flags) == InputError.exit_code
    *table, error = capsys.readouterr().err.splitlines()
    digest = manifest_of(trained_copy, 12)["data"]["train"]
    assert digest in "\n".join(table) and "data of train" in "\n".join(table)
    assert "data of val" not in "\n".join(table)
    assert error.startswith(f"error: {data / 'tiny' / 'train.npz'}: expected the data")
    assert train(trained_copy, "--allow_changes", *flags) == 0
    assert manifest_of(trained_copy, 13)["data"]["train"] != digest


@pytest.fixture(scope="module")
def untrained(train, quick_jobs, tmp_path_factory):
    """A run of ridge regression: not to be changed."""
    workdir = tmp_path_factory.mktemp("untrained") / "run"
    assert train(workdir, "--method=ridge", "--quiet") == 0
    return workdir


@pytest.mark.parametrize("change", ["settings", "data"])
def test_an_untrained_run_becomes_one_of_the_other_settings_or_data(
    change, untrained, train, evaluate, tiny_data, tmp_path, write_split
):
    workdir = pathlib.Path(shutil.copytree(untrained, tmp_path / "run"))
    flags = ["--method=ridge", "--quiet", "--ridge_strength=0.123"]
    if change == "data":
        data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))
        for split, classes in (("val", 6), ("test", 7)):
            write_split(data / "tiny" / f"{split}.npz", split, classes, seed=99)
        flags[2] = f"--data_path={data}"
    assert train(workdir, *flags, "--allow_changes") == 0
    config, results = RunDirectory(workdir).config(), results_of(workdir)
    manifest = manifest_of(workdir, 0)
    assert config.to_dict() == manifest["config"] == results["config"]
    assert manifest["data"] == results["data"]
    before = manifest_of(untrained, 0)
    validated = [each["progress"]["history"][0] for each in (before, manifest)]
    assert validated[0]["val_loss"] != validated[1]["val_loss"]
    # These are the run's own now, and are not validated again.
    assert evaluate(workdir, "--quiet") == 0
    written = listing(workdir / "checkpoints")
    assert train(workdir, *flags) == 0
    assert listing(workdir / "checkpoints") == written
    other = "--method=ridge", "--ridge_strength=0.5", "--quiet"
    assert train(workdir, *other) == InputError.exit_code


def test_an_untrained_run_that_is_tested_otherwise_says_so_in_its_config(
    untrained, train, tmp_path
):
    workdir = pathlib.Path(shutil.copytree(untrained, tmp_path / "run"))
    assert train(workdir, "--method=ridge", "--num_test_episodes=5", "--quiet") == 0
    assert RunDirectory(workdir).config().run.num_test_episodes == 5
    assert results_of(workdir)["episodes"] == 5


def test_data_of_another_size_is_refused_in_spite_of_the_flag(
    trained_copy, train, tiny_data, tmp_path
):
    data = pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for split in ("train", "val", "test"):
        with np.load(data / "tiny" / f"{split}.npz") as arrays:
            narrow = {**arrays, "embeddings": arrays["embeddings"][:, :7]}
        np.savez(data / "tiny" / f"{split}.npz", **narrow)
    before = listing(trained_copy / "checkpoints")
    flags = (f"--data_path={data}", "--allow_changes", "--quiet")
    assert train(trained_copy, *flags) == CheckpointError.exit_code
    assert listing(trained_copy / "checkpoints") == before


def test_a_compiler_is_switched_only_if_the_flags_say_so(
    trained_copy, train, monkeypatch
):
    monkeypatch.setattr(run_settings, "_JIT_PAYS_AFTER", 12)  # auto: off up to 12 steps
    assert train(trained_copy, "--allow_changes", "--jit=auto", "--quiet") == 0
    flags = ("--allow_changes", "--jit=auto", "--num_steps=13")
    assert RunDirectory(trained_copy).config().run.jit == "auto"
    assert manifest_of(trained_copy, 12)["jit"] is False
    assert train(trained_copy, *flags, "--quiet") == 0
    assert manifest_of(trained_copy, 13)["jit"] is False, "as it began"
