"""ADE20K in both its forms, each as its zip or its folder.

2016, for scene parsing: `ADEChallengeData2016/images/training|validation/ADE_*.jpg`, the scene of
each image in `sceneCategories.txt`. Full 2021 release:
`ADE20K_2021_17_01/images/ADE/training|validation/<category>/<scene>/ADE_*.jpg`, among masks and
JSON that are passed over. Labels number the sorted scenes of both splits.
Source: http://sceneparsing.csail.mit.edu, https://groups.csail.mit.edu/vision/datasets/ADE20K/
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, entry_of
from mae_lib.images.layouts.reading import read_text
from mae_lib.images.layouts.tree import members_of

NAME_2016 = "ade20k-2016"
NAME_2021 = "ade20k-2021"
SPLITS = ("training", "validation")
_SCENES = "sceneCategories.txt"


def matches_2016(place: Path) -> bool:
    """Say whether this is the scene-parsing zip or its folder."""
    if place.is_file():
        return place.name == "ADEChallengeData2016.zip"
    return (place / _SCENES).is_file() and (place / "images" / "training").is_dir()


def matches_2021(place: Path) -> bool:
    """Say whether this is the full release's zip or its folder."""
    if place.is_file():
        return place.name == "ADE20K_2021_17_01.zip"
    return (place / "images" / "ADE").is_dir()


def read_2016(place: Path) -> Iterator[Entry]:
    """Yield the images of both splits with their scenes."""
    members = {m.path.removeprefix("ADEChallengeData2016/"): m for m in members_of(place)}
    if _SCENES not in members:
        raise StoreError(f"{place}: no {_SCENES} in it; fetch it again")
    scenes = {}
    for number, line in enumerate(read_text(members[_SCENES]).splitlines(), 1):
        words = line.split()
        if len(words) != 2:
            raise StoreError(
                f"{place}: {_SCENES}: line {number}: an image and its scene were expected, "
                f"got {line[:60]!r}"
            )
        scenes[words[0]] = words[1]
    numbers = {scene: index for index, scene in enumerate(sorted(set(scenes.values())))}
    for path, member in members.items():
        match path.split("/"):
            case ["images", split, name] if split in SPLITS and name.endswith(".jpg"):
                scene = scenes.get(name.removesuffix(".jpg"))
                label = -1 if scene is None else numbers[scene]
                yield entry_of(
                    member, name=name, label=label, split=split, attributes=_scene(scene)
                )


def read_2021(place: Path) -> Iterator[Entry]:
    """Yield the images of both splits with their scenes: their folders below the category."""
    entries, scenes = [], []
    for member in members_of(place):
        path = member.path.removeprefix("ADE20K_2021_17_01/")
        match path.split("/"):
            case ["images", "ADE", split, _, *scene, name] if (
                split in SPLITS and scene and name.endswith(".jpg")
            ):
                scenes.append("/".join(scene))
                attributes = _scene(scenes[-1])
                entries.append(entry_of(member, name=name, split=split, attributes=attributes))
    numbers = {scene: index for index, scene in enumerate(sorted(set(scenes)))}
    for entry, scene in zip(entries, scenes, strict=True):
        yield replace(entry, label=numbers[scene])


def classes_2016(place: Path) -> tuple[str, ...]:
    """The scenes in label order."""
    return _scenes_of(read_2016(place))


def classes_2021(place: Path) -> tuple[str, ...]:
    """The scenes in label order."""
    return _scenes_of(read_2021(place))


def _scenes_of(entries: Iterator[Entry]) -> tuple[str, ...]:
    return tuple(sorted({e.attributes["scene"] for e in entries if e.attributes}))


def _scene(name: str | None) -> dict[str, str] | None:
    return None if name is None else {"scene": name}
