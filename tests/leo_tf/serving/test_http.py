"""HTTP for TensorFlow Serving's clients and browsers, and metrics for Prometheus."""

import gzip
import json
import re
import tracemalloc
import zlib

import pytest
from running_server import (
    GOOD,
    PREDICT,
    Client,
    check_good,
    copy,
    refused,
    serving,
    wait_for,
    with_,
)

METRICS = "/monitoring/prometheus/metrics"
BODY = json.dumps(GOOD).encode()
MOST = 2**16
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def port(exported):
    with serving(exported, max_request_bytes=MOST) as (port, _):
        yield port


# Path -> supported methods.
KNOWN = {
    "/": "GET, HEAD",
    "/docs": "GET, HEAD",
    "/healthz": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    METRICS: "GET, HEAD",
    "/v1/models/leo": "GET, HEAD",
    "/v1/models/leo/versions/4": "GET, HEAD",
    "/v1/models/leo/metadata": "GET, HEAD",
    "/v1/models/leo/versions/4/metadata": "GET, HEAD",
    PREDICT: "POST",
    "/v1/models/leo/versions/4:predict": "POST",
}
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
    *("QUERY", "BREW"),
)


@pytest.mark.parametrize("path", KNOWN)
def test_other_methods_than_a_path_knows_are_405_and_told_which(client, path):
    for method in METHODS:
        body = BODY if method in ("POST", "PUT", "PATCH") else None
        status, headers, content = client.send(method, path, body)
        if method in KNOWN[path].split(", "):
            assert status == 200
            continue
        assert (status, headers["Allow"]) == (405, KNOWN[path]), method
        if method != "HEAD":
            words = f"method: expected {KNOWN[path]}, received {method}."
            assert json.loads(content) == {"error": words}


def test_a_large_body_for_nothing_does_not_hide_the_answer(client):
    status, _, _ = client.send("PUT", "/v1/models/leo", bytes(8 * 2**20))
    assert status == 405
    check_good(client.predict(GOOD))


@pytest.mark.parametrize("path", [path for path in KNOWN if path != METRICS])
def test_head_is_get_without_the_body(client, path):
    if "POST" in KNOWN[path]:
        return
    status, headers, content = client.send("GET", path)
    for header in ("Content-Type", "Content-Length"):
        assert client.send("HEAD", path)[1][header] == headers[header]
    assert client.send("HEAD", path)[::2] == (status, b"") and content
    missing = client.send("HEAD", "/v1/models/leo/versions/5")
    assert missing[::2] == (404, b"")


@pytest.mark.parametrize(
    "names",
    ["gzip", "GZIP", "x-gzip", " gzip ", "identity, gzip", "gzip,identity", ",gzip"],
)
def test_a_body_compressed_by_gzip_is_inflated(client, names):
    headers = {"Content-Encoding": names}
    check_good(client.predict(gzip.compress(BODY), headers=headers))
    parts = gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])
    check_good(client.predict(parts, headers=headers))
    pieces = iter([gzip.compress(BODY)[:30], gzip.compress(BODY)[30:]])
    check_good(client.ask("POST", PREDICT, pieces, headers))
    refused(client.predict(gzip.compress(b"{"), headers=headers), "expected JSON")


@pytest.mark.parametrize("names", ["identity", "Identity", "", "identity, identity"])
def test_a_body_that_nothing_was_done_to_is_read_as_it_is(client, names):
    check_good(client.predict(BODY, headers={"Content-Encoding": names}))


@pytest.mark.parametrize(
    "names", ["deflate", "br", "zstd", "compress", "gzip, gzip", "gzip, br", "utf-8"]
)
def test_other_encodings_are_415_and_told_which_are_taken(client, names):
    body = zlib.compress(BODY)
    status, headers, content = client.send(
        "POST", PREDICT, body, {"Content-Encoding": names}
    )
    said = f"Content-Encoding: expected gzip, identity or none, received {names}."
    assert (status, json.loads(content)) == (415, {"error": said})
    assert headers["Accept-Encoding"] == "gzip, identity"
    check_good(client.predict(GOOD))


def test_an_encoding_given_twice_counts_twice(client):
    client.connection.putrequest("POST", PREDICT)
    for _ in range(2):
        client.connection.putheader("Content-Encoding", "gzip")
    client.connection.putheader("Content-Length", "0")
    client.connection.endheaders()
    answer = client.connection.getresponse()
    refused((answer.status, json.loads(answer.read())), "gzip, gzip", status=415)


ZIPPED = gzip.compress(BODY)
DAMAGED = {
    "none": BODY,
    "empty": b"",
    "cut": ZIPPED[:-9],
    "cut in the checksum": ZIPPED[:-1],
    "checksum": ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:],
    "turned bit": ZIPPED[:40] + bytes([ZIPPED[40] ^ 16]) + ZIPPED[41:],
    "something behind": ZIPPED + b"{}",
    "half a part behind": ZIPPED + ZIPPED[:20],
    "zlib": zlib.compress(BODY),
    "endless parts": gzip.compress(b"") * 1000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_gzip_is_refused_and_the_next_is_answered(client, name):
    gzipped = {"Content-Encoding": "gzip"}
    answer = client.predict(DAMAGED[name], headers=gzipped)
    refused(answer, "body: expected a complete gzip stream")
    check_good(client.predict(ZIPPED, headers=gzipped))


def test_what_would_inflate_too_far_is_refused_and_not_inflated(client):
    gzipped = {"Content-Encoding": "gzip"}
    room = MOST - len(BODY)
    check_good(client.predict(gzip.compress(BODY + b" " * room), headers=gzipped))
    beyond = gzip.compress(BODY + b" " * (room + 1))
    refused(client.predict(beyond, headers=gzipped), f"{MOST} bytes", status=413)
    parts = gzip.compress(BODY) + gzip.compress(b" " * room) + gzip.compress(b" ")
    refused(client.predict(parts, headers=gzipped), f"{MOST} bytes", status=413)
    long = gzip.compress(bytes(range(256)) * 1000, 0)  # too long before decompression
    refused(client.predict(long, headers=gzipped), f"{MOST} bytes", status=413)
    bomb = gzip.compress(bytes(64 * 2**20))
    assert len(bomb) <= MOST
    tracemalloc.start()
    refused(client.predict(bomb, headers=gzipped), f"{MOST} bytes", status=413)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-8", "application/json; charset=ISO-8859-1", ""],
)
def test_json_is_json_whatever_it_is_called(client, kind):
    check_good(client.predict(GOOD, headers={"Content-Type": kind}))


def test_json_is_in_utf8_with_a_byte_order_mark_or_without(client):
    check_good(client.predict(b"\xef\xbb\xbf" + BODY))
    refused(client.predict(b"\xef\xbb\xbf\xef\xbb\xbf" + BODY), "body: expected JSON")
    for name in ("utf-16", "utf-16-le", "utf-32"):
        kind = {"Content-Type": f"application/json; charset={name}"}
        answer = client.predict(BODY.decode().encode(name), headers=kind)
        refused(answer, "body: expected JSON")


def preflight(origin, method="POST", headers="content-type, content-encoding"):
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


def test_without_origins_no_browser_is_let_in(client):
    for headers in (preflight(PAGE), {"Origin": PAGE}):
        status, answer, _ = client.send("OPTIONS", PREDICT, headers=headers)
        assert (status, answer["Allow"]) == (405, "POST")
        assert not [name for name in answer if name.startswith("Access-Control")]
    status, answer, _ = client.send("POST", PREDICT, BODY, {"Origin": PAGE})
    assert status == 200
    assert not [name for name in answer if name.startswith("Access-Control")]


def test_pages_of_the_origins_given_may_ask_and_no_others(exported):
    with serving(exported, cors_origins=(PAGE, "http://localhost:3000")) as (port, _):
        client = Client(port)
        for origin in (PAGE, "http://localhost:3000"):
            status, answer, _ = client.send("OPTIONS", PREDICT, None, preflight(origin))
            assert status == 200
            assert answer["Access-Control-Allow-Origin"] == origin
            assert answer["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
            allowed = answer["Access-Control-Allow-Headers"].split(", ")
            assert {"Content-Type", "Content-Encoding"} <= {*allowed}
            assert "Origin" in answer["Vary"]
            # Errors can be read too, also internal ones.
            for path, body, expected in (
                (PREDICT, BODY, 200),
                (PREDICT, b"{", 400),
                ("/v1/models/x:predict", BODY, 404),
                ("/healthz", BODY, 405),
            ):
                answer = client.send("POST", path, body, {"Origin": origin})
                assert answer[0] == expected
                assert answer[1]["Access-Control-Allow-Origin"] == origin
                assert answer[1]["Vary"] == "Origin"
        for other in ("http://page.example", PAGE + ":8080", PAGE + ".org", "null"):
            status, answer, _ = client.send("OPTIONS", PREDICT, None, preflight(other))
            assert status == 400 and "Access-Control-Allow-Origin" not in answer
            status, answer, _ = client.send(
                "GET", "/v1/models/leo", None, {"Origin": other}
            )
            assert status == 200 and "Access-Control-Allow-Origin" not in answer
            assert answer["Vary"] == "Origin"
        put = preflight(PAGE, "PUT")
        assert client.send("OPTIONS", PREDICT, None, put)[0] == 400
        status, answer, _ = client.send("OPTIONS", PREDICT, None, {"Origin": PAGE})
        assert (status, answer["Allow"]) == (405, "POST")  # not a preflight


def test_pages_of_all_origins_may_ask_where_that_is_wanted(exported):
    with serving(exported, cors_origins=("*",)) as (port, versions):
        client = Client(port)
        status, answer, _ = client.send("OPTIONS", PREDICT, None, preflight(PAGE))
        assert (status, answer["Access-Control-Allow-Origin"]) == (200, "*")
        versions.current = versions.current._replace(model=None)
        status, answer, _ = client.send("POST", PREDICT, BODY, {"Origin": PAGE})
        assert (status, answer["Access-Control-Allow-Origin"]) == (500, "*")


def metrics_of(client):
    """Returns name with labels -> value, read like Prometheus."""
    status, headers, content = client.send("GET", METRICS)
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = content.decode().splitlines()
    sample = re.compile(r'([a-z_]+(?:{(?:[a-z]+="[^"]*",?)*})?) (\S+)')
    found = [sample.fullmatch(line) for line in lines if not line.startswith("# ")]
    assert all(found)
    return {match[1]: float(match[2]) for match in found}


def count(found, route, status):
    return found.get(f'leo_requests_total{{route="{route}",status="{status}"}}', 0)


def test_metrics_count_requests_by_route_and_status_and_their_seconds(exported):
    with serving(exported) as (port, _):
        client = Client(port)
        for _ in range(3):
            check_good(client.predict(GOOD))
        check_good(client.predict(GOOD, "/v1/models/leo/versions/4:predict"))
        refused(client.predict(with_(labels=[0] * 6)), "labels")
        refused(client.predict(GOOD, "/v1/models/x:predict"), "x", status=404)
        client.send("HEAD", "/v1/models/leo")
        client.send("DELETE", "/v1/models/leo")
        client.send("GET", "/v1/models/leo/metadata")
        client.send("GET", "/healthz")
        found = metrics_of(client)
    predict = "/v1/models/MODEL:predict"
    assert [count(found, predict, status) for status in (200, 400, 404)] == [4, 1, 1]
    status = "/v1/models/MODEL"
    assert [count(found, status, code) for code in (200, 405)] == [1, 1]
    assert count(found, "/v1/models/MODEL/metadata", 200) == 1
    assert count(found, "/healthz", 200) == 1
    seconds = f'leo_request_seconds_%s{{route="{predict}"%s}}'
    assert found[seconds % ("count", "")] == 6
    assert 0 < found[seconds % ("sum", "")] < 60
    buckets = [
        value
        for name, value in found.items()
        if name.startswith("leo_request_seconds_b") and predict in name
    ]
    assert buckets == sorted(buckets) and buckets[-1] == 6


def test_metrics_have_as_many_lines_whatever_paths_are_asked_for(client):
    client.send("GET", "/nothing")
    client.send("GET", "/v1/nothing")
    client.send("GET", "/v1/models/leo/versions/5")
    client.predict(GOOD, "/v1/models/x:predict")
    client.send("BREW", "/v1/models/leo")
    metrics_of(client)
    before = metrics_of(client)
    for number in range(20):
        for path in ("/x%d", "/v1/x%d", "/v1/models/leo/versions/9%d", "/docs/%d"):
            client.send("GET", path % number)
        client.predict(GOOD, f"/v1/models/x{number}:predict")
        client.send(f"BREW{number}", "/v1/models/leo")
    assert metrics_of(client).keys() == before.keys()


def test_metrics_say_mistakes_of_ours_and_which_version_answers(exported, tmp_path):
    copy(exported / "4", tmp_path, 1)
    with serving(tmp_path) as (port, versions):
        client = Client(port)
        found = metrics_of(client)
        assert (found["leo_version"], found["leo_versions_failed"]) == (1, 0)
        copy(exported / "4", tmp_path, 2)
        (tmp_path / "3").mkdir()
        versions.refresh()
        found = metrics_of(client)
        assert (found["leo_version"], found["leo_versions_failed"]) == (2, 1)
        versions.current = versions.current._replace(model=None)
        refused(client.predict(GOOD), "internal error", status=500)
        client = Client(port)
        failed = "/v1/models/MODEL:predict", 500
        wait_for(lambda: count(metrics_of(client), *failed) == 1)
