"""Tests of TensorFlow Serving's protocol, and of the server's description."""

import contextlib
import http.client
import json
import os
import re
import socket
import time

import numpy as np
import pytest
from running_server import (
    GOOD,
    INPUTS,
    LABELS,
    PREDICT,
    SUPPORT,
    check_good,
    refused,
    serving,
    wait_for,
)

from leo_tf.errors import FlagError
from leo_tf.serving import server
from leo_tf.serving.rest_api import Rest


def test_the_default_signature_answers_by_columns(client):
    check_good(client.predict(GOOD))
    check_good(client.predict({**GOOD, "signature_name": "classify"}))
    check_good(client.predict(GOOD, "/v1/models/leo/versions/4:predict"))


def test_adapt_and_predict_give_what_classify_gives(client):
    inputs = {"support": INPUTS["support"], "labels": INPUTS["labels"]}
    status, adapted = client.predict({"signature_name": "adapt", "inputs": inputs})
    assert status == 200 and adapted["outputs"]["way"] == 3
    assert np.shape(adapted["outputs"]["classifier"]) == (3, 4)
    classifier = adapted["outputs"]["classifier"]
    inputs = {"classifier": classifier, "queries": INPUTS["queries"]}
    answer = client.predict({"signature_name": "predict", "inputs": inputs})
    check_good(answer)
    assert answer == client.predict(GOOD)  # to the last digit


def test_rows_are_answered_by_rows_where_their_numbers_agree(client):
    rows = [
        {"support": row, "labels": label}
        for row, label in zip(INPUTS["support"], INPUTS["labels"])
    ]
    status, answer = client.predict({"signature_name": "embed", "instances": rows})
    means = [SUPPORT[c == LABELS].mean(0)[:2] for c in range(3)]
    assert status == 200
    before = [row["latents_before"] for row in answer["predictions"]]
    np.testing.assert_allclose(before, means, rtol=1e-5)
    adapt = client.predict({"signature_name": "adapt", "instances": rows})
    refused(adapt, "instances: expected `inputs`", "way []")
    classify = client.predict({"instances": rows})
    refused(classify, "queries: expected a value in `instances`")


def test_one_input_and_one_output_need_no_names(client):
    for asked, answered in (("inputs", "outputs"), ("instances", "predictions")):
        request = {"signature_name": "double", asked: [[1, 2.5, -3]]}
        assert client.predict(request) == (200, {answered: [[2.0, 5.0, -6.0]]})
    named = {"signature_name": "double", "inputs": {"values": [[0, 0, 1]]}}
    assert client.predict(named) == (200, {"outputs": [[0.0, 0.0, 2.0]]})


def test_nan_and_infinity_go_in_and_out_by_name(client):
    body = b'{"signature_name": "double", "inputs": [[NaN, Infinity, -Infinity]]}'
    client.connection.request("POST", PREDICT, body)
    assert client.connection.getresponse().read() == (
        b'{"outputs": [[NaN, Infinity, -Infinity]]}'
    )


def test_the_status_and_the_metadata_are_those_of_tensorflow_serving(client):
    status = {
        "version": "4",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    expected = 200, {"model_version_status": [status]}
    assert client.ask("GET", "/v1/models/leo") == expected
    assert client.ask("GET", "/v1/models/leo/versions/4") == expected
    code, content = client.ask("GET", "/v1/models/leo/metadata")
    assert code == 200
    assert content["model_spec"] == {
        "name": "leo",
        "signature_name": "",
        "version": "4",
    }
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert signatures["predict"]["method_name"] == "tensorflow/serving/predict"
    labels = signatures["adapt"]["inputs"]["labels"]
    assert labels == {
        "dtype": "DT_INT64",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": labels["name"],
    }
    assert labels["name"].startswith("adapt_labels")


def test_it_says_that_it_lives(client):
    assert client.ask("GET", "/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/leo/versions/5", 404, "Could not find version 5"),
        ("POST", "/v1/models/foo:predict", 404, "not found for request: Latest(foo)"),
        ("POST", "/v1/models/leo/versions/5:predict", 404, "Specific(leo, 5)"),
        ("GET", "/v1/models/leo/versions/5/metadata", 404, "Specific(leo, 5)"),
        ("GET", "/v1/models", 400, "Missing model name"),
        ("GET", "/v1/model/leo", 400, "Malformed request: GET /v1/model/leo"),
        ("DELETE", "/v1/models/leo/4", 400, "Malformed request: DELETE"),
        ("GET", PREDICT, 405, "method: expected POST, received GET."),
        ("POST", "/v1/models/leo", 405, "method: expected GET, HEAD, received POST."),
        ("POST", "/v1/models/leo:classify", 400, "signature_name"),
        ("GET", f"/v1/models/leo/versions/{2**63}", 400, "Failed to convert version"),
        ("GET", f"/v1/models/leo/versions/{'9' * 5000}", 400, "Failed to convert"),
        ("GET", "/nothing", 404, "Not Found"),
        ("POST", "/healthz", 405, "method: expected GET, HEAD, received POST."),
    ],
)
def test_what_is_not_there_is_refused_in_tensorflow_servings_words(
    client, method, path, status, words
):
    refused(client.ask(method, path, b"{}"), words, status=status)


def test_answers_do_not_wait_for_acknowledgements(client):
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        client.ask("GET", "/healthz")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03  # 0.04 each with Nagle's algorithm
    with server.bound("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_the_description_names_every_endpoint_and_the_page_needs_no_network(client):
    status, description = client.ask("GET", "/openapi.json")
    assert status == 200 and description["openapi"].startswith("3.")
    text = json.dumps(description)
    for kind, name in re.findall(r"#/components/(\w+)/(\w+)", text):
        assert name in description["components"][kind]
    for path, methods in description["paths"].items():
        path = path.replace("{version}", "4")
        for method in methods:
            body = b"{}" if method == "post" else None
            assert client.send(method.upper(), path, body)[0] in (200, 400)
    reference = description["paths"][PREDICT]["post"]["requestBody"]["$ref"]
    assert reference == "#/components/requestBodies/Predict"
    content = description["components"]["requestBodies"]["Predict"]["content"]
    for example in content["application/json"]["examples"].values():
        assert client.predict(example["value"])[0] == 200
    client.connection.request("GET", "/docs")
    answer = client.connection.getresponse()
    page = answer.read().decode()
    assert answer.headers["Content-Type"].startswith("text/html")
    assert all(path in page for path in description["paths"])
    assert "http://" not in page and "https://" not in page


def test_too_many_connections_are_turned_away_until_some_are_closed(
    exported, monkeypatch
):
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 4)
    with serving(exported) as (port, _):

        def status():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/healthz")
            with contextlib.closing(connection):
                return connection.getresponse().status

        assert status() == 200
        address = "127.0.0.1", port
        idle = [socket.create_connection(address) for _ in range(4)]
        wait_for(lambda: status() == 503)
        for connection in idle:
            connection.close()
        wait_for(lambda: status() == 200)


def test_a_port_that_there_cannot_be_is_an_error_of_the_flag():
    with pytest.raises(FlagError, match=r"an address to listen on, received .*70000"):
        server.bound("127.0.0.1", 70_000)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity")
def test_requests_are_computed_on_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert Rest(None, 1)._threads._max_workers == 2
