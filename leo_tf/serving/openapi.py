"""What the server answers to, as an OpenAPI description, and that as a page.

The page is plain HTML without scripts, so it needs nothing from the network.
"""

import html
import json
from typing import Any

from leo_tf.serving.model_versions import Served

_Json = dict[str, Any]

_OPENAPI_VERSION = "3.1.0"
_SHAPES = {"support": "SD", "labels": "S", "queries": "MD", "classifier": "NP"}
_SHOWN_CHARACTERS = 400  # of an example on the page
_MEANINGS = {
    "adapt": "Labelled examples to a classifier, to be sent back with `predict`.",
    "predict": "A classifier and queries to probabilities.",
    "classify": "Both at once; the default.",
    "embed": "Labelled examples to latent codes before and after adaptation.",
}


def describe(served: Served, model: str, max_request_bytes: int) -> _Json:
    """Returns the OpenAPI description of what serves `served`, sizes included."""
    signatures = {
        name: signature
        for name, signature in served.signature_def.items()
        if set(signature["inputs"]) <= set(_SHAPES) and signature["inputs"]
    }
    paths = {"/healthz": {"get": _get("That the server lives.", "Health")}}
    root = f"/v1/models/{model}"
    for path, more in ((root, {}), (f"{root}/versions/{{version}}", _version(served))):
        predict = {**_predict(served, signatures), **more}
        paths[f"{path}:predict"] = {"post": predict}
        paths[path] = {"get": {**_get("Which versions there are.", "Status"), **more}}
        metadata = {**_get("Its signatures.", "Metadata"), **more}
        paths[f"{path}/metadata"] = {"get": metadata}
    return {
        "openapi": _OPENAPI_VERSION,
        "info": {
            "title": f"{model}: few-shot classification",
            "version": str(served.version),
            "description": "TensorFlow Serving's REST protocol. A request has "
            f"{max_request_bytes} bytes at most. S examples, N classes labelled "
            "0 to N - 1, M queries.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(served, signatures)},
    }


def page(description: _Json) -> str:
    """Returns the description as an HTML page."""
    info = description["info"]
    parts = [f"<h1>{html.escape(info['title'])}, version {info['version']}</h1>"]
    parts.append(f"<p>{html.escape(info['description'])}")
    parts.append('Machine-readable: <a href="/openapi.json">/openapi.json</a>.</p>')
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation['summary'])}</p>")
            for body in operation.get("requestBody", {}).get("content", {}).values():
                for name, example in body["examples"].items():
                    text = json.dumps(example["value"])[:_SHOWN_CHARACTERS]
                    parts.append(f"<p>{name}:</p><pre>{html.escape(text)}</pre>")
    parts.append("<h2>Schemas</h2>")
    for name, schema in description["components"]["schemas"].items():
        text = html.escape(json.dumps(schema, indent=1))
        parts.append(f"<details><summary>{name}</summary><pre>{text}</pre></details>")
    title = f"<title>{html.escape(info['title'])}</title>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{title}' + "\n".join(
        ["<body>", *parts, "</body></html>"]
    )


def _get(summary: str, schema: str) -> _Json:
    return {"summary": summary, "responses": _responses(schema, 400, 404)}


def _version(served: Served) -> _Json:
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "enum": [served.version]},
    }
    return {"parameters": [version]}


def _predict(served: Served, signatures: _Json) -> _Json:
    content = {
        "schema": {"$ref": "#/components/schemas/Request"},
        "examples": _examples(served, signatures),
    }
    return {
        "summary": "Runs one of the model's signatures.",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": _responses("Answer", 400, 404, 408, 413, 503),
    }


def _examples(served: Served, signatures: _Json) -> _Json:
    """A small request, if the number of features is known."""
    size = _size("D", served.facts)
    if not size or "serving_default" not in signatures:
        return {}
    first, second = [1] + [0] * (size - 1), [0] * (size - 1) + [1]
    inputs = {"support": [first, second], "labels": [0, 1], "queries": [first]}
    return {"serving_default": {"value": {"inputs": inputs}}}


def _responses(schema: str, *errors: int) -> _Json:
    def response(description: str, name: str) -> _Json:
        reference = {"$ref": f"#/components/schemas/{name}"}
        content = {"application/json": {"schema": reference}}
        return {"description": description, "content": content}

    responses = {"200": response("The answer.", schema)}
    for status in errors:
        responses[str(status)] = response("What was wrong.", "Error")
    return responses


def _schemas(served: Served, signatures: _Json) -> _Json:
    requests = [_request(served, name, each) for name, each in signatures.items()]
    values = {"type": ["object", "array", "number"]}
    text = {"type": "string"}
    return {
        "Request": {"anyOf": [*requests, _rows(signatures)]},
        "Answer": {
            "type": "object",
            "anyOf": [{"required": ["outputs"]}, {"required": ["predictions"]}],
            "properties": {"outputs": values, "predictions": {"type": "array"}},
        },
        "Error": _object(error=text),
        "Health": _object(status=text),
        "Status": _object(model_version_status={"type": "array"}),
        "Metadata": _object(model_spec={"type": "object"}, metadata={"type": "object"}),
    }


def _object(**properties: Any) -> _Json:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
    }


def _request(served: Served, name: str, signature: _Json) -> _Json:
    """A request for one signature, its inputs as columns."""
    inputs = {
        field: _tensor(field, info, served.facts)
        for field, info in signature["inputs"].items()
    }
    schema = _object(signature_name={"const": name}, inputs=_object(**inputs))
    if name == "serving_default":  # the one a request need not name
        schema["required"] = ["inputs"]
    schema["not"] = {"required": ["instances"]}
    schema["title"] = name
    if name in _MEANINGS:
        schema["description"] = _MEANINGS[name]
    return schema


def _rows(signatures: _Json) -> _Json:
    rows = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    schema = _object(signature_name={"enum": list(signatures)}, instances=rows)
    schema["required"] = ["instances"]
    schema["not"] = {"required": ["inputs"]}
    schema["title"] = "by rows"
    schema["description"] = (
        "Each instance has a row of every input; for signatures whose inputs have as "
        "many rows as each other, and whose outputs have as many as each other."
    )
    return schema


def _tensor(field: str, info: _Json, facts: _Json) -> _Json:
    """Lists of lists of numbers, of the sizes that are known."""
    schema: _Json = {"type": "number"}
    if info["dtype"] == "DT_INT64":
        schema = {"type": "integer", "minimum": 0}
    for letter in reversed(_SHAPES[field]):
        schema = {"type": "array", "items": schema}
        if size := _size(letter, facts):
            schema |= {"minItems": size, "maxItems": size}
    return {**schema, "description": f"[{', '.join(_SHAPES[field])}]"}


def _size(letter: str, facts: _Json) -> int | None:
    fields = {"D": "embedding_size", "P": "parameters_per_class"}
    return facts.get(fields.get(letter, ""))
