"""Tests that all requests, also many at once, are answered or refused."""

import concurrent.futures
import json
import logging
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_server import (
    GOOD,
    INPUTS,
    PREDICT,
    Client,
    check_good,
    half_sent,
    refused,
    server_app,
    serving,
    wait_for,
    with_,
)
from served_models import clusters, numpy_answers

REFUSALS = {
    "nothing": (b"", "body: expected JSON"),
    "no JSON": (b"{", "body: expected JSON"),
    "no UTF-8": (b'{"\xff": 1}', "body: expected JSON"),
    "deep": (b"[" * 500_000, "body: expected JSON"),
    "deep and closed": (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", "inputs"),
    "long number": (b'{"inputs": ' + b"9" * 5000 + b"}", "body: expected JSON"),
    "a list": ([1], "body: expected a JSON object"),
    "no inputs": ({}, "neither"),
    "both": ({"inputs": {}, "instances": []}, "both"),
    "signature 3": ({**GOOD, "signature_name": 3}, "signature_name: expected a string"),
    "no such signature": ({**GOOD, "signature_name": "x"}, "expected one of adapt,"),
    "inputs 3": ({"inputs": 3}, "inputs: expected an object with labels, queries"),
    "inputs null": ({"inputs": None}, "inputs: expected an object"),
    "none missing": ({"inputs": {"support": [[1]]}}, "expected a value in `inputs`"),
    "empty rows": ({"instances": []}, "instances: expected a list of objects"),
    "rows 3": ({"instances": 3}, "instances: expected a list of objects"),
    "rows of numbers": ({"instances": [1]}, "instances: expected an object"),
    "unknown in a row": (
        {"instances": [{**INPUTS, "x": 1}]},
        "instances: expected only",
    ),
    "text": (with_(support="abc"), 'support: expected numbers, received "abc"'),
    "true": (with_(support=[[1, 2, True]] * 6), "numbers, received true"),
    "null": (with_(support=[[1, 2, None]] * 6), "numbers, received null"),
    "object": (with_(support=[[1, 2, {"b64": ""}]] * 6), "received an object of 1"),
    "ragged": (with_(support=[[1, 2, 3], [1, 2]]), "support: expected lists of one"),
    "half nested": (with_(support=[[1, 2, 3], 4]), "support: expected lists of one"),
    "labels 1.0": (with_(labels=[0, 0, 1, 1, 2, 2.0]), "labels: expected integers"),
    "labels 2^70": (with_(labels=[2**70] * 6), "labels: expected integers of 64 bits"),
    "10^400": (with_(support=[[10**400, 1, 1]] * 6), "support: expected integers"),
    "1e300": (with_(support=[[1e300, 1, 1]] * 6), "support: expected numbers up to"),
    "2^24 + 1": (
        with_(queries=[[2**24 + 1, 1, 1]]),
        "queries: expected integers below",
    ),
    "rank": (
        with_(queries=[1, 2, 3]),
        "queries: expected shape [any, 3], received [3]",
    ),
    "dimension": (with_(queries=[[1, 2]]), "shape [any, 3], received [1, 2]"),
    "NaN": (with_(queries=[[1, 2, float("nan")]]), "queries: expected finite numbers"),
    "Infinity": (with_(support=[[1, 2, 1e39]] * 6), "support"),
    "one class": (with_(labels=[0] * 6), "labels: expected 2 classes or more"),
    "a gap": (with_(labels=[0, 0, 1, 1, 3, 3]), "labels: expected 0 to N - 1"),
    "lengths": (with_(labels=[0, 1, 2]), "labels: expected one a row, received 3"),
    "too many": (with_(support=[[1, 2, 3]] * 13, labels=[0, 1] * 6 + [0]), "support"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_request_is_refused_with_its_reason_and_the_next_is_answered(
    client, name
):
    before = client.predict(GOOD)
    body, words = REFUSALS[name]
    refused(client.predict(body), words)
    assert client.predict(GOOD) == before
    check_good(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*INPUTS, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["adapt", "embed", "double", ""]) | JSON,
        "inputs": JSON | st.fixed_dictionaries({name: JSON for name in INPUTS}),
        "instances": JSON,
    },
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(request=REQUESTS | st.binary(max_size=30))
def test_whatever_is_sent_it_is_answered_or_refused(client, request):
    status, answer = client.predict(request)
    assert status in (200, 400)
    assert set(answer) <= {"outputs", "predictions", "error"} and len(answer) == 1


def test_a_body_at_the_limit_is_taken_and_a_longer_one_refused(exported):
    body = json.dumps(GOOD).encode()
    with serving(exported, max_request_bytes=len(body)) as (port, _):
        client = Client(port)
        check_good(client.predict(body))
        refused(client.predict(body + b" "), f"{len(body)} bytes or fewer", status=413)
        check_good(client.predict(body))
        pieces = (b" " * 100_000 for _ in range(50))  # of unknown length
        refused(client.ask("POST", PREDICT, pieces), "bytes or fewer", status=413)
        check_good(client.predict(body))


def test_what_is_too_long_is_not_kept(port):
    client = Client(port)
    tracemalloc.start()
    pieces = (b" " * 2**16 for _ in range(600))  # 39 MB
    refused(client.ask("POST", PREDICT, pieces), "bytes or fewer", status=413)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_several_clients_at_once_get_their_own_answers(port):
    def work(number):
        client, wrong = Client(port), 0
        for turn in range(40):
            if turn % 10 == number:
                refused(client.predict(with_(labels=[0] * 6)), "labels")
                continue
            support, labels = clusters(2 + (number + turn) % 3, 2, seed=number)
            queries = clusters(2, 1 + turn % 3, seed=turn)[0]
            request = {"support": support, "labels": labels, "queries": queries}
            lists = {name: each.tolist() for name, each in request.items()}
            status, answer = client.predict({"inputs": lists})
            expected = numpy_answers(support, labels, queries)[0]
            received = np.array(answer["outputs"]["probabilities"])
            near = received.shape == expected.shape
            near = near and np.allclose(received, expected, atol=1e-5)
            wrong += status != 200 or not near
        return wrong

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [0] * 8


def test_who_sends_slowly_is_told_and_who_leaves_is_forgotten(
    exported, monkeypatch, caplog
):
    monkeypatch.setattr(server_app, "_SECONDS_TO_READ", 0.3)
    with serving(exported) as (port, _):
        logger = logging.getLogger("uvicorn.error")  # it does not propagate
        logger.addHandler(caplog.handler)
        connection, _ = half_sent(port)
        assert b"408" in connection.recv(1000).splitlines()[0]
        connection.close()
        half_sent(port)[0].close()
        time.sleep(0.1)
        check_good(Client(port).predict(GOOD))
        logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_when_too_many_wait_the_next_is_told_to_come_again(exported, monkeypatch):
    monkeypatch.setattr(server_app, "_MOST_WAITING", 2)
    with serving(exported) as (port, _):
        halves = [half_sent(port) for _ in range(2)]
        client = Client(port)
        wait_for(lambda: client.predict(GOOD)[0] == 503)
        refused(client.predict(GOOD), "2 requests are waiting", status=503)
        assert client.ask("GET", "/healthz")[0] == 200
        for connection, rest in halves:
            connection.sendall(rest)
            assert b"200" in connection.recv(1000).splitlines()[0]
            connection.close()
        check_good(client.predict(GOOD))


def test_a_mistake_of_ours_is_status_500_and_json(exported):
    with serving(exported) as (port, versions):
        broken = versions.current._replace(model=None)
        versions.current = broken
        refused(Client(port).predict(GOOD), "internal error", status=500)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_what_the_description_says(exported, tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    # Left out, because the schema cannot express all rules of a request (labels
    # without gaps, equal lengths).
    left_out = "positive_data_acceptance"
    with serving(exported) as (port, _):
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run",
             f"http://127.0.0.1:{port}/openapi.json", "--no-color",
             "--exclude-checks", left_out, "--max-examples", "300",
             "--generation-deterministic"],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]
        check_good(Client(port).predict(GOOD))
