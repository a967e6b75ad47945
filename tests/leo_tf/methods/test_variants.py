"""METHOD@TRANSFORM: what a name stands for, and in which order names come."""

import pytest

from leo_tf.errors import FlagError
from leo_tf.methods import variants
from leo_tf.methods.variants import Variant, in_running_order, in_table_order
from leo_tf.methods.variants import variant_named as named


def test_a_name_is_a_method_on_the_shared_transform_or_on_its_own():
    assert named("ridge") == Variant("ridge", "")
    assert named("ridge").settings == {"method": "ridge"}
    soft = named("ridge@soft")
    assert soft.settings == {"method": "ridge", "feature_transform": "soft"}
    assert (named("ridge").title, soft.title) == (
        "Ridge regression",
        "Ridge regression, soft",
    )
    lda = {"method": "lda", "feature_transform": "lda"}
    assert named("lda").settings == lda, "it is made of that, whatever all share"


def test_a_name_is_known_if_its_method_and_its_transform_are():
    assert all(map(variants.is_known, ["leo", "leo@none", "a.b:C@lda"]))
    wrong = ["svm@lda", "leo@pca", "leo@", "@lda", "lda@lda", "runs@home"]
    assert not any(map(variants.is_known, wrong))
    with pytest.raises(FlagError, match=r"names: .* received 3"):
        named(3)


def test_variants_of_a_method_are_side_by_side_in_the_order_of_the_paper():
    asked = ["leo@soft", "own:Two", "leo", "ridge@lda", "own:Two@lda", "own:One"]
    asked += ["ridge@none", "leo@none", "leo"]
    found = ["ridge@none", "ridge@lda", "leo", "leo@none", "leo@soft"]
    assert in_table_order(asked) == [*found, "own:Two", "own:Two@lda", "own:One"]
    for wrong in ([], "leo"):
        with pytest.raises(FlagError, match="names in a list"):
            in_table_order(wrong)


def test_what_is_not_trained_runs_first_and_else_as_asked():
    asked = ["leo@lda", "ridge@soft", "maml", "centroid", "leo"]
    found = ["ridge@soft", "centroid", "leo@lda", "maml", "leo"]
    assert in_running_order(asked) == found
