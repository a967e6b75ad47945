"""Settings of one method each: what a file may say, and what a search draws."""

import json

import pytest
import tensorflow as tf
from tiny_cases import SETTINGS, D, N, make_episode

from leo_tf.configs.schema import GROUPS, Config
from leo_tf.errors import FlagError, InputError
from leo_tf.methods import settings as method_settings
from leo_tf.methods.registry import METHODS, build, check
from leo_tf.methods.variants import variant_named
from leo_tf.model.learner import adapt_and_score
from leo_tf.training.meta_step import meta_gradients


@pytest.fixture
def written(tmp_path):
    """Writes a value as JSON; returns the file's path."""

    def write(value) -> str:
        path = tmp_path / "settings.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


def test_without_a_file_no_method_has_settings_of_its_own():
    assert method_settings.of(method_settings.read("", Config()), "leo") == {}


def test_leos_settings_count_for_its_ablations_unless_they_have_their_own(written):
    leo = {"outer_lr": 0.5, "kl_weight": 0.25, "inner_unroll_length": 2}
    values = {"leo": leo, "generator": {}, "maml": {"adaptation_steps": 2}}
    settings = method_settings.read(written(values), Config())
    found = {name: method_settings.of(settings, name) for name in METHODS}
    assert {name: own for name, own in found.items() if own} == {
        "leo": leo,
        "leo_no_finetuning": leo,
        "leo_deterministic": {"outer_lr": 0.5, "inner_unroll_length": 2},
        "leo_random_prior": {"outer_lr": 0.5, "inner_unroll_length": 2},
        "generator_finetuning": {"outer_lr": 0.5, "kl_weight": 0.25},
        "maml": {"adaptation_steps": 2},
    }


def test_a_variant_has_its_own_settings_or_its_methods_or_its_familys(written):
    leo, own = {"outer_lr": 0.5, "kl_weight": 0.25}, {"outer_lr": 0.125}
    values = {"leo": leo, "leo@soft": own, "generator@lda": {"kl_weight": 0.5}}
    settings = method_settings.read(written(values), Config())
    found = {
        name: method_settings.of(settings, name)
        for name in ("leo@lda", "leo@soft", "generator@soft", "generator@lda")
    }
    assert found == {
        "leo@lda": leo,
        "leo@soft": own,
        "generator@soft": leo,
        "generator@lda": {"kl_weight": 0.5},
    }


def test_a_transform_of_its_own_takes_of_a_methods_features_what_it_can_use(written):
    features = {"feature_transform": "lda", "transform_dims": 3}
    values = {"leo": {**features, "transform_shrinkage": 0.5}}
    settings = method_settings.read(written(values), Config())
    assert method_settings.of(settings, "leo@soft") == {"transform_shrinkage": 0.5}
    assert method_settings.of(settings, "leo@none") == {}
    assert method_settings.of(settings, "leo@lda")["transform_dims"] == 3


def test_what_all_share_is_for_those_that_can_use_it():
    config = Config().replace(transform_dims=3, feature_power=0.5)
    variants = {n: variant_named(n).settings for n in ("leo", "leo@soft", "leo@lda")}
    found = method_settings.with_shared(config, variants)
    features = {n: config.replace(**own).features for n, own in found.items()}
    dims = {n: each.transform_dims for n, each in features.items()}
    assert dims == {"leo": None, "leo@soft": None, "leo@lda": 3}
    powers = {n: each.feature_power for n, each in features.items()}
    assert powers == {"leo": 1, "leo@soft": 0.5, "leo@lda": 0.5}
    for own in found.values():
        check(config.replace(**own))


@pytest.mark.parametrize(
    "name, value, refusal",
    [
        ("mixed_precision", True, "expected LEO or one of its ablations"),
        ("test_samples", 2, "expected a method that draws"),
    ],
)
def test_what_only_some_can_have_is_for_these_and_refused_if_none_can(
    name, value, refusal
):
    config = Config().replace(**{name: value})
    variants = {n: variant_named(n).settings for n in ("centroid", "maml", "leo")}
    found = method_settings.with_shared(config, variants)
    own = {n: config.replace(**each) for n, each in found.items()}
    usual = Config().flat()[name]
    used = {n: each.flat()[name] for n, each in own.items()}
    assert used == {"centroid": usual, "maml": usual, "leo": value}
    for each in own.values():
        check(each)
    del variants["leo"]
    for settings in method_settings.with_shared(config, variants).values():
        with pytest.raises(FlagError, match=f"--{name}: {refusal}"):
            check(config.replace(**settings))


def test_what_no_method_can_use_is_refused_naming_one():
    config = Config().replace(transform_dims=3)
    for name in ("ridge", "ridge@soft"):
        variants = {name: variant_named(name).settings}
        [settings] = method_settings.with_shared(config, variants).values()
        with pytest.raises(FlagError, match=r"--transform_dims: .*, as ridge has"):
            check(config.replace(**settings))


_OTHER_VALUES = {
    "num_latents": 3,
    "inner_unroll_length": 2,
    "finetuning_unroll_length": 2,
    "test_finetuning_steps": 2,
    "inner_lr_init": 0.3,
    "finetuning_lr_init": 0.3,
    "dropout_rate": 0.6,
    "residual": "centroid",
}


def losses(method: str, **settings) -> tuple[float, float]:
    """Returns the loss of a training step and the mean test score, on tiny episodes."""
    usual = {**SETTINGS, "method": method, "dtype": "float64", "way": N}
    usual["inner_unroll_length"] = 1
    learner = build(Config().replace(**{**usual, **settings}), D)
    episode = make_episode()
    noise = learner.draw_noise(episode, tf.constant(1, tf.int64), 0)
    _, logits = adapt_and_score(learner, episode)
    loss = meta_gradients(learner, episode, noise)[0]
    return float(loss), float(tf.reduce_mean(logits))


@pytest.fixture
def eagerly():
    """To compile the draws of every setting takes longer than to draw them once."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("method", [n for n in METHODS if METHODS[n].family == "leo"])
def test_a_setting_is_taken_where_it_makes_a_difference_and_nowhere_else(
    method, eagerly
):
    usual, used = losses(method), method_settings.effective(method)
    for name in GROUPS["model"].__dataclass_fields__:
        if name in ("deterministic", "random_prior"):
            assert name not in used, "that is another method"
            continue
        other = losses(method, **{name: _OTHER_VALUES.get(name, 0.9)})
        assert (other != usual) == (name in used), name


@pytest.mark.parametrize(
    ("value", "where", "told"),
    [
        ("{", "", "JSON"),
        ([1], "", "object"),
        ({"lego": {}}, "", "lego"),
        ({"leo": 3}, ": `leo`", "object"),
        ({"leo": {"learning_rate": 1.0}}, ": `leo`", "learning_rate"),
        ({"leo": {"shot": 5}}, ": `leo`", "shot"),
        ({"leo": {"method": "maml"}}, ": `leo`", "method"),
        ({"leo": {"random_prior": True}}, ": `leo`", "random_prior"),
        ({"leo": {"assignment_sharpness": 1.0}}, ": `leo`", "assignment_sharpness"),
        ({"ridge": {"outer_lr": 1.0}}, ": `ridge`", "outer_lr"),
        ({"generator": {"inner_lr_init": 1.0}}, ": `generator`", "inner_lr_init"),
        ({"leo": {"outer_lr": -1.0}}, ": `leo.outer_lr`", "-1"),
        ({"leo@pca": {}}, ": `leo@pca`", "'pca'"),
        ({"svm@lda": {}}, "", "svm@lda"),
        ({"lda@soft": {}}, ": `lda@soft`", "lda alone"),
        ({"leo@soft": {"feature_transform": "lda"}}, ": `leo@soft`", "feature_trans"),
        ({"leo@soft": {"transform_dims": 3}}, ": `leo@soft`", "transform_dims"),
        ({"lda": {"feature_transform": "soft"}}, ": `lda`", "feature_transform"),
        ({"leo": {"outer_lr": "x" * 999}}, ": `leo.outer_lr`", "number"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_field(written, value, where, told):
    path = written(value)
    with pytest.raises(InputError) as caught:
        method_settings.read(path, Config())
    assert caught.value.where == path + where
    assert told in str(caught.value) and len(str(caught.value)) < 1000


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json"):
        method_settings.read(str(tmp_path / "none.json"), Config())


def test_the_ranges_hold_the_settings_the_release_published():
    from leo_tf.configs.presets import PRESETS

    for preset in PRESETS.values():
        values = preset.config().flat()
        for name, (low, high) in method_settings.ranges("leo").items():
            assert low <= values[name] <= high, (preset.name, name)


def test_a_method_that_is_not_trained_has_nothing_to_draw():
    with pytest.raises(FlagError, match="ridge"):
        method_settings.ranges("ridge")
