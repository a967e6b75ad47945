"""Draws of a search: within its ranges, by seed and number, whatever else runs."""

import math

import numpy as np
import pytest

from leo_tf.configs.schema import Config
from leo_tf.errors import FlagError
from leo_tf.methods import drawing
from leo_tf.methods.drawing import SAMPLERS, draw
from leo_tf.methods.settings import ranges

pytest.importorskip("optuna")


def drawn(name, count, sampler="random", seed=0, known=()):
    return draw(name, sampler, seed, range(1, count + 1), known)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_draws_the_same_again_and_another_seed_others(sampler):
    if sampler == "qmc":
        pytest.importorskip("scipy")
    first = drawn("leo", 5, sampler)
    assert drawn("leo", 5, sampler) == first != drawn("leo", 5, sampler, seed=1)
    assert len({trial["kl_weight"] for trial in first}) == 5


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_trial_is_the_same_however_many_are_drawn_and_in_which_parts(sampler):
    if sampler == "qmc":
        pytest.importorskip("scipy")
    whole = drawn("leo", 9, sampler)
    parts = [range(1, 4), range(4, 5), range(5, 10)]
    assert [each for part in parts for each in draw("leo", sampler, 0, part)] == whole


def test_a_method_and_its_ablations_and_its_transforms_draw_alike():
    leo = drawn("leo", 2)[1]
    generator = drawn("generator", 2)[1]
    assert generator.items() < leo.items()
    assert "encoder_penalty_weight" not in generator, "it makes no difference there"
    assert drawn("leo@soft", 2)[1] == leo
    dims = drawn("generator@lda", 2)[1]["transform_dims"]
    assert type(dims) is int and 8 <= dims <= 256
    assert drawn("leo@lda", 2)[1] == {**leo, "transform_dims": dims}


@pytest.mark.parametrize("method", ["leo@lda", "meta_sgd"])
def test_draws_fill_their_ranges_evenly_or_evenly_in_their_logarithm(method):
    trials = drawn(method, 200, seed=7)
    for name, (low, high) in ranges(method).items():
        values = np.array([trial[name] for trial in trials])
        if name != "dropout_rate":
            values, low, high = np.log(values), math.log(low), math.log(high)
        shares = (values - low) / (high - low)
        assert -0.01 <= shares.min() < 0.06 and 0.94 < shares.max() <= 1.01, name
        # Of 200 even draws a half has 72 to 128 with all but certainty.
        assert 72 < np.sum(shares < 0.5) < 128, name
    Config().replace(**trials[0])  # every name is a setting


def test_tpe_draws_near_what_came_out_well_and_heeds_what_was_given_out_of_range():
    rates = drawn("maml", 30, seed=3)
    given = {"outer_lr": 1.0, "adaptation_lr_init": 10.0}  # beyond what is drawn from
    known = [(given, 0.2)]
    for trial in rates:
        distance = abs(math.log(trial["outer_lr"]) - math.log(2e-3))
        known.append((trial, None if distance > 2.5 else 0.9 - 0.1 * distance))
    found = draw("maml", "tpe", 3, range(31, 39), known)
    near = [abs(math.log(t["outer_lr"]) - math.log(2e-3)) for t in found]
    others = [abs(math.log(t["outer_lr"]) - math.log(2e-3)) for t in rates]
    assert np.mean(near) < 0.7 * np.mean(others)
    assert draw("maml", "tpe", 3, range(31, 39), known) == found


@pytest.mark.parametrize(
    ("missing", "sampler", "where"),
    [("optuna", "random", "--mode=search"), ("scipy", "qmc", "--sampler=qmc")],
)
def test_without_what_draws_a_search_says_what_to_install(
    monkeypatch, missing, sampler, where
):
    find = drawing.importlib.util.find_spec
    monkeypatch.setattr(
        drawing.importlib.util,
        "find_spec",
        lambda name: None if name == missing else find(name),
    )
    with pytest.raises(FlagError, match=r"pip install 'leo-tf\[search\]'") as caught:
        drawing.check_installed(sampler)
    assert caught.value.where == where
