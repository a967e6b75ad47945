"""TensorBoard in a headless Chromium, driven by Selenium."""

import contextlib
import io
import os
import pathlib
import re
import sys
import time

import chromium
import numpy as np
from PIL import Image

_PATIENCE = 90  # seconds: the first page loads megabytes of scripts

# All text of a page, that of shadow trees included.
_TEXT = """
const found = [];
function walk(node) {
  if (node.nodeType === Node.TEXT_NODE) { found.push(node.textContent); return; }
  if (node.tagName === 'STYLE' || node.tagName === 'SCRIPT') return;
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes) walk(child);
}
walk(document.body);
return found.join(' ').replace(/\\s+/g, ' ');
"""
# All elements of a tag, those in shadow trees included.
_ELEMENTS = """
const found = [];
function walk(node) {
  if (node.matches && node.matches(arguments_selector)) found.push(node);
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.children || []) walk(child);
}
walk(document.body);
return found;
"""


def solid(text: str) -> str:
    """Removes blanks: a name may be in two elements, such as a tag and its group."""
    return re.sub(r"\s", "", text)


def tensorboard(logdir: pathlib.Path) -> contextlib.AbstractContextManager[str]:
    """The address of a TensorBoard that shows `logdir`."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}"]
    command += ["--port=0", "--load_fast=false"]
    return chromium.address_of(command, r"(http://localhost:\d+)")


class Page:
    """A browser at a TensorBoard.

    Args:
      address: of TensorBoard.
    """

    def __init__(self, address: str):
        # WebGL without a graphics card.
        arguments = "--window-size=1400,1040", "--enable-unsafe-swiftshader"
        self.driver = chromium.start(*arguments)
        self.address = address

    def open(self, tab: str, *expected: str, query: str = "") -> str:
        """Goes to a tab; waits until its text has all that is expected, and returns it.

        Blanks do not count, as elements are told apart by them.
        """
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}/?{query}#{tab}")
        return self.wait_for(*expected)

    def choose(self, beginning: str) -> None:
        """Chooses an entry of a menu of the projector, by what its text begins with."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            # `text` would be that of open menus only.
            entries = {
                solid(entry.get_attribute("textContent")): entry
                for entry in self.elements("paper-item")
            }
            found = [e for t, e in entries.items() if t.startswith(solid(beginning))]
            if found:
                break
            assert time.monotonic() < deadline, f"no entry {beginning}"
            time.sleep(0.5)
        # The menu itself need not be open: an entry is told of the click all the same.
        self.driver.execute_script("arguments[0].click()", found[0])

    def enter_frames(self, depth: int) -> None:
        """Goes into the frames that a tab consists of, as they appear."""
        deadline = time.monotonic() + _PATIENCE
        for _ in range(depth):
            while not (frames := self.elements("iframe")):
                assert time.monotonic() < deadline, "no frame came"
                time.sleep(0.5)
            self.driver.switch_to.frame(frames[0])

    def wait_for(self, *expected: str) -> str:
        deadline = time.monotonic() + _PATIENCE
        missing, text = list(expected), ""
        while missing and time.monotonic() < deadline:
            time.sleep(0.5)
            text = self.driver.execute_script(_TEXT)
            missing = [words for words in expected if solid(words) not in solid(text)]
        assert not missing, f"not on the page: {missing}; it says: {text[:3000]}"
        return text

    def elements(self, selector: str) -> list:
        script = _ELEMENTS.replace("arguments_selector", repr(selector))
        return self.driver.execute_script(script)

    def pictures(self) -> list[tuple[int, int]]:
        """Width and height of every image that has loaded."""
        sizes = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
        shown = [self.driver.execute_script(sizes, e) for e in self.elements("img")]
        return [tuple(size) for size in shown if min(size)]

    def colours(self, element) -> int:
        """Returns the number of hues in more than a few pixels of an element."""
        with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
            hue, saturation, _ = np.moveaxis(np.asarray(image.convert("HSV")), -1, 0)
        counts = np.bincount(hue[saturation > 90] // 8, minlength=32)
        return int((counts > 20).sum())

    def save(self, name: str) -> None:
        """Keeps a screenshot, 1400 pixels wide, if the environment says where."""
        directory = os.environ.get("SCREENSHOTS")
        if directory:
            time.sleep(2)  # what moves comes to rest
            screen = io.BytesIO(self.driver.get_screenshot_as_png())
            with Image.open(screen) as image:
                image = image.convert("RGB")
            image.thumbnail((1400, 1400), Image.Resampling.LANCZOS)
            # A palette takes half of the space, and shows here.
            image.quantize(256).save(f"{directory}/{name}.png", optimize=True)

    def close(self):
        self.driver.quit()
