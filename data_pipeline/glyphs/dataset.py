"""The embedded data set: characters of many scripts, described by 640 numbers each.

They are drawn, once, from the fonts that come with matplotlib, and kept in the user's
cache directory. `docs/glyphs.md` says what the set is and what it is not.
"""

import itertools
import unicodedata
from collections.abc import Iterator

import numpy as np

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable
from leo_tf.data_pipeline.glyphs import cache as array_cache
from leo_tf.data_pipeline.glyphs.drawing import NUM_DRAWS, PICTURE_SIDE, Fonts, distort
from leo_tf.data_pipeline.glyphs.hog import hog

# A script is what the Unicode names of its characters begin with. Of look-alikes the
# first in this order is kept, so the common scripts lose nothing to the rare ones.
SCRIPTS = {
    "train": ("DIGIT", "LATIN", "GREEK", "COPTIC", "CYRILLIC", "LISU", "ARABIC"),
    "test": ("GEORGIAN", "TIFINAGH", "OGHAM", "HEBREW"),
    "val": ("ARMENIAN", "LAO", "NKO", "OLD ITALIC"),
}
EXAMPLES_PER_CLASS = 20

# Part of the cache's file name: raise it whenever the same fonts give other data.
VERSION = 1
_SEED = 2019
# Cosine of two blurred reference pictures from which they count as one character.
LOOK_ALIKE = 0.91
_LOOK_ALIKE_BLUR = 1.5  # pixels; standard deviation
_BLOCK_CLASSES = 16  # drawn at a time: small enough for the processor's cache


def load_splits(
    dtype: str = "float32", cache_dir: str | None = None, console: Console = SILENT
) -> dict[str, EmbeddingTable]:
    """Returns the glyphs, split by script, so that test classes are of new alphabets.

    Draws them on the first call (seconds), with progress on the console, and reads
    them from the cache afterwards: `cache_dir`, or the result of `cache.locate`.

    Returns:
      "train", "val" and "test", each with 640 features a row, `images` and `names`.

    Raises:
      InputError: if `dtype` is not a float type, or matplotlib's fonts are missing.
    """
    fonts = Fonts()
    file_name = f"glyphs-v{VERSION}-{fonts.digest()[:16]}.npz"
    path = array_cache.locate(file_name, cache_dir)
    if (arrays := array_cache.read(path)) is None:
        arrays = _draw_splits(fonts, console)
        array_cache.write(path, arrays)
    return {split: _table(split, arrays, dtype) for split in ("train", "val", "test")}


def choose_characters(fonts: Fonts) -> dict[str, list[str]]:
    """Returns the characters of each split, without those that resemble earlier ones.

    They are letters and digits. Characters that Unicode derives from others (an
    accented letter, a ligature, a positional form) are look-alikes and left out too.
    """
    references, found = [], []
    for split, scripts in SCRIPTS.items():
        for script in scripts:
            for character in _script_characters(fonts, script):
                picture = fonts.draw(character, fonts.faces_of[character][0])
                if picture is not None:
                    references.append(picture)
                    found.append((split, character))
    kept = np.zeros(len(found), bool)
    for i, cosines in enumerate(similarities(np.array(references))):
        kept[i] = not (cosines[:i][kept[:i]] >= LOOK_ALIKE).any()
    chosen: dict[str, list[str]] = {split: [] for split in SCRIPTS}
    for split, character in itertools.compress(found, kept):
        chosen[split].append(character)
    return chosen


def similarities(pictures: np.ndarray) -> np.ndarray:
    """Returns [n, n] cosines of blurred pictures [n, G, G]: near strokes agree."""
    offset = np.arange(pictures.shape[-1])
    blur = np.exp(-0.5 * (np.subtract.outer(offset, offset) / _LOOK_ALIKE_BLUR) ** 2)
    # In float64 no rounding of some processor can carry a pair over the threshold.
    blurred = (blur @ pictures.astype(np.float64) @ blur).reshape(len(pictures), -1)
    blurred /= np.linalg.norm(blurred, axis=1, keepdims=True)
    return blurred @ blurred.T


def _script_characters(fonts: Fonts, script: str) -> Iterator[str]:
    """Yields a script's letters and digits: no modifiers, ligatures, accented forms."""
    for character in sorted(fonts.faces_of):
        name = unicodedata.name(character, "")
        kind = unicodedata.category(character) in ("Lu", "Ll", "Lo", "Nd")
        named = not {"LETTER", "DIGIT"}.isdisjoint(name.split())
        plain = kind and named and not unicodedata.decomposition(character)
        if plain and name.startswith(f"{script} "):
            yield character


def _draw_splits(fonts: Fonts, console: Console) -> dict[str, np.ndarray]:
    """Returns the arrays `SPLIT_images`, `SPLIT_features` and `SPLIT_classes`."""
    chosen, arrays = choose_characters(fonts), {}
    total = sum(map(len, chosen.values()))
    with console.progress("Drawing the glyphs, once", total, unit="classes") as line:
        for split, characters in chosen.items():
            pictures, features = [], []
            for first in range(0, len(characters), _BLOCK_CLASSES):
                block = characters[first : first + _BLOCK_CLASSES]
                pictures.append(draw_examples(fonts, block, EXAMPLES_PER_CLASS))
                # Half precision: enough for histograms, and it rounds away the last
                # bits, in which processors differ.
                features.append(hog(pictures[-1]).astype(np.float16))
                line.advance(len(block))
            arrays[f"{split}_images"] = np.concatenate(pictures)
            arrays[f"{split}_features"] = np.concatenate(features)
            names = [unicodedata.name(character) for character in characters]
            arrays[f"{split}_classes"] = np.array(names)
    return arrays


def draw_examples(
    fonts: Fonts, characters: list[str], examples: int, seed: int = _SEED
) -> np.ndarray:
    """Draws distorted pictures of each character, in random faces that have it.

    Picture e of a character depends only on (seed, character, e), whatever else is
    drawn before it or with it.

    Returns:
      [characters * examples, P, P] uint8, ink bright; character by character.
    """
    glyphs, draws, noises = [], [], []
    for character in characters:
        faces = fonts.faces_of[character]
        clean = {}
        for example in range(examples):
            key = np.array([seed, ord(character) << 16 | example], np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            face = faces[int(rng.random() * len(faces))]
            if face not in clean:
                clean[face] = fonts.draw(character, face)
            glyphs.append(clean[face])
            draws.append(rng.random(NUM_DRAWS))
            noises.append(rng.random((PICTURE_SIDE, PICTURE_SIDE)))
    signed = (2 * np.array(numbers) - 1 for numbers in (draws, noises))
    return distort(np.array(glyphs), *signed)


def _table(split: str, arrays: dict[str, np.ndarray], dtype: str) -> EmbeddingTable:
    classes = arrays[f"{split}_classes"].tolist()
    features = arrays[f"{split}_features"]
    examples = len(features) // len(classes)
    names = [f"{name}/{i:02d}" for name in classes for i in range(examples)]
    return EmbeddingTable(
        embeddings=features,
        labels=np.repeat(np.arange(len(classes)), examples),
        class_names=tuple(classes),
        names=np.array(names),
        images=arrays[f"{split}_images"],
        source=f"glyphs ({split})",
        dtype=dtype,
    )
