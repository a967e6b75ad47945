"""Promises of random views, against one picture at a time in NumPy."""

import numpy as np
import tensorflow as tf

from leo_tf.embedding import augmentation
from leo_tf.embedding.augmentation import _jittered, random_views


def _ramp(count, side):
    """Pictures that grow from left to right, and by colour."""
    row = np.linspace(50, 200, side)
    return np.tile(row[None, None, :, None], (count, side, 1, 3)).astype(np.uint8)


def _views(pictures, seed=(3, 5), side=6, **options):
    options = {"flip": True, "smallest_area": 0.3, **options}
    return random_views(tf.constant(pictures), side, tf.constant(seed), **options)


def test_jitter_changes_brightness_then_contrast_then_saturation():
    view = np.random.default_rng(0).uniform(60, 120, (1, 4, 4, 3)).astype("float32")
    brightness, contrast, saturation = 1.2, 0.7, 1.3
    bright = view[0] * brightness
    mean = (bright @ [0.299, 0.587, 0.114]).mean()
    flat = mean + contrast * (bright - mean)
    grey = (flat @ [0.299, 0.587, 0.114])[..., None]
    expected = np.clip(grey + saturation * (flat - grey), 0, 255)
    got = _jittered(view, brightness, contrast, saturation)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_about_half_of_the_views_are_mirrored_and_none_unless_asked():
    for flip, least, most in ((True, 35, 65), (False, 0, 0)):
        views = _views(_ramp(100, 8), flip=flip).numpy()
        mirrored = (views[:, 0, 0, 0] > views[:, 0, -1, 0]).sum()
        assert least <= mirrored <= most


def test_crops_show_all_of_the_areas_asked_for_and_no_other(monkeypatch):
    monkeypatch.setattr(augmentation, "_jittered", lambda views, *unused: views)
    ramp = _ramp(200, 32)
    options = {"side": 32, "flip": False}
    whole = _views(ramp, smallest_area=1.0, **options)
    np.testing.assert_allclose(whole, ramp, atol=1e-3)
    views = _views(ramp, smallest_area=0.25, **options).numpy()
    edges = np.ptp(views[:, 0, :, 0], axis=1) / 150  # of a side
    assert 0.48 < edges.min() < 0.55 and 0.95 < edges.max() <= 1.0


def test_views_follow_from_the_seed_and_differ_by_picture():
    pictures = _ramp(3, 8)
    again, other = _views(pictures), _views(pictures, seed=(3, 6))
    np.testing.assert_array_equal(_views(pictures), again)
    assert not np.allclose(again, other) and not np.allclose(again[0], again[1])
