import dataclasses
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leo_tf.configs.schema import GROUP_OF, GROUPS, Config
from leo_tf.errors import InputError


def _values(rule):
    strategies = {
        bool: st.booleans(),
        int: st.integers(0, 2**31 - 1),
        float: st.floats(2e-38, 3e38) | st.floats(2e-38, 1) | st.just(0.0),
        str: st.sampled_from(["glyphs", "center", "auto", "float64"]) | st.text(),
    }
    values = strategies[rule.kind].filter(rule.accepts)
    return st.none() | values if rule.optional else values


FIELDS = [f for kind in GROUPS.values() for f in dataclasses.fields(kind)]
RULES = {field.name: field.metadata["rule"] for field in FIELDS}
del RULES["sklearn_parameters"]  # of a path the content is kept
SETTINGS = st.fixed_dictionaries({}, optional={n: _values(r) for n, r in RULES.items()})


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],  # few texts are accepted
)
@given(SETTINGS)
def test_json_of_any_configuration_reads_back_equal(changes):
    config = Config().replace(**changes, preset="some")
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_json_lacks_gets_its_default():
    read = Config.from_dict({"episodes": {"way": 3}, "model": {}})
    assert read == Config().replace(way=3)
    assert Config.from_dict({}) == Config()


@pytest.mark.parametrize(
    "values,named",
    [
        ({"episode": {}}, "episode"),
        ({"episodes": {"ways": 3}}, "ways"),
        ({"episodes": {"way": True}}, "`episodes.way`"),
        ({"episodes": {"way": None}}, "`episodes.way`"),
        ({"model": {"kl_weight": math.nan}}, "`model.kl_weight`"),
        ({"data": {"dataset_name": "../x"}}, "`data.dataset_name`"),
        ({"run": [1, 2]}, "`run`"),
        ({"run": None}, "`run`"),
        ({"preset": 3}, "`preset`"),
        (None, "config.json"),
        ([], "config.json"),
        ("text", "config.json"),
    ],
)
def test_bad_json_is_refused_in_one_line_that_names_file_and_field(values, named):
    with pytest.raises(InputError) as caught:
        Config.from_dict(values, source="config.json")
    message = str(caught.value)
    assert message.startswith("config.json") and named in message
    assert "\n" not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*GROUP_OF]) | st.text()
OBJECTS = st.dictionaries(st.sampled_from([*GROUPS]), st.dictionaries(NAMES, JSON))


@settings(max_examples=100, deadline=None)
@given(JSON | OBJECTS)
def test_any_json_value_gives_a_configuration_or_an_input_error(values):
    try:
        config = Config.from_dict(values)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert Config.from_dict(config.to_dict()) == config
