"""Tests that the card of an export agrees with export.json, in the hub's format."""

import copy
import json
import re

import pytest

from leo_tf.export.model_card import model_card

METADATA = {
    "export_format": "saved_model",
    "method": "leo",
    "embedding_size": 7,
    "embedding": None,
    "pictures": None,
    "way": None,
    "max_classes": 100,
    "max_support": 1000,
    "signatures": {"adapt": {}, "predict": {}, "classify": {}, "embed": {}},
    "fitted_on_validation": {
        "episodes": 500,
        "way": 5,
        "shot": 1,
        "temperature": 0.812,
        "score": "logit",
        "auroc": {"probability": 0.9, "logit": 0.912},
    },
    "trained_on": {
        "dataset_name": "birds",
        "source": "/home/me/birds",
        "train_on_val": False,
        "digests": {"train": "abc", "test": "def"},
        "classes": {"train": 64, "test": 20},
    },
    "ensemble": None,
    "config": {"features": {"feature_transform": "none"}},
    "step": 300,
    "test_accuracy": {
        "mean": 0.91662,
        "half_width_95": 0.0029,
        "ece": 0.17,
        "ece_scaled": 0.0086,
        "episodes": 2000,
        "test": {"way": 5, "shot": 1, "num_query": 19},
        "test_samples": 0,
    },
    "versions": {"leo-tf": "0.1.0"},
}


@pytest.fixture
def metadata():
    return copy.deepcopy(METADATA)


def front_matter(card: str) -> dict[str, str]:
    """Returns the fields of the front matter, as text."""
    matter = re.match(r"---\n(.*?)^---\n", card, re.DOTALL | re.MULTILINE)[1]
    lines = [line for line in matter.splitlines() if not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)


def test_the_card_tells_data_accuracy_confidence_and_limits(metadata):
    card = model_card(metadata)
    for part in (
        "# leo on birds",
        "feature vectors of 7 numbers",
        "training classes of `birds`",
        "from step 300, the best on validation episodes",
        "\n- train: 64 classes, SHA-256 `abc`",
        "error on test episodes is 17.0 % without the temperature, 0.9 % with it",
        "91.66 ± 0.29 % in 5-way 1-shot episodes",
        "95 % interval over 2000\nepisodes",
        "temperature of 0.812",
        "AUROC of 91.2 %",
        "At most 100 classes and 1000 labelled examples",
        "hf upload USER/NAME .",
    ):
        assert " ".join(part.split()) in " ".join(card.split()), part
    assert "/home/me" not in card, "paths of this machine are nobody's business"


def test_an_accuracy_over_draws_is_told_to_be_none_of_the_export(metadata):
    assert "draws" not in model_card(metadata)
    metadata["test_accuracy"]["test_samples"] = 30
    card = " ".join(model_card(metadata).split())
    assert "averaged over 30 draws, which this export does not make. ±" in card


def test_the_front_matter_has_the_accuracy_where_the_hub_reads_it(metadata):
    fields = front_matter(model_card(metadata))
    [model] = json.loads(fields["model-index"])
    [result] = model["results"]
    assert result["metrics"][0]["value"] == 91.66
    assert result["dataset"]["name"] == "birds"
    assert fields["library_name"] == "leo-tf"


def test_what_is_unknown_is_said_to_be(metadata):
    metadata |= {"test_accuracy": None, "fitted_on_validation": None}
    card = model_card(metadata)
    assert "not tested" in card and "not calibrated" in card
    assert "model-index" not in card and "unknown=" not in card and "None" not in card


def test_the_card_claims_no_choice_and_no_training_that_was_not(metadata):
    metadata["trained_on"] |= {"train_on_val": True}
    last = " ".join(model_card(metadata).split())
    assert "`leo`, from step 300." in last, "the newest, not the best on validation"
    assert "training and validation classes" in last and "- train: 64 classes" in last
    untrained = model_card(metadata | {"method": "ridge", "step": 0})
    assert "`ridge`, without training." in untrained
    assert "best on validation" not in untrained and "Trained on" not in untrained


@pytest.mark.parametrize("known", ["ece", None])
def test_a_calibration_error_that_is_not_finite_is_left_out(metadata, known):
    missing = {"ece", "ece_scaled"} - {known}
    metadata["test_accuracy"] |= dict.fromkeys(missing)
    card = " ".join(model_card(metadata).split())
    assert ("error on test episodes is 17.0 %." in card) == (known is not None)
    assert "None" not in card


def test_the_card_advises_only_what_works_with_the_export(metadata):
    assert "Classifier(" in model_card(metadata)
    lite = model_card(metadata | {"export_format": "tflite"})
    transductive = model_card(metadata | {"signatures": {"classify": {}}})
    for card in (lite, transductive):
        assert ".fit(features, labels)" not in card
    of_one_way = model_card(metadata | {"way": 5})
    assert "exactly 5 classes" in of_one_way and "At most 5 classes" in of_one_way
    assert "At most 100 classes" in model_card(metadata)


def test_the_card_tells_of_pictures_if_the_export_takes_them(metadata):
    assert "PNG" not in model_card(metadata)
    card = " ".join(model_card(metadata | {"pictures": {"backbone": "hog"}}).split())
    assert "exactly as in training; the export computes them itself from JPEG" in card
    assert "of 7 numbers, or of pictures. It" in card


def test_the_card_names_all_that_its_accuracy_is_of(metadata):
    assert "`leo`, from step 300" in " ".join(model_card(metadata).split())
    metadata["config"]["features"]["feature_transform"] = "lda"
    card = " ".join(model_card(metadata).split())
    assert "`leo` on `lda` features, which the export computes, from step" in card
    metadata["ensemble"] = {"other": "ridge", "share": 0.35}
    mixed = model_card(metadata)
    text = " ".join(mixed.split())
    assert "`leo`, mixed with `ridge` (share 0.35) on `lda` features" in text
    [model] = json.loads(front_matter(mixed)["model-index"])
    assert model["name"] == "leo + ridge on birds" and "# leo + ridge on birds" in mixed
    metadata["ensemble"]["share"] = 0.0
    assert " ".join(model_card(metadata).split()) == card


def test_a_name_from_a_file_breaks_neither_front_matter_nor_markdown(metadata):
    metadata["trained_on"]["dataset_name"] = 'a": `b`\n---\n# c'
    card = model_card(metadata)
    [model] = json.loads(front_matter(card)["model-index"])
    assert "\n" not in model["results"][0]["dataset"]["name"]
    assert not re.search("^# c", card, re.MULTILINE)


def test_an_export_has_its_card(trained_export):
    found = json.loads((trained_export / "1" / "export.json").read_text("utf-8"))
    assert (trained_export / "1" / "README.md").read_text("utf-8") == model_card(found)
