"""What image sets lie under MAE_DATA, and which public ones do not."""

from collections import Counter
from pathlib import Path

import pandas as pd

from mae_lib.errors import MaeError
from mae_lib.images.entries import list_entries, listing_sha256, locate
from mae_lib.images.layouts.registry import find, require_folder
from mae_lib.images.publishers import PUBLISHERS
from mae_lib.study.definition import Data, Source
from mae_lib.study.known import LAYOUTS_OF


def inventory(root: Path) -> pd.DataFrame:
    """Return a row a set found: layout, place, images, labels, splits, and its problem, if any.

    Reads every list and every archive's headers, no image. `labels` counts the different ones.
    """
    rows = []
    for layout, place in find(root):
        row = {"layout": layout.name, "place": _below(place, root)}
        try:
            splits, labels = Counter(), set()
            for entry in layout.read(place):
                splits[entry.split] += 1
                labels.add(entry.label)
            row |= {
                "images": splits.total(),
                "labels": len(labels - {-1}),
                "splits": ", ".join(f"{name} {count:,}" for name, count in sorted(splits.items())),
                "problem": "",
            }
        except MaeError as error:
            row |= {"images": 0, "labels": 0, "splits": "", "problem": str(error)}
        rows.append(row)
    columns = ["layout", "place", "images", "labels", "splits", "problem"]
    return pd.DataFrame(rows, columns=columns)


def missing_sets(found: pd.DataFrame) -> list[str]:
    """Return the public sets of which no layout was found, in the publishers' order."""
    there = set(found.loc[found["problem"] == "", "layout"])
    return [name for name in PUBLISHERS if not there & set(LAYOUTS_OF.get(name, (name,)))]


def study_inventory(data: Data, root: Path | None) -> pd.DataFrame:
    """Return a row a source of a study: where it was found, its images, and its listing's sha256.

    `images` is NA where a source cannot be used; `problem` then says why.
    """
    rows = [_of_source(data.kind, source, root) for source in data.sources]
    frame = pd.DataFrame(
        rows, columns=["source", "layout", "place", "images", "listing", "problem"]
    )
    return frame.astype({"images": "Int64"})


def counts_of(found: pd.DataFrame) -> dict[str, int | None]:
    """Return the images by source of a `study_inventory`, None where a source cannot be used."""
    counts = [None if pd.isna(count) else int(count) for count in found["images"]]
    return dict(zip(found["source"], counts, strict=True))


def _of_source(kind: str, source: Source, root: Path | None) -> dict[str, object]:
    row: dict[str, object] = {"source": source.name, "layout": "", "place": "", "listing": ""}
    # A tar of kind "tars" is used whole, whatever splits its JSONs name.
    if kind == "tars":
        source = Source(source.name, source.share, layout="webdataset", path=source.file)
    try:
        layout, place = locate(source, root)
        row |= {"layout": layout.name, "place": _below(place, root)}
        if kind == "tars":
            require_folder(root)
            count = sum(1 for _ in layout.read(place))
        else:
            entries = list_entries(source, root)
            count = len(entries)
            row["listing"] = listing_sha256(entries)
        return row | {"images": count, "problem": ""}
    except MaeError as error:
        return row | {"images": None, "problem": str(error)}


def _below(place: Path, root: Path | None) -> str:
    if root is not None and place.is_relative_to(root):
        return place.relative_to(root).as_posix()
    return str(place)
