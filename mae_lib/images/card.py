"""What is in a store: the mixture as asked and built, real pixels, and a picture of it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mae_lib.images.inventory import counts_of, study_inventory
from mae_lib.images.mixture import allot, feasibility_frame
from mae_lib.images.publishers import PUBLISHERS
from mae_lib.images.store import Store
from mae_lib.study.definition import Data


def describe(store: Store) -> pd.DataFrame:
    """Return a row a source: share asked, images, share built, native side in pixels."""
    rows = []
    for source in store.manifest["recipe"]["sources"]:
        name = source["name"]
        chosen = (store.index["source"] == name).to_numpy()
        # A share so small that no image is due leaves a source without sides.
        sides = store.native_sides[chosen] if chosen.any() else np.zeros(1, np.int64)
        rows.append(
            {
                "source": name,
                "asked": source["share"],
                "images": int(chosen.sum()),
                "built": chosen.mean().round(4),
                "native_min": int(sides.min()),
                "native_median": int(np.median(sides)),
                "native_max": int(sides.max()),
            }
        )
    return pd.DataFrame(rows)


def feasibility(data: Data, root: Path | None) -> pd.DataFrame:
    """Return a row a source: share, images asked for, there, and missing.

    Drawn images are there as asked. Raises: as `inventory.study_inventory`.
    """
    if data.kind == "procedural":
        asked = allot(data.total, [source.share for source in data.sources])
        available = {s.name: int(n) for s, n in zip(data.sources, asked, strict=True)}
    else:
        available = counts_of(study_inventory(data, root))
    return feasibility_frame(data.total, data.sources, available)


def tasks_frame(store: Store) -> pd.DataFrame:
    """Return a row a task: labelled images for training and test, classes, and chance."""
    rows = []
    for task in store.manifest["recipe"]["tasks"]:
        images = store.task(task["name"])
        counts = np.bincount(images.test_labels)
        rows.append(
            {
                "task": task["name"],
                "train": len(images.train_labels),
                "test": len(images.test_labels),
                "classes": images.classes,
                "chance": round(float(counts.max() / counts.sum()), 4),
            }
        )
    return pd.DataFrame(rows)


def montage(store: Store, *, per_source: int) -> np.ndarray:
    """Return the first images of each source, one row a source: uint8 `[H, W, 3]`."""
    rows = []
    for source in store.manifest["recipe"]["sources"]:
        chosen = np.flatnonzero((store.index["source"] == source["name"]).to_numpy())[:per_source]
        blank = np.full((per_source, *store.images.shape[1:]), 255, np.uint8)
        blank[: len(chosen)] = store.images[chosen]
        rows.append(np.concatenate(list(blank), axis=1))
    return np.concatenate(rows, axis=0)


def pairs_png(store: Store, pairs: pd.DataFrame, *, most: int, across: int) -> list[bytes]:
    """Return one PNG of pairs side by side, `across` pairs a row; none where there is no pair.

    `pairs` has the columns of `mae_lib.images.duplicates.COLUMNS`.
    """
    opened: dict[str, np.ndarray] = {}
    tiles = []
    for pair in pairs.head(most).itertuples():
        for array in (pair.array_1, pair.array_2):
            if array not in opened:
                opened[array] = np.load(store.folder / array, mmap_mode="r")
        both = [opened[pair.array_1][pair.row_1], opened[pair.array_2][pair.row_2]]
        gap = max(1, both[0].shape[0] // 8)
        framed = np.pad(
            np.concatenate(both, axis=1), ((0, gap), (0, gap), (0, 0)), constant_values=255
        )
        tiles.append(framed)
    if not tiles:
        return []
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % across if len(tiles) > across else 0)
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    return [png_bytes(np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))]


def set_aside_frame(store: Store) -> pd.DataFrame:
    """Return a row an image that was set aside: its array, source, name, kind and reason."""
    path = store.folder / "set_aside.csv"
    if not path.exists():
        return pd.DataFrame(columns=["array", "source", "name", "kind", "reason"])
    return pd.read_csv(path, keep_default_na=False)


def terms_frame(sources: Sequence[str], kind: str) -> pd.DataFrame:
    """Return a row a source: under which terms its images come, and whether they may be passed on."""
    rows = []
    for name in sources:
        if kind == "procedural":
            terms, page, passed = "drawn by this project's code, Apache-2.0", "", "yes"
        elif name in PUBLISHERS:
            terms, page = PUBLISHERS[name].terms, PUBLISHERS[name].page
            passed = "no" if "no redistribution" in terms else "not stated"
        else:
            terms, page, passed = "the study's author knows", "", "not stated"
        rows.append({"source": name, "terms": terms, "may_be_passed_on": passed, "page": page})
    return pd.DataFrame(rows)


def png_bytes(image: np.ndarray) -> bytes:
    """Encode uint8 `[H, W, 3]` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
