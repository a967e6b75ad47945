"""Scikit-learn's own checks of the client as an estimator."""

import pytest
from served_models import clusters, write_model

from leo_tf.serving.classifier import Classifier

# Checks of scikit-learn that the client fails on purpose, with the reason.
OTHERWISE = {
    "check_fit_score_takes_y": "the arguments are called features and labels",
    "check_estimators_unfitted": "the error is ours: scikit-learn is not imported",
    "check_supervised_y_2d": "a column of labels is refused, not flattened",
    "check_dtype_object": "a dict is a ValueError as every bad value, no TypeError",
    # These also raise a ValueError, but with our message.
    "check_n_features_in_after_fitting": "our words: expected 4 columns",
    "check_complex_data": "our words: an array of complex128",
    "check_estimators_empty_data_messages": "our words: expected 1 column or more",
    "check_fit2d_1sample": "our words: expected 2 classes or more",
    "check_fit2d_predict1d": "our words: expected numbers [rows, D]",
    "check_requires_y_none": "our words: an array of shape ()",
}
# These may fail, because the last bit of a float32 depends on the other rows.
ROUNDING = {
    "check_methods_subset_invariance": "rounding of float32",
    "check_methods_sample_order_invariance": "rounding of float32",
}


@pytest.mark.filterwarnings("ignore:Estimator Classifier", "ignore:Skipping check")
def test_it_is_an_estimator_by_scikit_learns_checks(tmp_path):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    write_model(tmp_path / "1", size=None, max_classes=100, max_support=10_000)
    results = checks.check_estimator(
        Classifier(tmp_path),
        expected_failed_checks={**OTHERWISE, **ROUNDING},
        on_fail="raise",
    )
    status = {result["check_name"]: result["status"] for result in results}
    others = {name for name, each in status.items() if each == "xfail"}
    assert others - set(ROUNDING) == set(OTHERWISE)
    assert list(status.values()).count("passed") > 35


def test_names_of_columns_are_checked_as_scikit_learn_does(tmp_path):
    pytest.importorskip("pandas")
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    write_model(tmp_path / "1", size=None, max_classes=100, max_support=10_000)

    class Named(Classifier):
        def score(self, X, y):  # the check calls it by these names
            return super().score(X, y)

    Named.__name__ = Classifier.__name__  # the name in messages
    checks.check_dataframe_column_names_consistency("Classifier", Named(tmp_path))


def test_cross_validation_clones_it(tmp_path):
    write_model(tmp_path / "1")
    selection = pytest.importorskip("sklearn.model_selection")
    support, labels = clusters(3, 4)
    scores = selection.cross_val_score(Classifier(tmp_path), support, labels, cv=2)
    assert scores.tolist() == [1.0, 1.0]
