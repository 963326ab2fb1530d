"""Images drawn by code: labelled scenes in four families that mirror the paper's four sources.

Not photographs and not noise. A class is a shape, a fine texture and an arrangement (the texture
lies on the object or on the ground); grey level, tint, place, size, light and phase vary freely, so
that no single pixel gives the class away. The texture's period is an eighth of the image: four
pixels at 32, two at 16.

Every item is drawn from its own counter with additions, products, quotients, roots and comparisons
only, which IEEE 754 fixes to the last bit: the same item is the same image on every machine.
"""

from collections.abc import Callable

import numpy as np

from mae_lib.errors import StudyError
from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.study.suggest import nearest

SHAPES = ("disc", "triangle", "cross", "ring")
TEXTURES = ("level stripes", "upright stripes", "rising stripes", "falling stripes", "checks")
ARRANGEMENTS = ("on the object", "on the ground")
CLASSES = tuple(f"{s}, {t}, {a}" for s in SHAPES for t in TEXTURES for a in ARRANGEMENTS)

PERIOD = 0.125  # of a texture, as a share of the image side
TINT = 0.06
_DRAWS = 96
# Pixels drawn at once; an item is the same in any batch, so this is a matter of memory alone.
_CHUNK_PIXELS = 2**18


def draw(family: str, items: np.ndarray, *, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw items of a family: uint8 `[n, size, size, 3]` and their class, int64 `[n]`.

    Raises: StudyError for an unknown family.
    """
    if family not in FAMILIES:
        raise StudyError(f"data.sources: unknown family, got {family!r}{nearest(family, FAMILIES)}")
    items = np.asarray(items, np.uint64)
    images = np.empty((len(items), size, size, 3), np.uint8)
    labels = np.empty(len(items), np.int64)
    # Families never share a counter, so that a face and an object of one item differ.
    offset = np.uint64(list(FAMILIES).index(family)) << np.uint64(40)
    step = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, len(items), step):
        part = slice(start, start + step)
        words = random_words(seed, Purpose.SCENE, items[part] + offset, draws=_DRAWS)
        scene = _Scene(words, size)
        labels[part] = FAMILIES[family](scene)
        images[part] = scene.pixels()
    return images, labels


class _Scene:
    """A batch of canvases `[n, size, size]` and the random numbers that fill them, in turn."""

    def __init__(self, words: np.ndarray, size: int):
        self.words, self.size, self.used = words, size, 0
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = centres[None, None, :], centres[None, :, None]
        self.canvas = np.zeros((len(words), size, size, 3), np.float32)

    def draw(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return the next uniform number of each item: float32 `[n, 1, 1]`."""
        share = uniform(self.words[:, self.used]).astype(np.float32)[:, None, None]
        self.used += 1
        return np.float32(low) + np.float32(high - low) * share

    def choose(self, count: int) -> np.ndarray:
        """Return the next choice of each item: int64 `[n]` below `count`."""
        chosen = (self.words[:, self.used] * np.uint64(count)) >> np.uint64(32)
        self.used += 1
        return chosen.astype(np.int64)

    def colour(self, low: float = 0.1, high: float = 0.9) -> np.ndarray:
        """Return the next colour of each item, a tinted grey: float32 `[n, 1, 1, 3]`.

        Bright hues would be what a feature knows first, and they say nothing about the class.
        """
        level = self.draw(low + TINT, high - TINT)
        return np.stack([level + self.draw(-TINT, TINT) for _ in range(3)], -1)

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Put a colour where the mask is true."""
        np.copyto(self.canvas, colour, where=mask[..., None])

    def backdrop(self) -> None:
        """Fill the canvas with a plane from one colour to another, and a broad second band."""
        first, second = self.colour(), self.colour()
        slope_x, slope_y = self.draw(-1, 1), self.draw(-1, 1)
        share = np.float32(0.5) + np.float32(0.5) * (
            slope_x * (self.x - np.float32(0.5)) + slope_y * (self.y - np.float32(0.5))
        )
        self.canvas[...] = first + (second - first) * share[..., None]
        edge, width = self.draw(0, 1), self.draw(0.05, 0.25)
        upright = self.draw() < 0.5
        along = np.where(upright, self.x, self.y)
        band = np.abs(along - edge) < width
        self.paint(band, (first + second + self.colour()) / np.float32(3))

    def pixels(self) -> np.ndarray:
        """Light the canvas from one side and return grey levels.

        The light never lifts a colour of `colour` above white: cutting it there would make objects
        darker on average, and a linear readout of raw pixels finds even that.
        """
        left, top = self.draw(-0.1, 0.1), self.draw(-0.1, 0.1)
        light = np.float32(1) + left * (self.x - np.float32(0.5)) + top * (self.y - np.float32(0.5))
        levels = self.canvas * light[..., None] * np.float32(255)
        return np.clip(levels + np.float32(0.5), 0, 255).astype(np.uint8)


def _shape(kind: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Say which points (u, v) of the square [-1, 1] belong to each item's shape."""
    kind = kind[:, None, None]
    square_distance = u * u + v * v
    thin = np.float32(0.33)
    return np.select(
        [kind == 0, kind == 1, kind == 2],
        [
            square_distance < 0.9,
            (v < 0.8) & (v > 2 * np.abs(u) - np.float32(0.95)),
            ((np.abs(u) < thin) | (np.abs(v) < thin)) & (np.maximum(np.abs(u), np.abs(v)) < 1),
        ],
        (square_distance < 1) & (square_distance > 0.3),
    )


def _texture(kind: np.ndarray, x: np.ndarray, y: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Say which points carry the second colour of each item's texture."""
    kind = kind[:, None, None]
    half = np.float32(PERIOD / 2)
    # A slanted stripe is as wide as a level one when its axis is shortened by the root of one half.
    slant = np.float32(0.70710678)
    axes = (y, x, (x - y) * slant, (x + y) * slant)
    level, upright, rising, falling = (np.floor((axis + phase) / half) % 2 == 0 for axis in axes)
    return np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3],
        [level, upright, rising, falling],
        level == upright,
    )


def _objects(scene: _Scene) -> np.ndarray:
    """One object on a ground, one of the two textured; returns the class of each item."""
    shape = scene.choose(len(SHAPES))
    texture = scene.choose(len(TEXTURES))
    arrangement = scene.choose(len(ARRANGEMENTS))
    scene.backdrop()
    body_colour, first, second = (scene.colour() for _ in range(3))
    phase, radius = scene.draw(0, PERIOD), scene.draw(0.28, 0.42)
    centre_x, centre_y = scene.draw(0.32, 0.68), scene.draw(0.32, 0.68)
    u, v = (scene.x - centre_x) / radius, (scene.y - centre_y) / radius
    body = _shape(shape, u, v)
    on_object = (arrangement == 0)[:, None, None]
    scene.paint(body, body_colour)
    textured = body == on_object
    marked = _texture(texture, scene.x, scene.y, phase)
    scene.paint(textured & marked, first)
    scene.paint(textured & ~marked & on_object, second)
    return (shape * len(TEXTURES) + texture) * len(ARRANGEMENTS) + arrangement


def _faces(scene: _Scene) -> np.ndarray:
    """A head with hair, eyes and a mouth; returns whether the mouth is wide."""
    wide = scene.choose(2)
    scene.backdrop()
    centre_x, centre_y = scene.draw(0.44, 0.56), scene.draw(0.47, 0.57)
    across, down = scene.draw(0.24, 0.32), scene.draw(0.32, 0.4)
    skin, hair = scene.colour(0.45, 0.95), scene.colour(0.0, 0.6)
    u, v = (scene.x - centre_x) / across, (scene.y - centre_y) / down
    scene.paint((u * u + (v + np.float32(0.25)) ** 2 < 1.25), hair)
    scene.paint(u * u + v * v < 1, skin)
    gap, size, height = scene.draw(0.36, 0.5), scene.draw(0.1, 0.17), scene.draw(-0.35, -0.15)
    iris = scene.colour(0.0, 0.5)
    for side in (-1, 1):
        du, dv = u - np.float32(side) * gap, v - height
        white = du * du + 2 * dv * dv < size * size * np.float32(2.2)
        scene.paint(white, np.full((1, 1, 1, 3), 0.95, np.float32))
        scene.paint(du * du + dv * dv < size * size * np.float32(0.6), iris)
    reach = np.where((wide == 1)[:, None, None], scene.draw(0.45, 0.6), scene.draw(0.15, 0.28))
    mouth = (np.abs(u) < reach) & (np.abs(v - np.float32(0.5)) < scene.draw(0.05, 0.11))
    scene.paint(mouth, scene.colour(0.3, 0.8))
    return wide


def _scenes(scene: _Scene) -> np.ndarray:
    """Ground, sky and a row of houses with windows; returns how many houses there are."""
    houses = scene.choose(4)
    scene.backdrop()
    horizon = scene.draw(0.55, 0.75)
    scene.paint(scene.y > horizon, scene.colour(0.1, 0.7))
    sun_x, sun_y, sun = scene.draw(0.1, 0.9), scene.draw(0.08, 0.3), scene.draw(0.05, 0.1)
    scene.paint((scene.x - sun_x) ** 2 + (scene.y - sun_y) ** 2 < sun * sun, scene.colour(0.8, 1))
    for house in range(4):
        there = (houses >= house)[:, None, None]
        left = np.float32(0.04 + 0.24 * house) + scene.draw(0, 0.05)
        width, roof = scene.draw(0.14, 0.22), horizon - scene.draw(0.15, 0.4)
        wall, pane = scene.colour(0.2, 0.9), scene.draw(0.0, 1.0)[..., None]
        body = there & (scene.x > left) & (scene.x < left + width)
        body = body & (scene.y > roof) & (scene.y < horizon + np.float32(0.05))
        scene.paint(body, wall)
        pitch = np.float32(PERIOD)
        across = (scene.x - left) / pitch
        down = (scene.y - roof) / pitch
        window = (across - np.floor(across) > 0.45) & (down - np.floor(down) > 0.45)
        scene.paint(body & window, np.broadcast_to(pane, (len(pane), 1, 1, 3)))
    return houses


def _tiny(scene: _Scene) -> np.ndarray:
    """Objects drawn at half the size and enlarged: an image with half the pixels it claims."""
    small = _Scene(scene.words, max(1, scene.size // 2))
    labels = _objects(small)
    scene.used = small.used
    rows = np.arange(scene.size) * small.size // scene.size
    scene.canvas[...] = small.canvas[:, rows][:, :, rows]
    return labels


FAMILIES: dict[str, Callable[[_Scene], np.ndarray]] = {
    "objects": _objects,
    "faces": _faces,
    "tiny": _tiny,
    "scenes": _scenes,
}
