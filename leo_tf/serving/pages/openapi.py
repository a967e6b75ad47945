"""The OpenAPI description of what the server answers to, and that as a page.

openapi.json has all of it but what depends on the model that is served.
"""

import html
import json
import pathlib
from typing import Any

from leo_tf.serving.model_versions import Served

_DESCRIPTION = pathlib.Path(__file__).with_suffix(".json")
_SHOWN_CHARACTERS = 400  # of an example on the page


def describe(served: Served, max_request_bytes: int) -> dict[str, Any]:
    """Returns the OpenAPI description of what serves `served`, sizes included."""
    description = json.loads(_DESCRIPTION.read_text("utf-8"))
    info, parts = description["info"], description["components"]
    info["version"] = str(served.version)
    info["description"] = info["description"].format(most_bytes=max_request_bytes)
    parts["parameters"]["version"]["schema"]["enum"] = [served.version]
    schemas, facts = parts["schemas"], served.facts
    *requests, rows = schemas["Request"]["anyOf"]
    requests = [each for each in requests if each["title"] in served.signature_def]
    schemas["Request"]["anyOf"] = [*requests, rows]
    rows["properties"]["signature_name"]["enum"] = [each["title"] for each in requests]
    if size := facts.get("parameters_per_class"):
        schemas["Classifier"]["items"] |= {"minItems": size, "maxItems": size}
    if size := facts.get("embedding_size"):
        schemas["Features"]["items"] |= {"minItems": size, "maxItems": size}
        first, second = [1] + [0] * (size - 1), [0] * (size - 1) + [1]
        inputs = {"support": [first, second], "labels": [0, 1], "queries": [first]}
        example = {"serving_default": {"value": {"inputs": inputs}}}
        _predict_content(description)["examples"] = example
    return description


def page(description: dict[str, Any]) -> str:
    """Returns the description as an HTML page, which needs nothing from the network."""
    info = {name: html.escape(text) for name, text in description["info"].items()}
    examples = _predict_content(description)["examples"].items()
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        f"<title>{info['title']}</title><body>",
        f"<h1>{info['title']}, version {info['version']}</h1>",
        f"<p>{info['description']}",
        'Machine-readable: <a href="/openapi.json">/openapi.json</a>.</p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation['summary'])}</p>")
            for name, example in examples if "requestBody" in operation else ():
                text = html.escape(json.dumps(example["value"])[:_SHOWN_CHARACTERS])
                parts.append(f"<p>{name}:</p><pre>{text}</pre>")
    parts.append("<h2>Schemas</h2>")
    for name, schema in description["components"]["schemas"].items():
        text = html.escape(json.dumps(schema, indent=1))
        parts.append(f"<details><summary>{name}</summary><pre>{text}</pre></details>")
    return "\n".join([*parts, "</body></html>"])


def _predict_content(description: dict[str, Any]) -> dict[str, Any]:
    body = description["components"]["requestBodies"]["Predict"]
    return body["content"]["application/json"]
