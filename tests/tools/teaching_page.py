"""The page of a server in a headless Chromium, driven as a person would."""

import base64
import contextlib
import io
import os
import pathlib
import sys
import time

import chromium
from hand_drawn import NAMES, STROKES, by_hand
from PIL import Image

_PATIENCE = 60  # seconds
_UNSEEN = "input[type=file]"
PROGRAM = pathlib.Path(__file__).parents[2] / "run_leo.py"


def browser(width: int = 1280, height: int = 900, dark: bool = False):
    """A Chromium with a camera, on a screen of this size."""
    camera = [f"--use-fake-{part}-for-media-stream" for part in ("device", "ui")]
    driver = chromium.start(*camera, loggingPrefs={"browser": "ALL"})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    mobile = {**metrics, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return driver


def server(exported, port=0):
    """The address of a server of an exported model."""
    command = [sys.executable, PROGRAM, "--mode=serve", f"--export_dir={exported}"]
    return chromium.address_of([*command, f"--port={port}"], r"on (http://[\d.]+:\d+)")


@contextlib.contextmanager
def page_at(address, **options):
    """The page of a server, about which the browser has nothing to complain."""
    driver = browser(**options)
    try:
        page = TeachingPage(driver, address)
        yield page
        complaints = page.complaints()
        assert not complaints, complaints
    finally:
        driver.quit()


class TeachingPage:
    """A browser at the page of a server."""

    def __init__(self, driver, address: str):
        self.driver, self.address = driver, address
        driver.get(address)
        self.until(lambda: self.all("#classes > li") or self.shows(".notice"))

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def texts(self, selector: str) -> list[str]:
        """Returns the texts of all such elements at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])]"
        return self.driver.execute_script(f"{script}.map((e) => e.innerText)", selector)

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

    def teach_signs(self, rng, count: int = 5) -> None:
        """Makes so many classes of a drawing each."""
        self.name_classes(*NAMES[:count])
        for number in range(count):
            self.add_drawing(number, by_hand(STROKES[number], rng))
        self.until(lambda: f"{count} classes, {count} ex" in self.text("#taught"))

    def said(self) -> str:
        return self.text("#message") if self.shows("#message") else ""

    def saved(self, directory) -> pathlib.Path:
        """Returns the path of the file that the page saves."""
        place = {"behavior": "allow", "downloadPath": str(directory)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", place)
        self.one("#save").click()
        path = directory / "classifier.npz"
        self.until(path.exists)
        self.until(lambda: path.stat().st_size > 3000)
        return path

    def examples(self, number: int) -> int:
        script = "return arguments[0].querySelectorAll('.thumbs > *').length"
        return self.driver.execute_script(script, self.all("#classes > li")[number])

    def give_files(self, number: int, *paths) -> None:
        """Chooses files for a class; for questions, if the number is -1."""
        places = [*self.all(f"#classes {_UNSEEN}"), self.one(f"#ask-files {_UNSEEN}")]
        places[number].send_keys("\n".join(map(str, paths)))

    def before_requests(self, script: str) -> None:
        """Runs JavaScript before each request: `name` is its signature's.

        If it returns a Response, that is the answer.
        """
        self.driver.execute_script(f"""
        const plain = window.fetch.bind(window);
        window.fetch = async (path, options) => {{
          const name = options?.body && JSON.parse(options.body).signature_name;
          const answer = name && await (async () => {{ {script} }})();
          return answer ?? plain(path, options);
        }};
        """)

    def count_requests(self) -> None:
        self.before_requests("(window.asked ??= []).push(name);")

    def asked(self) -> list[str]:
        """Returns the signatures that were asked since the last time."""
        return self.driver.execute_script("return (window.asked ?? []).splice(0)")

    def double_click(self, element) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver, duration=0).double_click(element).perform()

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
