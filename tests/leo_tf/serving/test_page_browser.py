"""Uses of the page, in a real browser with a real server and model.

    pytest -m browser tests/leo_tf/serving

trains LEO on the embedded set first, and needs Chromium with its driver (Debian:
chromium, chromium-driver) and Selenium. TAUGHT_EXPORT may name an existing export.
SCREENSHOTS=docs/images makes the pictures of docs/teach.md.
"""

import time

import numpy as np
import pytest
from hand_drawn import NAMES, STROKES, by_hand
from teaching_page import page_at

pytestmark = pytest.mark.browser

# From the end of a stroke to the answer.
TIMED = """
let start;
window.took = [];
const place = document.getElementById("answer");
const pad = document.querySelector("#ask-pad canvas");
pad.addEventListener("pointerup", () => { start = performance.now(); });
const shown = () => { if (place.innerText) took.push(performance.now() - start); };
new MutationObserver(shown).observe(place, { childList: true, subtree: true });
"""


def test_of_five_signs_drawn_once_each_twenty_others_are_told(page):
    rng, right = np.random.default_rng(3), 0
    page.teach_signs(rng)
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


def test_a_stroke_takes_one_request_for_features_and_one_for_the_answer(page):
    rng = np.random.default_rng(4)
    page.teach_signs(rng, 3)
    page.count_requests()
    page.driver.execute_script(TIMED)
    for _ in range(5):
        page.one("#ask-pad button:last-child").click()
        page.until(lambda: not page.best())
        page.draw("#ask-pad", by_hand(STROKES[0], rng))
        page.until(page.best)
        assert page.asked() == ["embed_images", "predict"]
    took = page.driver.execute_script("return took")
    print(f"median of {len(took)} answers: {np.median(took):.0f} ms")


def test_examples_and_classes_are_added_and_removed(page):
    rng = np.random.default_rng(5)
    page.teach_signs(rng, 3)
    page.ask_drawing(by_hand(STROKES[2], rng))
    page.all("#classes .name button")[2].click()
    page.until(lambda: "2 classes, 2 ex" in page.text("#taught"))
    page.until(lambda: page.best() in NAMES[:2])  # for the same question, at once
    page.all(".thumbs button")[0].click()
    page.until(lambda: "Two classes with an example" in page.text("#taught"))
    assert not page.best()


def test_a_double_click_removes_one(page):
    page.name_classes(*"ABC")
    for _ in range(3):
        page.add_drawing(0, STROKES[0])
    page.double_click(page.all(".thumbs button")[0])
    time.sleep(0.5)
    assert page.examples(0) == 2
    focused = page.driver.switch_to.active_element
    assert focused.get_attribute("aria-label") == "Remove example 1 of A"
    page.double_click(page.all("#classes .name button")[0])
    time.sleep(0.5)
    assert len(page.all("#classes > li")) == 2


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


def test_a_second_click_adds_nothing(page):
    page.draw("#teach-pad", STROKES[0])
    page.double_click(page.all("#classes button.first")[0])
    page.until(lambda: page.examples(0))
    time.sleep(1)
    assert page.examples(0) == 1


def test_there_are_at_most_as_many_classes_as_the_model_takes(page):
    script = (
        "for (let i = 0; i < 99; i += 1) document.getElementById('add-class').click()"
    )
    page.driver.execute_script(script)
    page.until(lambda: "takes no more" in page.said())
    assert len(page.all("#classes > li")) == 100
    names = page.driver.execute_script(
        "return [...document.querySelectorAll('.name input')].map((e) => e.value)"
    )
    assert len({*names}) == 100


def test_a_second_finger_adds_no_stroke_and_a_long_scribble_is_sent(page):
    canvas = page.one("#ask-pad canvas")
    page.driver.execute_script("arguments[0].scrollIntoView()", canvas)
    place = "return (({x, y}) => [x, y])(arguments[0].getBoundingClientRect())"
    left, top = page.driver.execute_script(place, canvas)

    def touch(kind, *points):
        fingers = [{"x": left + x, "y": top + y, "id": i} for i, x, y in points]
        event = {"type": f"touch{kind}", "touchPoints": fingers}
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", event)

    touch("Start", (1, 20, 20))
    touch("Move", (1, 60, 60))
    touch("Start", (1, 60, 60), (2, 150, 20))
    touch("Move", (1, 90, 90), (2, 160, 90))
    touch("End", (1, 90, 90))
    touch("End")
    page.until(lambda: "Two classes" in page.text("#headline"))
    page.one("#ask-pad button").click()  # Undo
    assert not page.text("#headline")
    scribble = """
    const module = await import("/page/pad.js");
    const pad = new module.Pad(document.createElement("div"), "", () => {});
    pad.strokes = [Array.from({ length: 300000 }, (_, i) => [i % 180, i % 170])];
    return pad.drawing().width;
    """
    assert page.driver.execute_script(scribble) == 128


def test_it_is_drawn_and_taught_by_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    for number, keys in enumerate((Keys.ARROW_RIGHT * 9, Keys.ARROW_DOWN * 9)):
        page.one("#teach-pad canvas").send_keys(" " + keys + " ")
        page.all("#classes button.first")[number].send_keys(Keys.ENTER)
        page.until(lambda: page.examples(number) == 1)  # noqa: B023
    page.until(lambda: "2 classes" in page.text("#taught"))
    # Leaving the pad lifts the pen.
    page.one("#ask-pad canvas").send_keys(" " + Keys.ARROW_LEFT * 7 + Keys.TAB)
    assert page.until(page.best) == "A"


def test_a_drawing_that_looks_like_no_class_is_perhaps_none_of_these(page):
    rng = np.random.default_rng(9)
    page.teach_signs(rng, 2)
    page.before_requests("""
    if (name !== "predict") return null;
    const body = await (await plain(path, options)).json();
    body.outputs.known = [window.known];
    return new Response(JSON.stringify(body));
    """)
    for known, said in ((0.049, "only 4.9 % of pictures"), (0.05, "")):
        page.driver.execute_script(f"window.known = {known}")
        told = page.ask_drawing(by_hand(STROKES[1], rng))
        headline = page.text("#headline")
        assert told == NAMES[1] and said in headline
        assert ("Perhaps none of these" in headline) == bool(said)


def test_the_camera_gives_one_example_a_click(page):
    page.double_click(page.all("#classes li button")[2])
    page.until(lambda: page.shows("#camera video"))
    page.until(
        lambda: page.driver.execute_script(
            "return document.querySelector('video').videoWidth"
        )
    )
    page.double_click(page.one("#camera button[value=take]"))
    page.until(lambda: page.examples(0) == 1)
    time.sleep(0.5)
    assert page.examples(0) == 1
    page.one("#camera button[value=close]").click()
    page.until(lambda: not page.shows("#camera"))


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_screen_in_light_and_dark(address, width, dark):
    rng = np.random.default_rng(3)
    with page_at(address, width=width, dark=dark) as page:
        page.teach_signs(rng)
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
