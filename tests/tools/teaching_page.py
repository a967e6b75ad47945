"""The page of a server in a headless Chromium, driven as a person would."""

import base64
import io
import itertools
import os
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard_page import find

_PATIENCE = 60  # seconds
_UNSEEN = "input[type=file]"

# Signs of the embedded set's test scripts, as strokes in a square of 0 to 1.
_TURN = np.linspace(0, 6.3, 25)
_ROUND = [*zip(0.5 + 0.4 * np.cos(_TURN), 0.5 + 0.4 * np.sin(_TURN))]
SIGNS = {
    "TIFINAGH LETTER YAR": [_ROUND],
    "TIFINAGH LETTER YAT": [[(0.5, 0.05), (0.5, 0.95)], [(0.05, 0.5), (0.95, 0.5)]],
    "TIFINAGH LETTER YI": [
        [(0.85, 0.08), (0.15, 0.08), (0.55, 0.5), (0.15, 0.92), (0.85, 0.92)]
    ],
    "TIFINAGH LETTER YAW": [[(0.1, 0.1), (0.1, 0.9), (0.9, 0.9), (0.9, 0.1)]],
    "HEBREW LETTER LAMED": [
        [(0.25, 0.0), (0.25, 0.4), (0.8, 0.4), (0.75, 0.62), (0.4, 1.0)]
    ],
}


def by_hand(strokes, rng) -> list[np.ndarray]:
    """Strokes as somebody else would draw them: turned, slanted, shaken, elsewhere."""
    turn, slant = rng.uniform(-0.15, 0.15), rng.uniform(-0.25, 0.25)
    wide, high = rng.uniform(0.75, 1.0, 2)
    matrix = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix = np.array(matrix) @ [[wide, slant], [0, high]]
    size, place = rng.uniform(0.45, 0.7), rng.uniform(-0.08, 0.08, 2)
    drawn = []
    for stroke in strokes:
        points = np.array(stroke) - 0.5
        dense = [
            start + (end - start) * share
            for start, end in itertools.pairwise(points)
            for share in np.linspace(0, 1, 4, endpoint=False)
        ]
        dense = np.array([*dense, points[-1]])
        shaken = dense + rng.normal(0, 0.012, dense.shape)
        drawn.append(0.5 + size * shaken @ matrix.T + place)
    return drawn


def browser(width: int = 1280, height: int = 900, dark: bool = False):
    """A Chromium with Selenium's driver; the test is skipped if either is not here."""
    pytest.importorskip("selenium", reason="pip install selenium")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--hide-scrollbars",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(find("chromedriver")))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    mobile = {**metrics, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return driver


class TeachingPage:
    """A browser at the page of a server."""

    def __init__(self, driver, address: str):
        self.driver = driver
        driver.get(address)
        self.until(lambda: self.all("#classes > li") or self.shows("#features-only"))

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def shows(self, selector: str) -> bool:
        return any(each.is_displayed() for each in self.all(selector))

    def until(self, is_so, seconds: float = _PATIENCE):
        """Waits until `is_so()` is true, and returns what it is."""
        deadline = time.monotonic() + seconds
        while not (found := is_so()):
            assert time.monotonic() < deadline, self.text("body")[:2000]
            time.sleep(0.05)
        return found

    def name_classes(self, *names: str) -> None:
        while len(self.all("#classes > li")) < len(names):
            self.one("#add-class").click()
        for card, name in zip(self.all(".name input"), names):
            card.clear()
            card.send_keys(name)

    def draw(self, pad: str, strokes) -> None:
        """Draws on the pad `#teach-pad` or `#ask-pad`, by pointer events."""
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.one(f"{pad} canvas")
        self.driver.execute_script("arguments[0].scrollIntoView(false)", canvas)
        side = canvas.size["width"]
        chain = ActionChains(self.driver, duration=0)
        for stroke in strokes:
            places = [[int(side * (x - 0.5)) for x in point] for point in stroke]
            chain.move_to_element_with_offset(canvas, *places[0]).click_and_hold()
            for place in places[1:]:
                chain.move_to_element_with_offset(canvas, *place)
            chain.release()
        chain.perform()

    def add_drawing(self, number: int, strokes) -> None:
        """Draws, and makes that an example of a class."""
        before = self.examples(number)
        self.draw("#teach-pad", strokes)
        self.all("#classes button.first")[number].click()
        self.until(lambda: self.examples(number) == before + 1)

    def examples(self, number: int) -> int:
        script = "return arguments[0].querySelectorAll('.thumbs > *').length"
        return self.driver.execute_script(script, self.all("#classes > li")[number])

    def give_files(self, number: int, *paths) -> None:
        """Chooses files for a class; for questions, if the number is -1."""
        places = [*self.all(f"#classes {_UNSEEN}"), self.one(f"#ask-files {_UNSEEN}")]
        places[number].send_keys("\n".join(map(str, paths)))

    def best(self) -> str:
        """The answer, as far as it stands."""
        found = self.all("#answer .best")
        return found[0].text.rpartition(",")[0] if found else ""

    def ask_drawing(self, strokes) -> str:
        """Draws a question, and returns the class that is answered."""
        self.one("#ask-pad button:last-child").click()
        self.until(lambda: not self.best())
        self.draw("#ask-pad", strokes)
        # Each stroke asks: the last answer counts.
        script = "return window.performance.getEntriesByType('resource').length"
        self.until(self.best)
        count = -1
        while count != (count := self.driver.execute_script(script)):
            time.sleep(0.4)
        return self.best()

    def complaints(self) -> list[str]:
        """Returns the browser's errors: of policies, failing scripts, and so on."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "Failed to load" not in entry["message"]
        ]

    def save(self, name: str) -> None:
        """Keeps a picture of the whole page, if the environment says where."""
        directory = os.environ.get("SCREENSHOTS")
        if directory:
            time.sleep(0.3)
            self.driver.execute_script("scrollTo(0, 0)")
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})
            size = size["cssContentSize"]
            clip = {"x": 0, "y": 0, "scale": 1}
            clip |= {"width": size["width"], "height": size["height"]}
            asked = {"captureBeyondViewport": True, "clip": clip}
            shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
            with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as image:
                image.convert("RGB").quantize(128).save(
                    f"{directory}/{name}.png", optimize=True
                )
