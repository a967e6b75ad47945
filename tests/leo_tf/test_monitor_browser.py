"""What people see: a real browser at a real TensorBoard of a real run.

    pytest -m browser

needs Chromium with its driver (Debian: chromium, chromium-driver) and Selenium. With
SCREENSHOTS=docs/images it makes the pictures of docs/tensorboard.md.
"""

import time

import pytest
from tensorboard_page import Page, find, solid, tensorboard

from leo_tf.command_line import main

pytestmark = pytest.mark.browser

_RUN = ("--validate_every=100", "--num_val_episodes=300", "--num_test_episodes=100")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A directory of two runs: one learns, one collapses."""
    find("chromium"), find("chromedriver")
    pytest.importorskip("selenium", reason="pip install selenium")
    directory = tmp_path_factory.mktemp("runs")
    common = ["run_leo.py", "--preset=glyphs", "--quiet", "--log_every=20", *_RUN]
    good = [f"--workdir={directory}/glyphs", "--num_steps=600"]
    assert main([*common, *good]) == 0
    collapsed = [f"--workdir={directory}/collapsed", "--num_steps=300", "--outer_lr=1"]
    main([*common, *collapsed])
    return directory


@pytest.fixture(scope="module")
def page(runs):
    with tensorboard(runs / "glyphs") as address:
        page = Page(address)
        yield page
        page.close()


def card_of(page, tag):
    """The chart of a tag in the tab of time series."""
    cards = page.elements("scalar-card")
    [card] = [card for card in cards if tag in solid(card.text)]
    return card


def coloured(page, tag, at_least):
    """The hues of a chart, as soon as its curves are drawn."""
    for _ in range(60):
        # Not the whole card: its table shows the runs' colours, curves or not.
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
    page.save("tensorboard_first_screen")


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
    page.save("tensorboard_histograms")


def test_the_projector_has_the_codes_with_labels_and_sprites(page):
    page.open("projector")
    page.enter_frames(2)
    page.wait_for("Points: 400", "Dimension: 64", "latent codes", "adaptation")
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
    page.open("text", "command_line", "configuration", "--num_steps=600", "glyphs")


def test_runs_can_be_compared_by_their_settings(runs):
    with tensorboard(runs) as address:
        page = Page(address)
        try:
            text = page.open(
                "hparams", "outer_lr", "best validation accuracy", "TABLE VIEW"
            )
            assert "adaptation_lr_init" not in text
            page.wait_for("glyphs", "0.30000")  # of dropout_rate, in both rows
            page.save("tensorboard_hparams")
            page.open("timeseries", "accuracy_and_loss/steps_not_finite")
            assert coloured(page, "accuracy_and_loss/accuracy", 5) >= 5
            page.save("tensorboard_collapsed")
        finally:
            page.close()
