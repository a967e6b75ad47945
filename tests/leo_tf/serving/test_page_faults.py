"""The page at a server that fails, is gone, is slow, or has another model."""

import contextlib
import json
import pathlib
import shutil
import time
import urllib.request

import numpy as np
import pytest
from hand_drawn import NAMES, STROKES, by_hand
from served_models import Centroids, write_model
from teaching_page import browser, page_at, server

pytestmark = pytest.mark.browser

BROKEN = """
if (window.isBroken && name === "adapt") {
  return new Response('{"error": "internal error: Broken"}', { status: 500 });
}
"""


def test_what_the_server_fails_at_is_told_and_the_old_classifier_is_not_used(page):
    rng = np.random.default_rng(10)
    page.teach_signs(rng, 2)
    page.ask_drawing(by_hand(STROKES[1], rng))
    page.before_requests(BROKEN)
    page.driver.execute_script("window.isBroken = true")
    page.add_drawing(0, by_hand(STROKES[0], rng))
    page.until(lambda: "internal error" in page.said())
    assert not page.one("#save").is_enabled() and not page.best()
    page.draw("#ask-pad", by_hand(STROKES[2], rng))
    page.until(lambda: "The model refused these examples" in page.text("#headline"))
    page.driver.execute_script("window.isBroken = false")
    page.add_drawing(0, by_hand(STROKES[0], rng))
    page.until(page.best)
    assert page.one("#save").is_enabled() and not page.said()


def test_an_answer_of_the_classifier_before_comes_too_late(page):
    rng = np.random.default_rng(13)
    page.teach_signs(rng, 3)
    page.before_requests("""
    if (name === "predict" && !window.release) {
      await new Promise((done) => { window.release = done; });
    }
    """)
    page.draw("#ask-pad", by_hand(STROKES[0], rng))
    page.until(lambda: page.driver.execute_script("return Boolean(window.release)"))
    page.all("#classes .name button")[2].click()
    page.until(page.best)
    page.driver.execute_script("window.release()")
    time.sleep(0.5)
    assert page.best() == NAMES[0] and len(page.all("#answer .class")) == 2


def test_a_server_that_is_gone_is_waited_for(taught):
    rng = np.random.default_rng(8)
    with contextlib.ExitStack() as stack:
        with server(taught) as address:
            page = stack.enter_context(page_at(address))
            page.teach_signs(rng, 2)
        page.draw("#ask-pad", by_hand(STROKES[1], rng))
        page.until(lambda: "does not answer" in page.said())
        with server(taught, address.rpartition(":")[2]):
            page.until(lambda: not page.said() and page.best() == NAMES[1])


def test_a_server_that_is_gone_while_it_is_taught_is_waited_for(taught):
    rng = np.random.default_rng(11)
    with contextlib.ExitStack() as stack:
        with server(taught) as address:
            page = stack.enter_context(page_at(address))
            page.add_drawing(0, by_hand(STROKES[0], rng))
        page.draw("#teach-pad", by_hand(STROKES[1], rng))
        page.all("#classes button.first")[1].click()
        page.until(lambda: "does not answer" in page.said())
        with server(taught, address.rpartition(":")[2]):
            page.until(lambda: "2 classes, 2 ex" in page.text("#taught"))
            assert not page.said()


def test_a_slow_server_is_said_to_be_waited_for(page):
    wait = "await new Promise((done) => setTimeout(done, 7000));"
    page.before_requests(wait)
    page.draw("#teach-pad", STROKES[0])
    page.all("#classes button.first")[0].click()
    page.until(lambda: "Still waiting" in page.said())
    page.until(lambda: page.examples(0) == 1)
    assert not page.said()


def copied(taught, directory, version, **metadata):
    """One more version, in place at once as an export is; export.json is changed."""
    newest = max(pathlib.Path(taught).glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.copytree(newest, directory / ".new")
    about = json.loads((directory / ".new/export.json").read_text())
    (directory / ".new/export.json").write_text(json.dumps(about | metadata))
    (directory / ".new").rename(directory / str(version))
    return about


def connected_version(address) -> int:
    with urllib.request.urlopen(f"{address}/page/model.json") as answer:
        return json.load(answer)["version"]


def test_a_newer_version_goes_on_from_the_same_examples(taught, tmp_path):
    rng = np.random.default_rng(12)
    pictures = copied(taught, tmp_path, 1)["pictures"]
    with server(tmp_path) as address, page_at(address) as page:
        page.teach_signs(rng, 2)
        copied(taught, tmp_path, 2)
        page.until(lambda: connected_version(address) == 2)
        assert page.ask_drawing(by_hand(STROKES[1], rng)) == NAMES[1]
        assert "version 2" in page.text("#model")
        copied(taught, tmp_path, 3, pictures=pictures | {"weights": "another"})
        page.until(lambda: connected_version(address) == 3)
        page.draw("#ask-pad", by_hand(STROKES[1], rng))
        page.until(lambda: "Reload this page" in page.said())


def test_of_a_model_of_so_many_classes_no_others_are_asked_for(taught, tmp_path):
    copied(taught, tmp_path, 1, way=3)
    with server(tmp_path) as address, page_at(address) as page:
        page.count_requests()
        assert len(page.all("#classes > li")) == 3
        for number in range(2):
            page.add_drawing(number, STROKES[number])
        page.until(lambda: "exactly 3 classes" in page.text("#taught"))
        assert "adapt" not in page.asked()
        page.add_drawing(2, STROKES[2])
        page.until(lambda: "3 classes, 3 ex" in page.text("#taught"))


def test_a_model_that_the_page_is_not_for_says_why(tmp_path):
    import tensorflow as tf

    write_model(tmp_path / "features/1")
    model = Centroids(3, 1.0, 5, 12)
    kept = {n: model.traced_functions[n] for n in ("classify", "serving_default")}
    tf.saved_model.save(model, str(tmp_path / "together/1"), signatures=kept)
    metadata = {"embedding_size": 3, "files": {}}
    (tmp_path / "together/1/export.json").write_text(json.dumps(metadata))
    for name, words in (
        ("features", "takes features, not pictures"),
        ("together", "answers all queries of a request together"),
    ):
        with server(tmp_path / name) as address, page_at(address) as page:
            assert words in page.text("body") and not page.shows("#page")


def test_a_server_that_fails_at_the_start_is_told_on_both_pages(address):
    script = """
    const plain = window.fetch.bind(window);
    window.fetch = async (path, options) => path.endsWith(".json")
      ? new Response('{"error": "broken"}', { status: 500 }) : plain(path, options);
    """
    driver = browser()
    try:
        driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": script}
        )
        for path, words in (("/", "broken"), ("/docs", "Nothing can be tried")):
            driver.get(address + path)
            deadline = time.monotonic() + 60
            while words not in driver.find_element("css selector", "body").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        driver.quit()
