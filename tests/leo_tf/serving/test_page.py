"""The page at `/`: its files, and the policy for browsers."""

import json
import pathlib
import re

import pytest
from running_server import serving

from leo_tf.serving import pages

STATIC = pathlib.Path(pages.__file__).with_name("static")
TEXTS = {file.name: file.read_text("utf-8") for file in sorted(STATIC.iterdir())}


def get(client, path):
    status, headers, content = client.send("GET", path)
    return status, headers, content.decode()


def test_the_page_and_all_that_it_names_are_there(client):
    status, headers, page = get(client, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    named = {*re.findall(r'(?:href|src)="(/page/[^"]+)"', page)}
    scripts = [text for name, text in TEXTS.items() if name.endswith(".js")]
    named |= {
        f"/page/{name}"
        for text in scripts
        for name in re.findall(r'from "\./([^"]+)"', text)
    }
    assert {f"/page/{name}" for name in TEXTS} - {"/page/index.html"} - {
        "/page/docs.js"
    } == named
    for path in named:
        assert get(client, path)[0] == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/page/main.js", "/page/model.json"])
def test_a_browser_may_load_and_run_what_is_of_this_server_alone(client, path):
    headers = get(client, path)[1]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert not {"unsafe-inline", "unsafe-eval", "*", "http", "data:"} & {
        word.strip("';") for word in policy.split()
    }
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_is_inline_and_nothing_from_another_host(client):
    for page in (get(client, "/")[2], get(client, "/docs")[2]):
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page)
    for name, text in TEXTS.items():
        hosts = {*re.findall(r"https?://[^\s\"'`)]+", text)}
        assert hosts <= {"http://www.w3.org/2000/svg"}, name


def test_no_text_of_users_becomes_html():
    for name, text in TEXTS.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|\beval\b|write\(", text
        ), name


@pytest.mark.parametrize(
    "path", ["/page/", "/page/x.js", "/page/..%2fopenapi.json", "/page/__init__.py"]
)
def test_no_other_file_is_sent(client, path):
    assert get(client, path)[0] == 404


def test_what_the_page_is_told_has_no_path_of_the_training(client, exported):
    status, _, text = get(client, "/page/model.json")
    about = json.loads(text)
    assert status == 200 and about["version"] == 4 and about["pictures"] is None
    assert set(about) == {
        *("title", "version", "tested", "signatures", "embedding_size"),
        *("max_classes", "max_support", "max_request_bytes", "pictures"),
    }


def test_pictures_fit_into_a_request_once_they_are_base64(exported):
    facts = {"pictures": {"max_picture_bytes": 2**24, "side": 32}}
    with serving(exported) as (_, versions):
        served = versions.require()._replace(facts=facts)
        for most_bytes in (2**20, 2**30):
            most = pages.about(served, most_bytes)["pictures"]["max_picture_bytes"]
            assert most <= 2**24 and most * 4 / 3 < most_bytes


def test_the_api_page_tells_long_rows_by_their_length():
    row = [1] + [0] * 639
    text = pages.openapi.short({"inputs": {"support": [row, row], "labels": [0, 1]}})
    assert "[640 numbers]" in text and "[ 0, 1 ]" in text and len(text) < 200
