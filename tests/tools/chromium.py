"""A headless Chromium, driven by Selenium, and programs whose pages it shows."""

import contextlib
import re
import shutil
import subprocess

import pytest


def needed() -> dict[str, str]:
    """Returns the paths of Chromium and its driver; skips the test without them."""
    pytest.importorskip("selenium", reason="pip install selenium")
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in paths.items():
        if path is None:
            reason = "apt-get install chromium chromium-driver"
            pytest.skip(f"{name} is not here: {reason}")
    return paths


def start(*arguments: str, **capabilities):
    """Returns a driver, Selenium's, of a browser with more arguments."""
    paths = needed()
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    # Root has no sandbox.
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", *arguments):
        options.add_argument(argument)
    for name, value in capabilities.items():
        options.set_capability(f"goog:{name}", value)
    return webdriver.Chrome(options, webdriver.ChromeService(paths["chromedriver"]))


@contextlib.contextmanager
def address_of(command, pattern: str):
    """The address that a program tells of itself on stderr, while it runs."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            if found := re.search(pattern, line):
                yield found[1]
                return
        pytest.fail(f"{command} did not start")
    finally:
        process.terminate()
        process.wait()
