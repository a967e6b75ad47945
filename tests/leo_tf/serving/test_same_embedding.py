"""Features of another backbone than the model's are refused, wherever the model is."""

import json

import numpy as np
import pytest
from served_models import SIZE, write_model

from leo_tf.serving.classifier import Classifier

MADE = {"weights": "a1", "preprocessing": "none", "views": "center", "side": 32}
FEATURES, LABELS = np.eye(4, SIZE, dtype=np.float32) + 0.1, ["a", "b", "a", "b"]


@pytest.fixture
def exported(tmp_path):
    """An export whose features are of a backbone."""
    directory = tmp_path / "exported"
    write_model(directory / "1")
    path = directory / "1" / "export.json"
    metadata = json.loads(path.read_text()) if path.exists() else {"files": {}}
    path.write_text(json.dumps({**metadata, "embedding": {**MADE, "backbone": "b"}}))
    return directory


def features_of(directory, **changes):
    directory.mkdir(exist_ok=True)
    made = {**MADE, "backbone": "elsewhere/b", **changes}
    (directory / "embedding.json").write_text(json.dumps(made))
    return directory


def test_features_of_the_models_backbone_are_taken_and_others_are_not(
    exported, tmp_path
):
    mine = features_of(tmp_path / "mine")
    for path in (mine, mine / "embedding.json"):
        Classifier(exported, embedding=path).fit(FEATURES, LABELS)
    for name, value in {"weights": "b2", "views": "whole", "side": 64}.items():
        other = features_of(tmp_path / "other", **{name: value})
        classifier = Classifier(exported, embedding=str(other))
        said = f"embedding.json: expected the `{name}` of the model's features"
        with pytest.raises(ValueError, match=said) as caught:
            classifier.fit(FEATURES, LABELS)
        assert repr(value) in str(caught.value) and not hasattr(classifier, "classes_")
    Classifier("centroid", embedding=other).fit(FEATURES, LABELS)  # it has no model


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"weights": "a1"}', "[" * 99_999]
)
def test_what_is_no_record_of_an_embedding_is_refused(exported, tmp_path, content):
    if content is not None:
        (tmp_path / "embedding.json").write_text(content)
    with pytest.raises(ValueError, match=r"embedding: .*expected an embedding\.json"):
        Classifier(exported, embedding=tmp_path).fit(FEATURES, LABELS)


def test_a_model_that_records_none_is_not_known_to_be_of_the_same(tmp_path):
    write_model(tmp_path / "exported" / "1")
    mine = features_of(tmp_path / "mine")
    with pytest.raises(ValueError, match="of the model's features, None"):
        Classifier(tmp_path / "exported", embedding=mine).fit(FEATURES, LABELS)


def test_a_server_is_asked_what_its_model_has(exported, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from running_server import serving

    with serving(exported) as (port, _):
        url = f"http://127.0.0.1:{port}"
        mine, other = tmp_path / "mine", tmp_path / "other"
        Classifier(url, embedding=features_of(mine)).fit(FEATURES, LABELS)
        with pytest.raises(ValueError, match="`weights` of the model's features, 'a1'"):
            Classifier(url, embedding=features_of(other, weights="c3")).fit(
                FEATURES, LABELS
            )
    with pytest.raises(ConnectionError, match=r"model\.json: expected the model's"):
        Classifier(url, embedding=mine).fit(FEATURES, LABELS)
