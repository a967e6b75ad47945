"""Methods of jobs whose user named none, and which of them are left out."""

import pytest

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.methods.defaults import SLOWER, compared, in_time
from leo_tf.methods.variants import in_running_order
from leo_tf.methods.variants import variant_named as named


@pytest.mark.parametrize(
    ("shared", "others"),
    [
        ("none", "within soft lda"),
        ("lda", "none within soft"),
        ("within", "none soft lda"),
        ("center", "none within soft lda"),
    ],
)
@pytest.mark.parametrize("shot", [1, 2])
def test_by_default_the_untrained_stand_on_each_transform_once(shared, others, shot):
    names = compared(Config().replace(feature_transform=shared, test_shot=shot))
    euclidean = ("centroid_euclidean",) if shot > 1 else ()
    for method in ("centroid", *euclidean, "ridge", "logistic"):
        mine = [name for name in names if named(name).method == method]
        assert mine == [method, *(f"{method}@{other}" for other in others.split())]
    leo = ["leo", "leo@none" if shared == "lda" else "leo@lda"]
    protonet = "protonet" if shared == "lda" else "protonet@lda"
    others = "generator", "meta_sgd", "maml"
    slower = [name if shared == "lda" else f"{name}@lda" for name in SLOWER]
    assert names[-12:] == ["simpleshot", *slower, *leo, protonet, *others]
    assert in_running_order(names) == names and len(set(names)) == len(names)
    assert ("centroid_euclidean" in names) == (shot > 1)


@pytest.mark.parametrize(
    ("way", "val", "test", "left"),
    [
        (10, 100, 100, ["ridge", "pt_map", "distribution_calibration"]),
        (10, 101, 100, ["ridge", "distribution_calibration"]),
        (10, 100, 101, ["ridge", "distribution_calibration"]),
        (11, 20, 20, ["ridge", "pt_map"]),
        (11, 20, 200, ["ridge"]),
    ],
)
def test_what_is_slow_on_validation_or_test_episodes_is_left_out_and_named(
    way, val, test, left, capsys
):
    names = ["ridge", "pt_map", "distribution_calibration"]
    shapes = [{"way": way, "shot": 1, "num_query": number} for number in (val, test)]
    found = in_time({name: {"method": name} for name in names}, shapes, Console())
    assert found == {name: {"method": name} for name in left}
    said = capsys.readouterr().err
    slow = [named(name).title for name in names if name not in left]
    assert (f": {'; '.join(slow)}. " in said) if slow else not said
    if slow:
        most = f"{way * max(val, test):,}"
        assert f"{way} classes and up to {most} queries" in said
