import dataclasses
import math

import numpy as np
import pytest

from leo_tf.configs.schema import (
    GROUP_OF,
    GROUPS,
    Config,
    DataConfig,
    EpisodeConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from leo_tf.errors import FlagError, InputError

FIELDS = [(kind, f) for kind in GROUPS.values() for f in dataclasses.fields(kind)]
EDGES = [  # setting, the last values accepted, the first ones refused
    (
        "way",
        [2, 65_536, "2-65536", "5-20"],
        [1, 0, -5, 65_537, "1-5", "2-65537", "20-5", "5-5", "5-", "-5", "5", "2-3-4"],
    ),
    ("shot", [1, 65_536, "1-65536"], [0, -1, 65_537, "0-5", "1-65537", "3-1", ""]),
    ("num_query", [1, 65_536], [0, 65_537]),
    ("meta_batch_size", [1, 65_536], [0, 65_537]),
    ("test_way", [2, 65_536, None], [1, 65_537]),
    ("test_shot", [1, 65_536, None], [0, 65_537]),
    ("test_num_query", [1, 65_536, None], [0, 65_537]),
    ("query_dirichlet", [0.01, 1000.0, None], [0.0, 0.009, 1001.0, -1.0]),
    ("num_latents", [1, 4096], [0, 4097]),
    ("ensemble", ["centroid", "centroid_euclidean", "ridge", "logistic"], ["leo"]),
    ("ensemble_share", [0.0, 1.0, None], [-0.1, 1.1]),
    ("inner_unroll_length", [0, 1000], [-1, 1001]),
    ("finetuning_unroll_length", [0, 1000], [-1, 1001]),
    ("test_finetuning_steps", [0, 1000, None], [-1, 1001]),
    ("inner_lr_init", [1e-9], [0.0, -1.0]),
    ("finetuning_lr_init", [1e-9], [0.0, -1.0]),
    ("dropout_rate", [0.0, 0.999], [1.0, -0.1]),
    ("kl_weight", [0.0], [-1e-9]),
    ("encoder_penalty_weight", [0.0], [-1e-9]),
    ("l2_penalty_weight", [0.0], [-1e-9]),
    ("orthogonality_penalty_weight", [0.0], [-1e-9]),
    ("deterministic", [True, False], [1, "true", None]),
    ("random_prior", [True, False], [1, "true", None]),
    ("residual", ["none", "centroid", "ridge"], ["logistic", "", None]),
    (
        "method",
        ["leo", "mine", "a.b:Mine", "sklearn:a.b.C"],
        ["x.y", "a b", "a:b:c", ":A", "", None],
    ),
    ("adaptation_steps", [1, 1000], [0, -1, 1001]),
    ("adaptation_lr_init", [1e-9], [0.0, -1.0]),
    ("first_order", [True, False], [1, "true", None]),
    ("ridge_strength", [1e-9, None], [0.0, -1.0]),
    ("logistic_strength", [1e-9, None], [0.0, -1.0]),
    ("calibration_classes", [1, 65_536], [0, 65_537]),
    ("calibration_samples", [1, 65_536], [0, 65_537]),
    ("calibration_alpha", [0.0], [-1e-9]),
    ("assignment_sharpness", [1e-9, None], [0.0, -1.0]),
    ("laplacian_weight", [1e-9, None], [0.0, -1.0]),
    (
        "sklearn_parameters",
        ["", '{"C": 1.0}'],
        ["/no/such/file", '{"C"', "[1]", "a\0b", None, 3],
    ),
    ("score_scale", [1e-9, None], [0.0, -1.0]),
    ("outer_lr", [1e-9], [0.0, -1.0]),
    ("gradient_threshold", [0.0], [-0.1]),
    ("gradient_norm_threshold", [0.0], [-0.1]),
    ("num_steps", [1, 2**31 - 1], [0, 2**31]),
    ("validate_every", [1], [0]),
    ("patience", [0], [-1]),
    ("num_val_episodes", [1], [0]),
    ("num_test_episodes", [1], [0]),
    ("test_samples", [0], [-1]),
    ("seed", [0, 2**31 - 1], [-1, 2**31]),
    ("jit", ["auto", "on", "off"], ["yes", ""]),
    ("mixed_precision", [True, False], ["yes", 1]),
    ("strategy", ["none", "mirrored", "multi_worker"], ["tpu", "", None]),
    ("log_every", [1], [0]),
    ("keep_checkpoints", [2], [1]),
    ("non_finite_limit", [0], [-1]),
    ("embedding_crop", ["center", "multiview"], ["left", "Center"]),
    ("dtype", ["float32", "float64"], ["float16", "float"]),
    ("train_on_val", [True, False], [1, "true", None]),
    ("val_classes", [0], [-1]),
    (
        "class_split",
        ["", "0.64,0.16,0.2", "s.json"],
        ["0.6,0.2,0.1", "1,0,0", "0.5,0.5", "nan,1,0", "a.txt", "gs://a/b.json", None],
    ),
    ("class_folds", [0, 3, 1000], [1, 2, 1001, -1]),
    ("fold", [0, 999, None], [-1, 1000]),
    ("split_seed", [0], [-1]),
    ("trust_data_files", [True, False], [1, "true", None]),
    ("drop_small_classes", [True, False], [1, "true", None]),
    (
        "data_path",
        ["", "/a b/c", "/ä/試行/é"],
        ["a\0b", "a\nb", "\x1b[31m", "\x9b", "\udcff", None, 3],
    ),
    ("feature_transform", ["none", "center", "within", "lda", "soft"], ["pca", None]),
    ("feature_power", [1e-9], [0.0, -1.0]),
    ("transform_dims", [1, None], [0, -1]),
    ("transform_shrinkage", [0.0, 1.0, None], [-0.1, 1.1]),
    ("dataset_name", ["glyphs", "my-set_2.1"], ["", "a/b", "..", ".", "a\\b", " a"]),
]


def test_every_setting_has_its_edges_tested():
    assert sorted(name for name, _, _ in EDGES) == sorted(GROUP_OF)


@pytest.mark.parametrize("name,good,bad", EDGES, ids=[name for name, _, _ in EDGES])
def test_values_up_to_the_edge_are_kept_and_those_beyond_are_refused(name, good, bad):
    for value in good:
        assert Config().replace(**{name: value}).flat()[name] == value
    for value in bad:
        with pytest.raises(FlagError) as caught:
            Config().replace(**{name: value})
        assert caught.value.where == f"--{name}"


@pytest.mark.parametrize("kind,field", FIELDS, ids=lambda x: getattr(x, "name", ""))
def test_a_value_of_another_type_is_refused_by_every_setting(kind, field):
    wrong = {int: [True, 1.0, "2"], float: [True, "0.5"], bool: [0, "false"]}
    for value in [*wrong.get(field.metadata["rule"].kind, [1, True]), b"x", [], {}]:
        with pytest.raises(FlagError, match=f"^--{field.name}: expected"):
            kind(**{field.name: value})


@pytest.mark.parametrize("kind,field", FIELDS, ids=lambda x: getattr(x, "name", ""))
def test_nan_infinity_and_what_overflows_float32_are_refused(kind, field):
    for value in (math.nan, math.inf, -math.inf, 1e39, 10**400, -(10**400)):
        with pytest.raises(FlagError, match=f"^--{field.name}: expected"):
            kind(**{field.name: value})


def test_an_integer_for_a_float_becomes_a_float():
    config = ModelConfig(kl_weight=2, inner_lr_init=1)
    assert type(config.kl_weight) is float and config.kl_weight == 2.0
    assert type(config.inner_lr_init) is float


def test_numpys_scalars_are_python_s():
    config = Config().replace(train_on_val=np.True_, way=np.int64(4))
    assert config.flat()["train_on_val"] is True
    config = config.replace(outer_lr=np.float32(0.5))
    assert config.flat()["way"] == 4 and config.flat()["outer_lr"] == 0.5
    with pytest.raises(FlagError, match="--way: expected"):
        Config().replace(way=np.True_)


def test_the_error_of_a_number_too_large_says_the_limit():
    with pytest.raises(FlagError, match=r"1 or more, below 2\^31, received 2147483648"):
        RunConfig(num_steps=2**31)


def test_defaults_are_those_of_the_release():
    expected = {  # config.py and runner.py of github.com/google-deepmind/leo
        "embedding_crop": "center",
        "train_on_val": False,
        "inner_unroll_length": 5,
        "finetuning_unroll_length": 5,
        "num_latents": 64,
        "inner_lr_init": None,  # 1 from D = 64 on: see test_first_rates.py
        "finetuning_lr_init": 0.001,
        "dropout_rate": 0.5,
        "kl_weight": 1e-3,
        "encoder_penalty_weight": 1e-9,
        "l2_penalty_weight": 1e-8,
        "orthogonality_penalty_weight": 1e-3,
        "way": 5,
        "shot": 1,
        "num_query": 15,
        "meta_batch_size": 12,
        "num_val_episodes": 10 * 200,
        "num_test_episodes": 10_000,
        "num_steps": 100_000,
        "validate_every": 1000,
        "outer_lr": 1e-4,
        "gradient_threshold": 0.1,
        "gradient_norm_threshold": 0.1,
    }
    assert expected.items() <= Config().flat().items()


def test_setting_names_are_unique_over_groups_and_every_one_has_a_help_text():
    names = [field.name for _, field in FIELDS]
    assert len(set(names)) == len(names) == len(GROUP_OF)
    assert not set(names) & {*GROUPS, "preset"}
    assert all(len(field.metadata["help"]) > 10 for _, field in FIELDS)
    symbols = {f.name: f.metadata["symbol"] for _, f in FIELDS if f.metadata["symbol"]}
    assert symbols["kl_weight"] == "beta" and symbols["way"] == "N"


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().episodes.way = 7


def test_evaluation_sizes_follow_training_unless_given():
    assert EpisodeConfig(way=7, shot=3).evaluation_way == 7
    assert EpisodeConfig(way=7, shot=3).evaluation_shot == 3
    given = EpisodeConfig(way=7, shot=3, test_way=4, test_shot=2)
    assert (given.evaluation_way, given.evaluation_shot) == (4, 2)


def test_only_glyphs_without_a_path_is_embedded():
    assert DataConfig().is_embedded
    assert not DataConfig(data_path="/e").is_embedded
    assert not DataConfig(dataset_name="miniImageNet").is_embedded


def test_replace_routes_each_name_to_its_group_and_leaves_the_rest():
    config = Config().replace(shot=5, outer_lr=1e-3, preset="p")
    assert config == Config(
        episodes=EpisodeConfig(shot=5),
        optimizer=OptimizerConfig(outer_lr=1e-3),
        preset="p",
    )
    assert config.replace() == config


def test_replace_refuses_an_unknown_name_by_that_name():
    with pytest.raises(FlagError, match=r"^--shots: expected the name of a setting"):
        Config().replace(shots=5)


@pytest.mark.parametrize(
    "text", ["path", '{"C"', "[1]", "no", '{"a": ' * 100_000, "{}x"], ids=str.__len__
)
def test_a_file_of_settings_has_parameters_and_no_path_of_others(text, tmp_path):
    path = tmp_path / "svc.json"
    path.write_text('{"C": 3.0}')
    values = {"methods": {"sklearn_parameters": str(path) if text == "path" else text}}
    with pytest.raises(InputError, match=r"^a\.json: `methods\.sklearn_parameters`: "):
        Config.from_dict(values, "a.json")
    odd = {"methods": {"sklearn_parameters": ' {"C": 4.0}'}}
    assert Config.from_dict(odd).methods.sklearn_parameters == '{"C": 4.0}'
    kept = Config().replace(sklearn_parameters=str(path))
    assert kept.methods.sklearn_parameters == '{"C": 3.0}'
    assert Config.from_dict(kept.to_dict(), "a.json") == kept


def test_a_group_of_the_wrong_class_is_refused():
    with pytest.raises(FlagError, match=r"^episodes: expected a EpisodeConfig"):
        Config(episodes=ModelConfig())


@pytest.mark.parametrize("preset", [3, None, "two\nlines"])
def test_a_preset_that_is_no_line_of_text_is_refused(preset):
    with pytest.raises(FlagError, match=r"^--preset: expected text"):
        Config(preset=preset)


def test_differences_name_each_setting_that_differs_with_both_values():
    mine, theirs = Config(), Config().replace(way=3, kl_weight=0.5, preset="q")
    expected = [("way", 5, 3), ("kl_weight", 1e-3, 0.5), ("preset", "", "q")]
    assert mine.differences(theirs) == expected
    assert mine.differences(Config()) == []


def test_a_number_that_float32_would_make_zero_is_refused():
    with pytest.raises(
        FlagError, match=r"size from 1\.2e-38 to 3\.4e38, received 1e-50"
    ):
        Config().replace(outer_lr=1e-50)
    assert Config().replace(kl_weight=0.0).model.kl_weight == 0.0
