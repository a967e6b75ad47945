import pytest

from leo_tf.configs.presets import PRESETS
from leo_tf.configs.schema import Config
from tests.goldens.golden_io import PUBLISHED

COLUMNS = {  # preset: (column of the release's table, data set, shot)
    "mini_1shot": ("mini1", "miniImageNet", 1),
    "mini_5shot": ("mini5", "miniImageNet", 5),
    "tiered_1shot": ("tiered1", "tieredImageNet", 1),
    "tiered_5shot": ("tiered5", "tieredImageNet", 5),
}
ACCURACIES = {  # README of the release: paper, then release
    "mini_1shot": [(61.76, 0.08), (61.89, 0.16)],
    "mini_5shot": [(77.59, 0.12), (77.65, 0.09)],
    "tiered_1shot": [(66.33, 0.05), (66.25, 0.14)],
    "tiered_5shot": [(81.44, 0.09), (81.77, 0.09)],
}


def test_the_presets_are_the_four_published_setups_and_the_embedded_one():
    assert set(PRESETS) == {*COLUMNS, "glyphs"}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_published_preset_has_exactly_the_published_hyperparameters(name):
    column, dataset_name, shot = COLUMNS[name]
    published = dict(PUBLISHED[column])
    assert published.pop("K") == shot
    expected = {"dataset_name": dataset_name, "shot": shot, "num_steps": 100_000}
    flat = PRESETS[name].config().flat()
    assert {**published, **expected}.items() <= flat.items()


@pytest.mark.parametrize("name", COLUMNS)
def test_beyond_the_published_hyperparameters_a_preset_keeps_the_release_defaults(name):
    tuned = {*PUBLISHED["mini1"], "dataset_name", "shot", "preset"}
    differences = PRESETS[name].config().differences(Config())
    assert {setting for setting, _, _ in differences} <= tuned


@pytest.mark.parametrize("name", ACCURACIES)
def test_a_published_preset_states_the_printed_accuracies_and_their_protocol(name):
    expected = PRESETS[name].expected
    printed = [(a.percent, a.half_width) for a in expected]
    assert printed == ACCURACIES[name]
    assert {a.protocol for a in expected} == {"train+val"}
    assert all(a.source for a in expected)


def test_no_preset_trains_on_the_validation_classes_unasked():
    assert not any(p.config().data.train_on_val for p in PRESETS.values())


def test_a_configuration_remembers_the_preset_it_came_from():
    assert all(p.config().preset == name == p.name for name, p in PRESETS.items())


def test_the_embedded_preset_needs_no_data_and_validates_within_its_steps():
    config = PRESETS["glyphs"].config()
    assert config.data.is_embedded
    assert (config.episodes.way, config.episodes.shot) == (5, 1)
    assert config.run.num_steps % config.run.validate_every == 0


def test_a_preset_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        PRESETS["glyphs"].overrides["way"] = 3
