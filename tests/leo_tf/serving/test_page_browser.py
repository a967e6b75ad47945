"""Uses of the page, in a real browser with a real server and model.

    pytest -m browser tests/leo_tf/serving

trains LEO on the embedded set first, and needs Chromium with its driver (Debian:
chromium, chromium-driver) and Selenium. TAUGHT_EXPORT may name an existing export.
SCREENSHOTS=docs/images makes the pictures of docs/teach.md.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from drawn_pictures import encoded, photo
from PIL import Image
from teaching_page import SIGNS, TeachingPage, browser, by_hand, find

from leo_tf.serving.classifier import Classifier

pytestmark = pytest.mark.browser

PROGRAM = pathlib.Path(__file__).parents[3] / "run_leo.py"
NAMES = [name.split()[-1].title() for name in SIGNS]
STROKES = list(SIGNS.values())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns a directory with an export of LEO, trained on the embedded set."""
    find("chromium"), find("chromedriver")
    pytest.importorskip("selenium", reason="pip install selenium")
    if found := os.environ.get("TAUGHT_EXPORT"):
        return found
    directory = tmp_path_factory.mktemp("taught")
    train = [sys.executable, PROGRAM, "--quiet", f"--workdir={directory}/run"]
    subprocess.run([*train, "--num_steps=2000"], check=True)
    export = ["--mode=export", f"--export_dir={directory}/exported"]
    subprocess.run([*train, *export], check=True)
    return f"{directory}/exported"


@contextlib.contextmanager
def server(exported, port=0):
    command = [sys.executable, PROGRAM, "--mode=serve", f"--export_dir={exported}"]
    process = subprocess.Popen(
        [*command, f"--port={port}"], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            if found := re.search(r"on (http://[\d.]+:\d+)", line):
                yield found[1]
                return
        pytest.fail("the server did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture(scope="module")
def address(exported):
    with server(exported) as address:
        yield address


@contextlib.contextmanager
def page_at(address, **options):
    driver = browser(**options)
    try:
        yield TeachingPage(driver, address)
    finally:
        driver.quit()


@pytest.fixture
def page(address):
    with page_at(address) as page:
        yield page
        assert page.complaints() == []


def teach_signs(page, rng, count=5):
    page.name_classes(*NAMES[:count])
    for number in range(count):
        page.add_drawing(number, by_hand(STROKES[number], rng))
    page.until(lambda: f"{count} classes, {count} ex" in page.text("#taught"))


def said(page) -> str:
    return page.text("#message") if page.shows("#message") else ""


def test_of_five_signs_drawn_once_each_twenty_others_are_told(page):
    rng, right = np.random.default_rng(3), 0
    teach_signs(page, rng)
    for number in [*range(5)] * 4:
        told = page.ask_drawing(by_hand(STROKES[number], rng))
        print(f"{NAMES[number]}: {told}")
        right += told == NAMES[number]
    print(f"{right} of 20 right")
    assert right >= 17
    assert page.shows("#latents circle") and len(page.all("#latents circle")) == 10
    assert (
        len(page.all("#answer .bar.centroid")) == 5 and len(page.all(".near li")) == 3
    )


def test_a_query_is_answered_at_once(page):
    rng = np.random.default_rng(4)
    teach_signs(page, rng, 3)
    page.ask_drawing(by_hand(STROKES[0], rng))
    script = """
    const entries = performance.getEntriesByType("resource");
    return entries.filter((e) => e.name.endsWith(":predict")).map((e) => e.duration);
    """
    seconds = page.driver.execute_script(script)
    print("milliseconds of each request:", np.round(seconds, 1).tolist())
    assert len(seconds) >= 5


def test_examples_and_classes_are_added_and_removed(page):
    rng = np.random.default_rng(5)
    teach_signs(page, rng, 3)
    page.ask_drawing(by_hand(STROKES[2], rng))
    page.all("#classes .name button")[2].click()
    page.until(lambda: "2 classes, 2 ex" in page.text("#taught"))
    page.until(lambda: page.best() in NAMES[:2])  # for the same question, at once
    page.all(".thumbs button")[0].click()
    page.until(lambda: "Two classes with an example" in page.text("#taught"))
    assert not page.best()


def test_a_name_is_text_and_two_may_not_be_alike(page):
    rng = np.random.default_rng(6)
    name = "<img src=x onerror=alert(1)>"
    page.name_classes(name, "B")
    for number in range(2):
        page.add_drawing(number, by_hand(STROKES[number], rng))
    page.until(lambda: "2 classes" in page.text("#taught"))
    assert page.ask_drawing(by_hand(STROKES[0], rng)) == name
    assert not page.all("#answer img, #classes img")
    page.name_classes("B", "B")
    page.until(lambda: "Two classes are called B" in page.text("#taught"))


@pytest.fixture
def files(tmp_path):
    """Returns a folder of pictures of two kinds: JPEG, PNG and WebP."""
    for i in range(3):
        for name, seed, suffix in (("a", 1, "jpg"), ("b", 9, "png")):
            image = Image.fromarray(photo(90, 120, seed=seed))
            image.rotate(3 * i).save(tmp_path / f"{name}{i}.{suffix}")
    Image.fromarray(photo(90, 120, seed=9)).save(tmp_path / "b9.webp")
    return tmp_path


def test_pictures_of_a_folder_are_examples_and_questions(page, files):
    page.give_files(0, *sorted(files.glob("a*.jpg"))[:2])
    page.give_files(1, *sorted(files.glob("b*.png"))[:2])
    page.until(lambda: "2 classes, 4 examples" in page.text("#taught"))
    page.give_files(-1, *sorted(files.glob("*2.*")), files / "b9.webp")
    page.until(lambda: len(page.all("#earlier li")) == 3)
    answers = [each.text for each in page.all("#earlier li")]
    assert [a.split(",")[0] for a in answers] == [
        "a2.jpg: A",
        "b2.png: B",
        "b9.webp: B",
    ]


def test_what_is_no_picture_is_told_by_name_and_changes_nothing(page, files):
    (files / "text.png").write_text("I am no picture")
    (files / "huge.png").write_bytes(encoded(photo(9, 9)) + bytes(40_000_000))
    (files / "damaged.png").write_bytes(encoded(photo(90, 90))[:-500])
    (files / "blank.png").write_bytes(encoded(Image.new("RGB", (50, 50), "white")))
    for name in ("text.png", "huge.png", "damaged.png", "blank.png"):
        page.give_files(0, files / name)
        page.until(lambda: name in said(page))  # noqa: B023
        assert page.examples(0) == 0
    page.give_files(0, files / "a0.jpg")
    page.until(lambda: page.examples(0) == 1)
    assert not said(page)


def test_a_second_click_adds_nothing(page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.draw("#teach-pad", STROKES[0])
    button = page.all("#classes button.first")[0]
    ActionChains(page.driver, duration=0).double_click(button).perform()
    page.until(lambda: page.examples(0))
    time.sleep(1)
    assert page.examples(0) == 1


def test_there_are_at_most_as_many_classes_as_the_model_takes(page):
    script = (
        "for (let i = 0; i < 99; i += 1) document.getElementById('add-class').click()"
    )
    page.driver.execute_script(script)
    page.until(lambda: "takes no more" in said(page))
    assert len(page.all("#classes > li")) == 100
    names = page.driver.execute_script(
        "return [...document.querySelectorAll('.name input')].map((e) => e.value)"
    )
    assert len({*names}) == 100


def test_it_is_drawn_and_taught_by_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    for number, keys in enumerate((Keys.ARROW_RIGHT * 9, Keys.ARROW_DOWN * 9)):
        page.one("#teach-pad canvas").send_keys(" " + keys + " ")
        page.all("#classes button.first")[number].send_keys(Keys.ENTER)
        page.until(lambda: page.examples(number) == 1)  # noqa: B023
    page.until(lambda: "2 classes" in page.text("#taught"))
    page.one("#ask-pad canvas").send_keys(" " + Keys.ARROW_LEFT * 7 + " ")
    assert page.until(page.best) == "A"


def test_what_it_learned_is_saved_for_python_and_loaded_again(page, exported, tmp_path):
    rng = np.random.default_rng(7)
    teach_signs(page, rng, 3)
    page.name_classes("käse", "日本", "A b")
    page.until(lambda: "3 classes" in page.text("#taught"))
    place = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", place)
    page.one("#save").click()
    path = tmp_path / "classifier.npz"
    page.until(path.exists)
    page.until(lambda: path.stat().st_size > 3000)
    classifier = Classifier.load(path, exported)
    assert classifier.classes_.tolist() == ["A b", "käse", "日本"]
    assert classifier.predict(classifier.support_).tolist() == ["A b", "käse", "日本"]
    again = Classifier(exported).fit(classifier.support_, classifier.support_labels_)
    np.testing.assert_allclose(again.classifier_, classifier.classifier_, atol=1e-5)
    classifier.partial_fit(classifier.support_[:1], ["more"]).save(tmp_path / "2.npz")
    for file, count in (("classifier.npz", 3), ("2.npz", 4)):
        page.one("#load").send_keys(str(tmp_path / file))
        page.until(lambda: f"{count} classes, {count} ex" in page.text("#taught"))  # noqa: B023
    (tmp_path / "bad.npz").write_text("no file of ours")
    page.one("#load").send_keys(str(tmp_path / "bad.npz"))
    page.until(lambda: "not written by this page" in said(page))
    assert "4 classes" in page.text("#taught")


def test_a_server_that_is_gone_is_waited_for(exported):
    rng = np.random.default_rng(8)
    with contextlib.ExitStack() as stack:
        with server(exported) as address:
            page = stack.enter_context(page_at(address))
            teach_signs(page, rng, 2)
        page.draw("#ask-pad", by_hand(STROKES[1], rng))
        page.until(lambda: "does not answer" in said(page))
        with server(exported, address.rpartition(":")[2]):
            page.until(lambda: not said(page) and page.best() == NAMES[1])


def test_the_camera_gives_examples(page):
    page.all("#classes li button")[2].click()
    page.until(lambda: page.shows("#camera video"))
    page.until(
        lambda: page.driver.execute_script(
            "return document.querySelector('video').videoWidth"
        )
    )
    page.one("#camera button[value=take]").click()
    page.until(lambda: page.examples(0) == 1)
    page.one("#camera button[value=close]").click()
    page.until(lambda: not page.shows("#camera"))


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_screen_in_light_and_dark(address, width, dark):
    rng = np.random.default_rng(3)
    with page_at(address, width=width, dark=dark) as page:
        teach_signs(page, rng)
        page.ask_drawing(by_hand(STROKES[2], rng))
        wide = page.driver.execute_script("return document.body.scrollWidth")
        assert wide <= width
        page.save(f"teach_{width}_{'dark' if dark else 'light'}")


def test_the_api_page_is_tried_by_clicking(address):
    with page_at(address, width=1280) as page:
        page.driver.get(f"{address}/docs")
        buttons = page.until(lambda: page.all("article button"))
        assert "[640 numbers]" in page.text("body")
        for button in buttons:
            button.click()
        page.until(lambda: not [p for p in page.all("article pre") if p.text == "…"])
        answers = [p.text for p in page.all("button + pre")]
        assert len(answers) == len(buttons)
        assert all(text.startswith("200, ") for text in answers), answers
        wide = page.driver.execute_script("return document.body.scrollWidth")
        assert wide <= 1280
        page.save("api_page")
