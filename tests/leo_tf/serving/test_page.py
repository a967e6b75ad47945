"""The page at `/`: its files, and the policy for browsers."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import ImageColor
from running_server import serving

from leo_tf.serving import pages

STATIC = pathlib.Path(pages.__file__).with_name("static")
TEXTS = {file.name: file.read_text("utf-8") for file in sorted(STATIC.iterdir())}


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


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
    assert headers["Content-Security-Policy"] == POLICY
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
        *("way", "max_classes", "max_support", "pictures", "embedding"),
    }
    made = {"weights": "a1", "views": "center", "backbone": "/home/me/secret.keras"}
    told = pages._embedding(made)
    assert told["weights"] == "a1" and "secret" not in json.dumps(told)
    assert pages._embedding("hog of glyphs") is None


def test_the_page_is_told_of_the_backbone_and_the_only_number_of_classes(exported):
    metadata = {"way": 5, "pictures": {"max_picture_bytes": 9, "weights": "d1gest"}}
    with serving(exported) as (_, versions):
        about = pages.about(versions.require()._replace(metadata=metadata), 2**20)
    assert about["way"] == 5
    assert about["pictures"] == {"max_picture_bytes": 9, "weights": "d1gest"}


def test_pictures_fit_into_a_request_once_they_are_base64(exported):
    metadata = {"pictures": {"max_picture_bytes": 2**24}}
    with serving(exported) as (_, versions):
        served = versions.require()._replace(metadata=metadata)
        for most_bytes in (2**20, 2**30):
            most = pages.about(served, most_bytes)["pictures"]["max_picture_bytes"]
            assert most <= 2**24 and most * 4 / 3 < most_bytes


def test_edges_and_colours_of_classes_are_seen_in_light_and_dark():
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+)", part))
        for part in TEXTS["style.css"].split("prefers-color-scheme: dark")
    )
    [colours] = re.findall(r"COLOURS = \[(.*)\]", TEXTS["answers.js"])
    for theme in (light, light | dark):
        for colour in (theme["edge"], *re.findall("#[0-9a-f]{6}", colours)):
            assert contrast(colour, theme["card"]) >= 3, colour


def contrast(one, other):
    """Contrast of two colours, by WCAG 2."""

    def luminance(colour):
        parts = np.array(ImageColor.getrgb(colour)) / 255
        curve = ((parts + 0.055) / 1.055) ** 2.4
        linear = np.where(parts <= 0.04, parts / 12.92, curve)
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_the_api_page_tells_long_rows_by_their_length():
    row = [1] + [0] * 639
    text = pages.openapi.short({"inputs": {"support": [row, row], "labels": [0, 1]}})
    assert "[640 numbers]" in text and "[ 0, 1 ]" in text and len(text) < 200
