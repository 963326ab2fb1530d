"""What is in a store: the mixture as asked and built, real pixels, and a picture of it."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from mae_lib.images.store import Store


def describe(store: Store) -> pd.DataFrame:
    """Return a row a source: share asked, images, share built, native side in pixels."""
    rows = []
    for source in store.manifest["recipe"]["sources"]:
        name = source["name"]
        chosen = (store.index["source"] == name).to_numpy()
        sides = store.native_sides[chosen]
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


def resolutions(store: Store, asked: list[int]) -> pd.DataFrame:
    """Return a row a source and resolution: its effective resolution and share of real pixels."""
    rows = []
    for name, sides in pd.Series(store.native_sides).groupby(store.index["source"], sort=False):
        for resolution in asked:
            effective = np.minimum(sides, resolution)
            rows.append(
                {
                    "source": name,
                    "resolution": resolution,
                    "effective": round(float(effective.mean()), 1),
                    "real_pixels": round(float((effective**2).mean() / resolution**2), 3),
                }
            )
    return pd.DataFrame(rows)


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


def png_bytes(image: np.ndarray) -> bytes:
    """Encode uint8 `[H, W, 3]` as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
