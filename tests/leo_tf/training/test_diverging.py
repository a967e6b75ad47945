"""Non-finite steps: their cause, and advice that helps."""

import json
import re

import event_files
import numpy as np
import pytest
import tensorflow as tf

import leo_tf
from leo_tf.configs.schema import Config, ModelConfig
from leo_tf.errors import DivergedError
from leo_tf.evaluation.results import remark
from leo_tf.model.inner_loop import loss_grew
from leo_tf.model.leo import first_inner_lr
from leo_tf.reports import results as report
from leo_tf.runs.training_state import TrainingState

pytestmark = pytest.mark.long

SMALL = 8
QUICK = {
    "num_val_episodes": 2,
    "num_test_episodes": 2,
    "finetuning_unroll_length": 1,
    "jit": "off",
}


def data(size: int, seed: int = 0) -> leo_tf.load_data:
    """Returns fifteen classes of vectors of `size` numbers, in three splits."""
    random, splits = np.random.default_rng(seed), {}
    for split in ("train", "val", "test"):
        centres = random.normal(size=[5, 1, size])
        vectors = (centres + random.normal(size=[5, 20, size])).reshape(-1, size)
        labels = np.repeat([f"{split}{n}" for n in range(5)], 20)
        splits[split] = vectors.astype(np.float32), labels
    return leo_tf.load_data(splits)


def train(workdir, size: int, num_steps: int, **settings):
    config = Config().replace(num_steps=num_steps, **{**QUICK, **settings})
    return leo_tf.train(config, workdir, data=data(size))


@pytest.mark.usefixtures("quick_job")
@pytest.mark.parametrize(
    ("settings", "blamed"),
    [({"inner_lr_init": 1.0}, "inner_lr_init"), ({"outer_lr": 30.0}, "outer_lr")],
)
def test_what_is_to_blame_is_named_and_the_advice_helps(tmp_path, settings, blamed):
    with pytest.raises(DivergedError, match=f"lower --{blamed}") as caught:
        train(tmp_path / "one", SMALL, 200, non_finite_limit=5, **settings)
    found = re.search(r"for example (\S+)\.", str(caught.value))
    assert found, caught.value
    mended = {**settings, blamed: float(found[1])}
    run = train(tmp_path / "two", SMALL, 6, non_finite_limit=5, **mended)
    assert run.state.non_finite <= 1


def test_most_of_the_steps_decide_whether_it_is_an_inner_loop_or_the_outer():
    config = Config().replace(outer_lr=1e-5, adaptation_lr_init=3.0)
    state = TrainingState(non_finite=10, astray={"adaptation_lr_init": 5})
    assert "lower --outer_lr" in state.advice(config)
    assert "for example 1e-06." in state.advice(config)
    state.astray["adaptation_lr_init"] = 6
    assert "lower --adaptation_lr_init" in state.advice(config)
    assert "for example 0.3." in state.advice(config)
    state.astray = {"rate_of_mine": 10}  # of a user's method: not one of our settings
    assert "lower --rate_of_mine in another --workdir." in state.advice(config)


def test_a_loss_grew_that_rose_by_more_than_that_of_guessing_or_is_no_number():
    def grew(before, after):
        before, after = (tf.constant(x, tf.float32) for x in (before, after))
        return float(loss_grew(before, after, way=5))

    guessing = np.log(5)
    assert grew(1.6, 1.6 + 1.01 * guessing) == grew(1.6, np.nan) == 1
    assert grew(1.6, np.inf) == 1
    assert grew(1.6, 1.6 + 0.99 * guessing) == grew(1.6, 0.1) == 0
    assert grew(1.6, [1.6, 9.0, 0.1]) == 1  # shrank again, but had grown
    # Non-finite before the loop began, so the loop is not the cause.
    assert grew(5.1 * guessing, np.nan) == grew(np.nan, np.nan) == grew(np.inf, 1) == 0


def test_first_rates_are_the_release_s_but_for_small_embeddings():
    default, chosen = ModelConfig(), ModelConfig(inner_lr_init=0.3)
    assert [first_inner_lr(default, size) for size in (64, 65, 640)] == [1, 1, 1]
    assert [first_inner_lr(default, size) for size in (16, 4, 1)] == [0.5, 0.25, 0.125]
    assert first_inner_lr(chosen, 4) == first_inner_lr(chosen, 640) == 0.3
    for size in (16, 640):
        leo = leo_tf.LEO(default)
        leo.build([None, None, None, size])
        assert np.unique(leo.inner_lr) == np.float32(first_inner_lr(default, size))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [2, 4, 8, 16, 32, 64])
def test_the_defaults_train_on_embeddings_of_any_size(tmp_path, size, seed):
    run = train(tmp_path, size, 300, seed=seed)
    assert run.state.non_finite <= 3


@pytest.mark.usefixtures("quick_job")
def test_a_result_of_many_steps_not_finite_says_so_wherever_it_is_shown(
    tmp_path, capsys
):
    config = Config().replace(num_steps=8, inner_lr_init=1e6, **QUICK)
    console = leo_tf.Console()
    run = leo_tf.train(config, tmp_path, data=data(SMALL), console=console)
    share = run.results.share_not_finite
    assert share > 0.5 and "lower --inner_lr_init" in capsys.readouterr().err
    rows = report.terminal(run.results)[1].rows
    assert rows[0][0] == f"LEO ({100 * share:.0f} % of steps non-finite)"
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["share_not_finite"] == share
    assert leo_tf.evaluate(tmp_path).share_not_finite == share
    [text] = event_files.read(tmp_path / "events")["steps_not_finite"].values()
    assert "of 8 steps were non-finite" in str(text)


def test_a_few_steps_not_finite_are_no_remark():
    assert remark(0.02) == "" and remark(0.021) == " (2 % of steps non-finite)"
