"""The client by scikit-learn's conventions, as scikit-learn checks them."""

import pytest
from served_models import clusters, write_model

from leo_tf.serving.classifier import Classifier

# What scikit-learn checks and we do otherwise, and why.
OTHERWISE = {
    "check_fit_score_takes_y": "the arguments are called features and labels",
    "check_estimators_unfitted": "the error is ours: scikit-learn is not imported",
    "check_supervised_y_2d": "a column of labels is refused, not flattened",
    "check_dtype_object": "a ValueError, as for everything that is no number",
    # These are refused with a ValueError too, only in our words.
    "check_n_features_in_after_fitting": "our words",
    "check_complex_data": "our words",
    "check_estimators_empty_data_messages": "our words",
    "check_fit2d_1sample": "our words",
    "check_fit2d_predict1d": "our words",
    "check_requires_y_none": "our words",
}


@pytest.mark.filterwarnings("ignore:Estimator Classifier", "ignore:Skipping check")
def test_it_is_an_estimator_by_scikit_learns_checks(tmp_path):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    write_model(tmp_path / "1", size=None, max_classes=100, max_support=10_000)
    results = checks.check_estimator(Classifier(tmp_path), on_fail=None)
    failed = {
        r["check_name"]: r["exception"] for r in results if r["status"] == "failed"
    }
    # The last bit of a float32 may differ by which rows stand beside it.
    for name in ("subset", "sample_order"):
        failed.pop(f"check_methods_{name}_invariance", None)
    assert set(failed) == set(OTHERWISE), failed
    passed = [r for r in results if r["status"] == "passed"]
    assert len(passed) > 35


def test_cross_validation_clones_it(tmp_path):
    write_model(tmp_path / "1")
    selection = pytest.importorskip("sklearn.model_selection")
    support, labels = clusters(3, 4)
    scores = selection.cross_val_score(Classifier(tmp_path), support, labels, cv=2)
    assert scores.tolist() == [1.0, 1.0]
