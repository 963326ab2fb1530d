"""Pixels asked for, pixels that reach the encoder, and pixels that are real.

`source_size` (a store's side) is apart from a cell's `resolution`: a crop of what is stored is resized
to the resolution. Beyond an image's native side every pixel is interpolated.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mae_lib.images.public_sizes import NATIVE_SIDES
from mae_lib.images.store import Store
from mae_lib.study.definition import Cell, Source

# ImageNet's images have any size; 500 x 375 is the commonest (Russakovsky et al. 2015, average
# 500 x 400).
TYPICAL_SIDES: dict[str, tuple[int, str]] = {
    "imagenet": (375, "any size, 500 x 375 the commonest"),
}


def stored_resolutions(store: Store, asked: Sequence[int]) -> pd.DataFrame:
    """Return a row a source and resolution, of the images in a store, and one for all of them.

    `effective` is the mean of min(native side, resolution); `real_pixels` the share of an image's
    pixels that its native size supports, (effective / resolution)^2 averaged over images.
    """
    rows = []
    sides = pd.Series(store.native_sides)
    named = [(name, part) for name, part in sides.groupby(store.index["source"], sort=False)]
    for name, part in [*named, ("all", sides)]:
        rows += [_row(name, part.to_numpy(), np.ones(len(part)), side) for side in asked]
    return pd.DataFrame(rows)


def native_frame(store: Store) -> pd.DataFrame:
    """Return how the shorter native sides of each source spread: a row a source and size class.

    Classes are a quarter of an octave wide; `native_side` is the median within, `share` of the
    source's images.
    """
    frame = pd.DataFrame({"source": store.index["source"], "side": store.native_sides})
    frame["octave"] = np.rint(np.log2(frame["side"]) * 4)
    frame = frame.sort_values("side", kind="stable")
    grouped = frame.groupby(["source", "octave"], sort=False)["side"]
    found = grouped.agg(native_side="median", images="size").reset_index()
    found["share"] = found["images"] / found.groupby("source")["images"].transform("sum")
    return found.drop(columns="octave")


def public_resolutions(sources: Sequence[Source], asked: Sequence[int]) -> pd.DataFrame:
    """Return the same for the public sets as published, mixed by the shares of `sources`."""
    known = {**NATIVE_SIDES, **TYPICAL_SIDES}
    sides = np.array([known[source.name][0] for source in sources])
    shares = np.array([source.share for source in sources])
    rows = []
    for source, side in zip(sources, sides, strict=True):
        for resolution in asked:
            row = _row(source.name, np.array([side]), np.ones(1), resolution)
            rows.append(row | {"native": known[source.name][1]})
    for resolution in asked:
        rows.append(_row("all, by share", sides, shares, resolution) | {"native": ""})
    return pd.DataFrame(rows)


def patch_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Return a row a resolution and patch: nominal pixels, those that reach the encoder, tokens.

    A side that the patch does not divide is rounded down to whole patches: the random crop is
    resized to that side, so nothing is cut off.
    """
    rows = {
        (cell.resolution, cell.patch_size): {
            "nominal_pixels": cell.resolution,
            "patch_size": cell.patch_size,
            "effective_pixels": cell.pixels,
            "tokens": cell.tokens,
            "source_size": cell.data.size,
        }
        for cell in cells
    }
    return pd.DataFrame([rows[key] for key in sorted(rows)])


def _row(name: str, sides: np.ndarray, weights: np.ndarray, resolution: int) -> dict:
    effective = np.minimum(sides, resolution)
    return {
        "source": name,
        "resolution": int(resolution),
        "effective": round(float(np.average(effective, weights=weights)), 1),
        "real_pixels": round(float(np.average(effective**2 / resolution**2, weights=weights)), 6),
    }
