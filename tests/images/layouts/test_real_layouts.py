"""Real photographs, packed again as their publishers pack them, are read as the same images."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from publisher_layouts import (
    celeba_lists,
    cifar10_batch,
    write_folder,
    write_tar,
    write_zip,
)

from mae_lib.images.entries import (
    class_names,
    decode_raw,
    list_entries,
    read_entry,
)
from mae_lib.images.layouts.entry import Entry
from mae_lib.study.definition import Source


def source(name: str, **fields) -> Source:
    return Source(name, 1.0, **fields)


def listed(root: Path, wanted: Source) -> list[tuple[str, int, str]]:
    return [(e.name, e.label, e.split) for e in list_entries(wanted, root)]


def contents(root: Path, wanted: Source) -> dict[str, bytes]:
    return {e.name: read_entry(root, e) for e in list_entries(wanted, root)}


def held(photographs: Path, name: str, split: str) -> list[tuple[Entry, bytes]]:
    wanted = source("x", layout="webdataset", path=f"{name}.tar", split=split)
    entries = list_entries(wanted, photographs)
    return [(e, read_entry(photographs, e)) for e in entries]


def test_real_tiny_imagenet_in_its_own_zip_has_the_labels_that_the_tar_states(
    photographs, tmp_path
):
    images = held(photographs, "tiny-imagenet-val", "val")
    named = [(e.attributes["orig"].rpartition("/")[2], e, content) for e, content in images]
    top = "tiny-imagenet-200"
    files = {f"{top}/val/images/{name}": content for name, _, content in named}
    files[f"{top}/wnids.txt"] = "\n".join({e.attributes["wnid"] for e, _ in images}).encode()
    lines = (f"{name}\t{e.attributes['wnid']}\t0\t0\t9\t9\n" for name, e, _ in named)
    files[f"{top}/val/val_annotations.txt"] = "".join(lines).encode()
    write_zip(tmp_path / "tiny-imagenet-200.zip", files, zipfile.ZIP_STORED)
    again = list_entries(source("tiny-imagenet", split="val"), tmp_path)
    assert {e.name: e.label for e in again} == {name: e.label for name, e, _ in named}
    assert len({e.label for e in again}) == 200
    for e in again[::97]:
        assert read_entry(tmp_path, e) == files[f"{top}/val/images/{e.name}"]


def test_real_cifar10_in_its_own_archive_has_the_pixels_of_the_pngs(photographs, tmp_path):
    images = held(photographs, "cifar10-test", "test")
    labels = np.array([e.label for e, _ in images], np.uint8)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(content))) for _, content in images])
    batch = cifar10_batch(labels, pixels)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    batches = {f"cifar-10-batches-bin/{name}.bin": batch for name in names}
    write_tar(tmp_path / "cifar-10-binary.tar.gz", batches, "w:gz")
    records = list_entries(source("cifar10", split="test"), tmp_path)
    assert [e.label for e in records] == labels.tolist()
    read = np.stack([decode_raw(read_entry(tmp_path, e)) for e in records])
    assert np.array_equal(read, pixels)


def test_real_faces_in_their_own_zip_are_the_same_bytes(photographs, tmp_path):
    images = held(photographs, "celeba-128", "test")[:99]
    names = [e.attributes["orig"] for e, _ in images]
    files = {f"img_align_celeba/{n}": c for n, (_, c) in zip(names, images, strict=True)}
    write_folder(tmp_path / "celeba", celeba_lists(names, [2] * 99))
    write_zip(tmp_path / "celeba" / "img_align_celeba.zip", files)
    again = contents(tmp_path, source("celeba", split="test"))
    assert again == {n: c for n, (_, c) in zip(names, images, strict=True)}


def test_real_scenes_in_ade20ks_own_zip_are_named_as_in_the_tar(photographs, tmp_path):
    images = held(photographs, "ade20k", "validation")[:400]
    scenes = {e.attributes["orig"].removesuffix(".jpg"): e.attributes["scene"] for e, _ in images}
    top = "ADEChallengeData2016"
    files = {f"{top}/images/validation/{e.attributes['orig']}": c for e, c in images}
    lines = "".join(f"{name} {scene}\n" for name, scene in scenes.items())
    files[f"{top}/sceneCategories.txt"] = lines.encode()
    write_zip(tmp_path / f"{top}.zip", files, zipfile.ZIP_STORED)
    again = list_entries(source("ade20k", split="validation"), tmp_path)
    assert {e.name.removesuffix(".jpg"): e.attributes["scene"] for e in again} == scenes
    names = class_names(source("ade20k"), tmp_path)
    assert all(names[e.label] == e.attributes["scene"] for e in again)


def test_real_imagenette_in_its_own_tgz_has_the_labels_that_the_tar_states(photographs, tmp_path):
    images = held(photographs, "photos-128-val", "val")
    files = {f"imagenette2/{e.attributes['orig']}": content for e, content in images}
    write_tar(tmp_path / "imagenette2.tgz", files, "w:gz")
    wanted = source("imagenette", split="val")
    again = list_entries(wanted, tmp_path)
    labels = {e.attributes["orig"].rpartition("/")[2]: e.label for e, _ in images}
    assert {e.name: e.label for e in again} == labels
    assert contents(tmp_path, wanted) == {n.rpartition("/")[2]: c for n, c in files.items()}
