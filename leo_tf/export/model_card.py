"""The model card of an export: README.md, with the front matter of Hugging Face's hub.

People are expected to edit it, so export.json has no digest of it.
"""

import json
from typing import Any

from leo_tf.errors import one_line

_CARD = """---
# license: yours to choose
library_name: leo-tf
tags: [few-shot-learning, meta-learning, tensorflow]
{index}---

# {title}

A few-shot classifier of feature vectors of {size} numbers{or_pictures}. It gets
labelled examples of new classes, and classifies queries. Made by leo-tf {version} with
the method `{method}`{parts}, {step}.

## Use

{how}

`export.json` beside this file has the signatures, all settings and the versions of
packages.

## Data

{data}

## Accuracy

{accuracy}

## Confidence

{confidence}

## Intended use

{use} Features must be computed exactly as in training{pictures}. Out of scope: other
features, and decisions that harm people if wrong, unless it was tested for them.

## Limits

- At most {max_classes} classes and {max_support} labelled examples per request.
- Accuracy on other data, or with more classes than tested, is unknown: test it there.
- It always answers with one of the given classes{unknown}.
- It inherits the biases of its features and labelled examples, which are not examined.

## Upload

`export.json` contains the path of your data: read it before you publish it. Choose a
license at the top of this file, log in with `hf auth login`, and in this directory run

    pip install huggingface_hub
    hf upload USER/NAME .
"""
_CLIENT = """```python
from leo_tf.serving import Classifier  # pip install leo-tf

classifier = Classifier("PATH OF THIS DIRECTORY").fit(features, labels)
classifier.predict(new_features)
```"""
_NOT_CALIBRATED = "Nothing was fitted on validation episodes: it is not calibrated."


def model_card(metadata: dict[str, Any]) -> str:
    """Returns the README.md of an export, from the content of its export.json."""
    trained, method = metadata["trained_on"], one_line(metadata["method"])
    fitted, tested = metadata["fitted_on_validation"], metadata["test_accuracy"]
    name = one_line(trained["dataset_name"]).replace("`", "'")
    mix = _mix(metadata)
    title = f"{method} + {mix['other']} on {name}" if mix else f"{method} on {name}"
    unknown = ", unless `Classifier(..., unknown=...)` is used" if fitted else ""
    return _CARD.format(
        index=_index(title, name, tested) if tested else "",
        title=title,
        size=metadata["embedding_size"],
        version=metadata["versions"]["leo-tf"],
        or_pictures=", or of pictures" if metadata["pictures"] else "",
        method=method,
        parts=_parts(metadata),
        step=_step(metadata),
        how=_how(metadata),
        data=_data(metadata, name),
        accuracy=_accuracy(tested),
        confidence=_confidence(fitted, tested or {}),
        use=_use(metadata),
        max_classes=metadata["way"] or metadata["max_classes"],
        max_support=metadata["max_support"],
        unknown=unknown,
        pictures=_pictures(metadata),
    )


def _pictures(metadata: dict[str, Any]) -> str:
    """Returns what the card says of an export that takes pictures."""
    if not metadata["pictures"]:
        return ""
    return "; the export computes them itself from JPEG and PNG files"


def _parts(metadata: dict[str, Any]) -> str:
    """Returns what the method is mixed with, and the transform of the features."""
    mix, name = _mix(metadata), metadata["config"]["features"]["feature_transform"]
    mixed = f", mixed with `{mix['other']}` (share {mix['share']:.2g})" if mix else ""
    if name == "none":
        return mixed
    return f"{mixed} on `{name}` features, which the export computes"


def _mix(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the closed form that adds to the answers, if any does."""
    mix = metadata["ensemble"]
    return mix if mix and mix["share"] else None


def _step(metadata: dict[str, Any]) -> str:
    if not (step := metadata["step"]):
        return "without training"
    how = ", the best on validation episodes"
    return f"from step {step}{'' if metadata['trained_on']['train_on_val'] else how}"


def _how(metadata: dict[str, Any]) -> str:
    if metadata["export_format"] == "tflite":
        return "`model.tflite` runs in LiteRT. It checks no requests: check them first."
    if "adapt" not in metadata["signatures"]:  # also learns from the queries
        return (
            "A TensorFlow SavedModel whose signature `classify` takes whole requests."
        )
    return _CLIENT


def _index(title: str, name: str, tested: dict[str, Any]) -> str:
    """Returns the results in the format of the hub. JSON is also YAML."""
    value = {"type": "accuracy", "value": round(100 * tested["mean"], 2)}
    result = {
        "task": {"type": "few-shot-classification"},
        "dataset": {"name": name, "type": name},
        "metrics": [{**value, "name": f"{_task(tested)} accuracy in %"}],
    }
    index = [{"name": title, "results": [result]}]
    return f"model-index: {json.dumps(index)}\n"


def _task(tested: dict[str, Any]) -> str:
    return f"{tested['test']['way']}-way {tested['test']['shot']}-shot"


def _data(metadata: dict[str, Any], name: str) -> str:
    trained, made = metadata["trained_on"], metadata["embedding"]
    splits = "training and validation" if trained["train_on_val"] else "training"
    lines = [f"Trained on the {splits} classes of `{name}`."]
    if not metadata["step"]:
        lines = [f"Made from `{name}`, without training."]
    if made:
        how = made if isinstance(made, str) else json.dumps(made)
        lines.append(f"Features: `{one_line(how)}`.")
    counts = {s: f"{n} classes, " for s, n in trained["classes"].items()}
    digests = [
        f"- {split}: {counts.get(split, '')}SHA-256 `{digest}`"
        for split, digest in trained["digests"].items()
    ]
    return "\n".join([*lines, *([""] if digests else []), *digests])


def _accuracy(tested: dict[str, Any] | None) -> str:
    if not tested:
        return "This checkpoint was not tested."
    mean, half = (100 * tested[name] for name in ("mean", "half_width_95"))
    draws, averaged = tested["test_samples"], ""
    if draws:
        averaged = f", averaged over {draws} draws, which this export does not make"
    return (
        f"{mean:.2f} ± {half:.2f} % in {_task(tested)} episodes of test classes, which "
        f"are not in training{averaged}. ± is the 95 % interval over "
        f"{tested['episodes']} episodes. It does not cover other training runs, or "
        "other classes."
    )


def _confidence(fitted: dict[str, Any] | None, tested: dict[str, Any]) -> str:
    error = ""
    if tested.get("ece") is not None:  # null if it was non-finite
        error = " The expected calibration error on test episodes is "
        error += _percent(tested["ece"])
        if tested.get("ece_scaled") is not None:
            error += (
                f" without the temperature, {_percent(tested['ece_scaled'])} with it"
            )
        error += "."
    if not fitted:
        return _NOT_CALIBRATED + error
    task = f"{fitted['way']}-way {fitted['shot']}-shot"
    text = (
        f"Logits are divided by a temperature of {fitted['temperature']:.3g}, fitted "
        f"on {fitted['episodes']} {task} episodes of validation classes."
    )
    if fitted["auroc"]:
        best = _percent(fitted["auroc"][fitted["score"]])
        text += f" Unknown classes are detected there with an AUROC of {best}."
    return text + error


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _use(metadata: dict[str, Any]) -> str:
    way = f"exactly {metadata['way']}" if metadata["way"] else "any number of"
    return (
        f"Classification into {way} classes, each with at least one labelled example."
    )
