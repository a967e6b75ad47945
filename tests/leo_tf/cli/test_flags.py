import os

import pytest
from absl import flags as absl_flags

from leo_tf.cli.flags import define_flags, options_from_flags, parse
from leo_tf.cli.options import OPTIONS
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.errors import FlagError


def read(*arguments):
    return parse(["run_leo.py", *arguments])


def test_without_flags_the_embedded_preset_is_trained():
    options = read()
    assert options.config == PRESETS["glyphs"].config()
    assert (options.mode, options.workdir, dict(options.explicit)) == ("train", "", {})
    assert not options.debug and not options.quiet


def test_other_flags_alone_keep_the_embedded_preset():
    expected = PRESETS["glyphs"].config().replace(num_steps=7, seed=3)
    assert read("--num_steps=7", "--seed=3").config == expected
    assert read("--dataset_name=glyphs", "--num_steps=7", "--seed=3").config == expected


OTHER_VALUES = {bool: "true", int: "4", float: "0.25"}
OTHER_TEXTS = {
    "class_split": "0.6,0.2,0.2",
    "dataset_name": "birds",
    "data_path": "/e",
    "embedding_crop": "multiview",
    "dtype": "float64",
    "ensemble": "ridge",
    "feature_transform": "lda",
    "jit": "off",
    "method": "maml",
    "residual": "ridge",
    "sklearn_parameters": '{"c": 1}',
    "strategy": "mirrored",
}


@pytest.mark.parametrize("name", GROUP_OF)
def test_every_setting_is_a_flag_of_the_same_name(name):
    rule = OPTIONS[name].rule
    text = OTHER_TEXTS.get(name) or OTHER_VALUES[rule.kind]
    more = ["--class_folds=3"] if name == "split_seed" else []
    options = read(f"--{name}={text}", "--data_path=/e", *more)
    value = options.config.flat()[name]
    assert value != Config().flat()[name] and str(value).lower() == text
    assert options.explicit[name] == value


ALIASES = [  # flag of the release, its value, setting, value of the setting
    ("num_classes", "3", "way", 3),
    ("num_tr_examples_per_class", "5", "shot", 5),
    ("num_val_examples_per_class", "7", "num_query", 7),
    ("metatrain_batch_size", "4", "meta_batch_size", 4),
    ("metavalid_batch_size", "20", "num_val_episodes", 200),
    ("metatest_batch_size", "300", "num_test_episodes", 9900),
    ("num_steps_limit", "9", "num_steps", 9),
    ("checkpoint_steps", "11", "validate_every", 11),
]


@pytest.mark.parametrize("alias,text,name,value", ALIASES)
def test_a_flag_of_the_release_sets_what_it_is_called_here(alias, text, name, value):
    options = read(f"--{alias}={text}")
    assert dict(options.explicit) == {name: value}
    assert options.config == PRESETS["glyphs"].config().replace(**{name: value})


def test_every_flag_of_the_release_is_known():
    release = """data_path dataset_name embedding_crop train_on_val inner_unroll_length
    finetuning_unroll_length num_latents inner_lr_init finetuning_lr_init dropout_rate
    kl_weight encoder_penalty_weight l2_penalty_weight orthogonality_penalty_weight
    num_classes num_tr_examples_per_class num_val_examples_per_class
    metatrain_batch_size metavalid_batch_size metatest_batch_size num_steps_limit
    outer_lr gradient_threshold gradient_norm_threshold checkpoint_path
    checkpoint_steps evaluation_mode"""
    assert set(release.split()) <= set(OPTIONS)


def test_a_range_is_read_by_both_names_of_a_flag(refusal):
    for way, shot in (("way", "shot"), ("num_classes", "num_tr_examples_per_class")):
        config = read(f"--{way}=5-20", f"--{shot}=1-10").config
        assert (config.episodes.way, config.episodes.shot) == ("5-20", "1-10")
    for text in ("20-5", "5-", "5-x", "1-9"):
        assert refusal(f"--way={text}").where == "--way"


def test_run_options_of_the_release_set_mode_and_workdir():
    options = read("--evaluation_mode=True", "--checkpoint_path=/tmp/leo")
    assert (options.mode, options.workdir) == ("evaluate", "/tmp/leo")
    assert read("--noevaluation_mode").mode == "train"
    assert dict(options.explicit) == {}


def test_the_first_command_of_the_release_readme_trains_with_the_release_defaults():
    expected = Config().replace(data_path="/e", dataset_name="miniImageNet")
    assert read("--data_path=/e").config == expected
    assert read("--", "--data_path=/e").config == expected
    assert read("--data_path", "/e").config == expected


def test_the_second_command_of_the_release_readme_trains_tiered_5_shot():
    options = read(
        *["--", "--data_path=/e", "--dataset_name=tieredImageNet"],
        *["--num_tr_examples_per_class=5", "--outer_lr=1e-4"],
    )
    typed = dict(data_path="/e", dataset_name="tieredImageNet", shot=5, outer_lr=1e-4)
    assert options.config == Config().replace(**typed)
    assert dict(options.explicit) == typed


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "glyphs"])
def test_a_published_preset_needs_the_official_embeddings(name, refusal):
    error = refusal(f"--preset={name}")
    assert error.where == "--data_path" and name in error.expected
    config = read(f"--preset={name}", "--data_path=/e").config
    assert config == PRESETS[name].config().replace(data_path="/e")


def test_a_flag_overrides_its_preset_wherever_it_stands():
    expected = PRESETS["mini_5shot"].config().replace(shot=2, data_path="/e")
    flags = ["--shot=2", "--preset=mini_5shot", "--data_path=/e"]
    assert read(*flags).config == read(*reversed(flags)).config == expected
    # A typed default of the schema overrides, too.
    assert read(*flags, "--dropout_rate=0.5").config.model.dropout_rate == 0.5


def test_an_npz_file_names_its_data_set():
    config = read("--data_path=/a/my-birds.npz").config
    assert config == Config().replace(
        data_path="/a/my-birds.npz", dataset_name="my-birds"
    )
    config = read("--data_path=/a/b.npz", "--dataset_name=c").config
    assert config.data.dataset_name == "c"
    config = read("--data_path=/a/b.npz", "--preset=mini_1shot").config
    assert (config.data.dataset_name, config.model.dropout_rate) == ("b", 0.307651)


def test_the_embedded_preset_on_own_data_reads_the_own_data():
    config = read("--preset=glyphs", "--data_path=/e").config
    assert config.data.dataset_name == "miniImageNet" and config.run.num_steps == 4000


def test_a_data_set_that_is_not_embedded_needs_a_path(refusal):
    error = refusal("--dataset_name=miniImageNet")
    assert error.where == "--dataset_name" and "glyphs" in error.expected
    error = refusal("--preset=mini_1shot", "--dataset_name=birds")
    assert error.where == "--dataset_name" and "birds" in error.received


def test_runs_on_a_cluster_are_not_in_this_process(refusal):
    error = refusal("--mode=compare", "--workdir=w", "--cluster=auto", "--jobs=0")
    assert (error.where, error.expected) == ("--jobs", "none with --cluster")


def test_a_home_directory_is_found_behind_the_equals_sign():
    options = read("--data_path=~/e", "--workdir=~/w")
    home = os.path.expanduser("~")
    assert (options.config.data.data_path, options.workdir) == (
        f"{home}/e",
        f"{home}/w",
    )
    assert options.explicit["data_path"] == f"{home}/e"


@pytest.mark.parametrize(
    "old,new,target",
    [
        ("--num_classes=4", "--way=5", "--way"),
        ("--evaluation_mode", "--mode=train", "--mode"),
        ("--checkpoint_path=/a", "--workdir=/b", "--workdir"),
        ("--metavalid_batch_size=200", "--num_val_episodes=200", "--num_val_episodes"),
    ],
)
def test_an_old_and_a_new_name_with_different_values_are_refused(
    old, new, target, refusal
):
    for arguments in ([old, new], [new, old]):
        error = refusal(*arguments)
        assert old.split("=")[0] in error.where and target in error.where


def test_an_old_and_a_new_name_may_agree():
    assert read("--num_classes=4", "--way=4").config.episodes.way == 4
    both = read("--metavalid_batch_size=200", "--num_val_episodes=2000")
    assert both.config.run.num_val_episodes == 2000


def test_zero_checkpoint_steps_mean_nothing_in_evaluation():
    options = read("--evaluation_mode", "--checkpoint_steps=0", "--workdir=/w")
    assert options.mode == "evaluate" and dict(options.explicit) == {}


def test_zero_checkpoint_steps_are_refused_in_training(refusal):
    assert refusal("--checkpoint_steps=0").where == "--checkpoint_steps"
    assert refusal("--validate_every=0").where == "--validate_every"


def test_evaluation_tells_what_was_typed_and_needs_a_run_directory_only(refusal):
    options = read("--mode=evaluate", "--workdir=/w", "--num_test_episodes=50")
    assert dict(options.explicit) == {"num_test_episodes": 50}
    options = read("--mode=evaluate", "--workdir=/w", "--preset=mini_1shot")
    assert dict(options.explicit) == {"preset": "mini_1shot"}
    assert refusal("--mode=evaluate").where == "--workdir"


def test_two_command_lines_do_not_share_flags():
    read("--way=3", "--debug")
    assert read().config.episodes.way == 5 and not read().debug
    assert read("--debug", "--quiet").debug and read("--quiet").quiet


def test_flags_set_by_a_program_are_checked_too():
    flag_values = absl_flags.FlagValues()
    define_flags(flag_values)
    flag_values(["program"])
    flag_values.way = 3
    assert options_from_flags(flag_values).config == PRESETS["glyphs"].config().replace(
        way=3
    )
    flag_values.way = 1
    with pytest.raises(FlagError, match=r"^--way: "):
        options_from_flags(flag_values)


def test_a_directory_of_three_files_gives_the_data_its_name(tmp_path):
    directory = tmp_path / "mine"
    directory.mkdir()
    assert read(f"--data_path={directory}").config.data.dataset_name == "miniImageNet"
    (directory / "train.npz").write_bytes(b"")
    assert read(f"--data_path={directory}").config.data.dataset_name == "mine"
    (directory / "miniImageNet").mkdir()  # the release's layout is preferred
    assert read(f"--data_path={directory}").config.data.dataset_name == "miniImageNet"
