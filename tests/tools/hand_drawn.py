"""Signs of the embedded set, as people would draw them."""

import itertools

import numpy as np

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
NAMES = [name.split()[-1].title() for name in SIGNS]
STROKES = list(SIGNS.values())


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
