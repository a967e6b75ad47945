"""The OpenAPI description of the server, also as a page.

openapi.json has everything that does not depend on the served model.
"""

import html
import json
import pathlib
import re
from typing import Any

from leo_tf.serving.model_versions import Served

_DESCRIPTION = pathlib.Path(__file__).with_suffix(".json")
# Longer lists and texts of an example are replaced by their size on the page.
_SHOWN_NUMBERS, _SHOWN_CHARACTERS = 6, 60


def describe(served: Served, max_request_bytes: int) -> dict[str, Any]:
    """Returns the OpenAPI description of a server of `served`, with sizes."""
    description = json.loads(_DESCRIPTION.read_text("utf-8"))
    info, parts = description["info"], description["components"]
    info["version"] = str(served.version)
    info["description"] = info["description"].format(most_bytes=max_request_bytes)
    parts["parameters"]["version"]["schema"]["enum"] = [served.version]
    schemas, metadata = parts["schemas"], served.metadata
    *requests, rows = schemas["Request"]["anyOf"]
    requests = [each for each in requests if each["title"] in served.signature_def]
    schemas["Request"]["anyOf"] = [*requests, rows]
    rows["properties"]["signature_name"]["enum"] = [each["title"] for each in requests]
    if size := metadata.get("parameters_per_class"):
        schemas["Classifier"]["items"] |= {"minItems": size, "maxItems": size}
    examples = _predict_content(description)["examples"]
    if size := metadata.get("embedding_size"):
        schemas["Features"]["items"] |= {"minItems": size, "maxItems": size}
        first, second = [1] + [0] * (size - 1), [0] * (size - 1) + [1]
        inputs = {"support": [first, second], "labels": [0, 1], "queries": [first]}
        examples["serving_default"] = {"value": {"inputs": inputs}}
        inputs = {name: inputs[name] for name in ("support", "labels")}
        value = {"signature_name": "adapt", "inputs": inputs}
        examples["adapt"] = {"value": value}
    for name in [*examples]:
        if name not in served.signature_def:
            del examples[name]
    return description


def page(description: dict[str, Any]) -> str:
    """Returns the description as an HTML page that needs no other host."""
    info = {name: html.escape(text) for name, text in description["info"].items()}
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{info['title']}</title>",
        '<link rel="icon" href="/page/icon.svg">',
        '<link rel="stylesheet" href="/page/style.css">',
        '<script type="module" src="/page/docs.js"></script></head>',
        f'<body class="api"><h1>{info["title"]}, version {info["version"]}</h1>',
        f"<p>{info['description']}</p>",
        '<p><a href="/">Teach the model</a> · for programs: ',
        '<a href="/openapi.json">/openapi.json</a></p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(description, path, method, operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in description["components"]["schemas"].items():
        text = html.escape(json.dumps(schema, indent=1))
        parts.append(f"<details><summary>{name}</summary><pre>{text}</pre></details>")
    return "\n".join([*parts, "</body></html>"])


def _operation(description, path: str, method: str, operation: dict[str, Any]) -> str:
    """Returns an entry, to which docs.js adds a button to try it."""
    version = description["info"]["version"]
    tried = html.escape(path.replace("{version}", version), quote=True)
    parts = [
        f'<article data-method="{method.upper()}" data-path="{tried}">',
        f'<h3><span class="method">{method.upper()}</span>'
        f"<code>{html.escape(path)}</code></h3>",
        f"<p>{html.escape(operation['summary'])}</p>",
    ]
    examples = _predict_content(description)["examples"]
    for name, example in examples.items() if "requestBody" in operation else ():
        text = html.escape(short(example["value"]))
        parts.append(f"<p>{name}:</p>")
        parts.append(f'<pre data-example="{html.escape(name)}">{text}</pre>')
    return "\n".join([*parts, "</article>"])


def short(value: Any) -> str:
    """Returns JSON with sizes in place of long rows of numbers and long texts."""
    text = json.dumps(_shortened(value), indent=1, ensure_ascii=False)
    text = re.sub(r'"\[(\d+ numbers)\]"', r"[\1]", text)
    # Short lists of plain values fit into a line.
    return re.sub(r"\[([^\[\]{}]*)\]", lambda found: " ".join(found[0].split()), text)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]}… {len(value)} characters"
    if not isinstance(value, list):
        return value
    if len(value) > _SHOWN_NUMBERS and not isinstance(value[0], (dict, list, str)):
        return f"[{len(value)} numbers]"
    return [_shortened(each) for each in value]


def _predict_content(description: dict[str, Any]) -> dict[str, Any]:
    body = description["components"]["requestBodies"]["Predict"]
    return body["content"]["application/json"]
