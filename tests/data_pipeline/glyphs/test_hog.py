"""The features against a naive loop and against edges whose direction is known."""

import numpy as np
import pytest

from leo_tf.data_pipeline.glyphs.hog import (
    CELLS,
    NUM_FEATURES,
    ORIENTATIONS,
    VERSION,
    hog,
)


def naive_hog(image):
    """The definition, pixel by pixel, for one [S, S] picture."""
    side = len(image)
    cell = side // CELLS
    value = image / 255.0
    cells = np.zeros((CELLS, CELLS, ORIENTATIONS))
    for row in range(side):
        for column in range(side):
            right = value[row, min(column + 1, side - 1)]
            right -= value[row, max(column - 1, 0)]
            down = value[min(row + 1, side - 1), column]
            down -= value[max(row - 1, 0), column]
            angle = (np.arctan2(down, right) % np.pi) / np.pi * ORIENTATIONS
            for orientation in range(ORIENTATIONS):
                gap = abs(angle - orientation)
                near = max(0.0, 1 - min(gap, ORIENTATIONS - gap))
                for i in range(CELLS):
                    in_row = max(0.0, 1 - abs((row + 0.5) / cell - 0.5 - i))
                    for j in range(CELLS):
                        in_cell = max(0.0, 1 - abs((column + 0.5) / cell - 0.5 - j))
                        share = near * in_row * in_cell
                        cells[i, j, orientation] += share * np.hypot(right, down)
    normalized = np.zeros_like(cells)
    for i in range(CELLS):
        for j in range(CELLS):
            block = cells[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            normalized[i, j] = cells[i, j] / np.sqrt(np.sum(block**2) + 0.1)
    return normalized.ravel()


def test_features_match_a_loop_over_pixels():
    images = np.random.default_rng(3).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    np.testing.assert_allclose(
        hog(images), [naive_hog(image) for image in images], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("bright_first", [False, True])
@pytest.mark.parametrize("degrees, expected", [(0, 0), (90, 5), (36, 2), (144, 8)])
def test_an_edge_falls_into_the_bin_of_its_gradient(degrees, expected, bright_first):
    down, right = np.mgrid[:32, :32] - 15.5
    angle = np.deg2rad(degrees)
    ramp = np.clip(np.cos(angle) * right + np.sin(angle) * down, -4, 4) * 31 + 127
    image = (255 - ramp if bright_first else ramp).astype(np.uint8)
    total = hog(image[None]).reshape(-1, ORIENTATIONS).sum(axis=0)
    assert total.argmax() == expected
    assert total[expected] > 0.8 * total.sum()


def test_cells_keep_their_place():
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 1:3, 25:27] = 255  # first row of cells, seventh of eight columns
    cells = hog(image).reshape(CELLS, CELLS, ORIENTATIONS).sum(axis=-1)
    assert np.unravel_index(cells.argmax(), cells.shape) == (0, 6)
    assert not cells[3:].any() and not cells[:, :4].any()


def test_there_are_as_many_features_as_in_the_paper():
    assert hog(np.zeros((3, 32, 32), np.uint8)).shape == (3, 640) == (3, NUM_FEATURES)


def test_contrast_hardly_matters():
    image = np.zeros((1, 32, 32), np.uint8)
    image[0, 8:24, 8:24] = 250
    faint, strong = hog(image // 2), hog(image)
    np.testing.assert_allclose(faint, strong, atol=0.05)


def test_these_features_belong_to_this_version():
    """Features that are kept under a version must be those that it computes."""
    noise = np.random.default_rng(7).integers(0, 256, (1, 64, 64), dtype=np.uint8)
    [found] = hog(noise)
    known = [0.16177635, 0.10241525, 0.15341912, 71.54438999, 22863.67258330]
    sums = found.sum(), found @ np.arange(NUM_FEATURES)
    np.testing.assert_allclose([*found[[0, 100, 639]], *sums], known, rtol=1e-7)
    assert VERSION.startswith("54be4368"), "new features need a new version"
