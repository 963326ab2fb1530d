"""WebDataset tars: `KEY.jpg` or `KEY.png` beside `KEY.json` with a `label` (-1 = none).

One tar, or a folder of such tars whose names differ by a number only (shards). The split is the
JSON's, else "train".
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, Member, entry_of
from mae_lib.images.layouts.guard import is_name, require_readable
from mae_lib.images.layouts.reading import read_text
from mae_lib.images.layouts.tar_members import tar_members
from mae_lib.images.layouts.tree import first_names

NAME = "webdataset"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_LABELS = 2**31


def matches(place: Path) -> bool:
    """Say whether the first two files of a tar, or of a folder's first tar, are a pair."""
    if place.is_file() and place.suffix != ".tar":
        return False
    shard = next(iter(_shards(place)), None)
    if shard is None:
        return False
    names = first_names(shard, 2)
    stems = {name.rpartition(".")[0] for name in names}
    return len(stems) == 1 and any(name.endswith(".json") for name in names)


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of all shards, each in its own order."""
    for shard in _shards(place):
        yield from _read_shard(shard)


def classes(place: Path) -> tuple[str, ...]:
    """None: the JSON holds numbers."""
    return ()


def _shards(place: Path) -> list[Path]:
    if place.is_dir():
        shards = sorted(place.glob("*.tar"))
        # Different names are different sets, of which each is found on its own.
        return shards if len({re.sub(r"\d+", "", s.name) for s in shards}) == 1 else []
    return [place]


def _read_shard(shard: Path) -> Iterator[Entry]:
    pending: dict[str, Member] = {}
    for member in tar_members(shard, str(shard)):
        require_readable(shard, member.path, member.size)
        stem = member.path.rpartition(".")[0]
        other = pending.pop(stem, None)
        if other is None:
            pending[stem] = member
            continue
        pair = {m.path.endswith(".json"): m for m in (member, other)}
        if len(pair) < 2 or not pair[False].path.lower().endswith(IMAGE_SUFFIXES):
            raise StoreError(f"{shard}: {stem}: an image and a JSON were expected")
        yield _entry(shard, stem, pair[False], pair[True])
    if pending:
        stem = sorted(pending)[0]
        more = f" (+{len(pending) - 1} more)" if len(pending) > 1 else ""
        raise StoreError(f"{shard}: {stem}: an image without its JSON, or the reverse{more}")


def _entry(shard: Path, stem: str, image: Member, about: Member) -> Entry:
    try:
        words = json.loads(read_text(about))
        label = int(words["label"])
        native = tuple(int(side) for side in words["native"]) if words.get("native") else None
        split = str(words.get("split") or "train")
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise StoreError(
            f"{shard}: {stem}.json: label or native: cannot be read, got {e!r}"
        ) from None
    if isinstance(words["label"], float) and words["label"] != label:
        raise StoreError(f"{shard}: {stem}.json: label: a whole number, got {words['label']:.3g}")
    if not -1 <= label < _LABELS:
        raise StoreError(f"{shard}: {stem}.json: label: -1 to {_LABELS - 1:,}, got {label:.3g}")
    if native is not None and (len(native) != 2 or min(native) < 1):
        raise StoreError(f"{shard}: {stem}.json: native: two sides were expected, got {native}")
    if not is_name(split):
        raise StoreError(f"{shard}: {stem}.json: split: is no name, got {ascii(split)[:40]}")
    rest = {k: v for k, v in words.items() if k not in ("label", "native", "split")}
    return entry_of(
        image, name=stem, label=label, split=split, native=native, attributes=rest or None
    )
