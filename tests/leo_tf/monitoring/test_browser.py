"""TensorBoard of a real run in a real browser.

    pytest -m browser

needs Chromium with its driver (Debian: chromium, chromium-driver) and Selenium.
SCREENSHOTS=docs/images makes the pictures of docs/tensorboard.md.
"""

import contextlib
import re
import time

import chromium
import pytest
from tensorboard_page import Page, solid, tensorboard

from leo_tf.cli.main import main

pytestmark = pytest.mark.browser

_COMMON = "--preset=glyphs --quiet --validate_every=100 --log_every=20"
_COMMON += " --num_val_episodes=300 --num_test_episodes=100"
_RUNS = {
    "healthy": "--num_steps=1000",
    "lower_rate": "--num_steps=1000 --outer_lr=2e-4",
    "collapsed": "--num_steps=1000 --outer_lr=0.05",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns a directory of three runs: one learns, one is slow, one collapses."""
    chromium.needed()
    directory = tmp_path_factory.mktemp("runs")
    for name, flags in _RUNS.items():
        command = f"run_leo.py {_COMMON} {flags} --workdir={directory}/{name}"
        assert (main(command.split()) == 0) == (name != "collapsed")
    return directory


@contextlib.contextmanager
def page_of(logdir):
    with tensorboard(logdir) as address:
        page = Page(address)
        try:
            yield page
        finally:
            page.close()


@pytest.fixture(scope="module")
def page(runs):
    with page_of(runs / "healthy") as page:
        yield page


def card_of(page, tag):
    """Returns the chart of a tag in the tab of time series."""
    cards = page.elements("scalar-card")
    [card] = [card for card in cards if tag in solid(card.text)]
    return card


def coloured(page, tag, at_least):
    """Returns the number of hues of a chart, once its curves are drawn."""
    for _ in range(60):
        # Not the whole card, whose table has the runs' colours even without curves.
        chart = card_of(page, tag).find_element("css selector", "line-chart")
        if page.colours(chart) >= at_least:
            break
        time.sleep(1)
    return page.colours(chart)


def test_the_first_screen_shows_accuracy_beside_the_line_and_the_loss(page):
    page.open("timeseries", "accuracy_and_loss/accuracy", "accuracy_and_loss/loss")
    # Training, validation and nearest centroid: three curves in one chart.
    assert coloured(page, "accuracy_and_loss/accuracy", 3) >= 3
    card = card_of(page, "accuracy_and_loss/accuracy")
    for run in ("events/train", "events/validation", "events/centroid"):
        assert run in card.text
    assert coloured(page, "accuracy_and_loss/loss", 2) >= 2
    first_screen = page.driver.get_window_size()["height"]
    for tag in ("accuracy_and_loss/accuracy", "accuracy_and_loss/loss"):
        assert card_of(page, tag).rect["y"] < first_screen / 2
    page.save("tensorboard_scalars")


def test_scalars_are_in_their_groups(page):
    text = page.open("scalars", "accuracy_and_loss", "speed")
    groups = [
        "accuracy_and_loss",
        "inner_loop",
        "inner_loop_steps",
        "loss_parts",
        "optimisation",
        "optimisation_clipped_share",
        "optimisation_gradient_norm",
        "optimisation_gradient_norm_after_clipping",
        "optimisation_update_to_weight",
        "speed",
        "validation",
    ]
    places = [text.find(f" {group} ") for group in groups]
    assert min(places) == places[0] >= 0, "what tells most comes first"


def test_histograms_of_gradients_latents_and_variables_are_there(page):
    page.open("histograms", "tensors_gradients", "tensors_latents", "tensors_variables")
    page.wait_for("tensors_gradients/encoder/kernel")
    page.open(
        "timeseries",
        "tensors_latents/before",
        "tensors_latents/after",
        "tensors_variables/inner_lr",
        query="tagFilter=latents|tensors.*decoder|tensors.*inner_lr",
    )
    page.save("tensorboard_histograms")


def test_the_projector_has_the_codes_with_labels_and_sprites(page):
    page.open("projector")
    page.enter_frames(2)
    page.wait_for("Points: 400", "Dimension: 64", "latent codes", "adaptation")
    page.choose("adaptation 2 colors")  # of codes before, and of codes after
    page.wait_for("before 200", "after 200")  # the legend of colours
    canvas = max(page.elements("canvas"), key=lambda e: e.rect["width"])
    for _ in range(30):
        if page.colours(canvas) >= 2:
            break
        time.sleep(1)
    assert page.colours(canvas) >= 2
    time.sleep(5)  # until the points are placed
    page.save("tensorboard_projector")


def test_pictures_are_drawn(page):
    page.open(
        "images", "pictures/confusion", "pictures/episode", "pictures/reliability"
    )
    for _ in range(60):
        if len(page.pictures()) >= 3:
            break
        time.sleep(1)
    assert len(page.pictures()) == 3
    page.save("tensorboard_images")


def test_texts_tell_what_runs(page):
    page.open("text", "command_line", "configuration", "--num_steps=1000", "glyphs")


def last_values(page, tag) -> dict[str, float]:
    """Returns run -> last value in the table below a chart."""
    for _ in range(30):
        rows = re.findall(r"events/(\w+)\s+([\d.,]+)", card_of(page, tag).text)
        if rows:
            break
        time.sleep(1)
    return {run: float(value.replace(",", "")) for run, value in rows}


def test_that_a_run_has_collapsed_is_on_its_first_screen(runs):
    with page_of(runs / "collapsed") as page:
        tag = "accuracy_and_loss/steps_not_finite"
        page.open("timeseries", tag, query="smoothing=0")
        assert coloured(page, "accuracy_and_loss/accuracy", 3) >= 3
        accuracy = last_values(page, "accuracy_and_loss/accuracy")
        assert accuracy["validation"] < 0.3 < 0.6 < accuracy["centroid"]
        assert last_values(page, tag)["train"] > 100
        page.save("tensorboard_collapsed")


def test_runs_can_be_compared_by_their_settings(runs):
    with page_of(runs) as page:
        page.driver.set_window_size(1900, 900)
        table = ("method", "num_steps", "outer_lr", "dataset_name")
        text = page.open("hparams", *table, "best validation accuracy", "TABLE VIEW")
        assert "adaptation_lr_init" not in text
        page.wait_for(*(f"{name} ({runs.name})" for name in _RUNS), "0.00020000")
        # Of more than twenty settings the table begins with those that matter.
        places = [text.index(f" {name} ") for name in table]
        assert places == sorted(places)
        page.save("tensorboard_hparams")


def test_curves_of_runs_can_be_compared(runs):
    with page_of(runs) as page:
        query = "runFilter=validation|healthy.*centroid&smoothing=0"
        page.open("timeseries", "accuracy_and_loss/accuracy", query=query)
        # Those of two runs and the line; a third lies below the chart.
        assert coloured(page, "accuracy_and_loss/accuracy", 3) >= 3
        card = card_of(page, "accuracy_and_loss/accuracy")
        assert "healthy/events/validation" in card.text
        assert "events/train" not in card.text
        page.save("tensorboard_comparison")
