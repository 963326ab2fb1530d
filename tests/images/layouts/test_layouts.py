"""Every publisher's layout is found, listed and read in place, as a folder and as an archive."""

import io
import json
import os
import pickle
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from publisher_layouts import (
    CELEBA_NAMES,
    CELEBA_SPLITS,
    WNIDS,
    ade20k_2016,
    ade20k_2021,
    celeba_images,
    celeba_lists,
    cifar10,
    imagenet,
    imagenet_tar,
    imagenette,
    jpeg,
    tar_bytes,
    tiny_imagenet,
    write_folder,
    write_tar,
    write_zip,
)

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.entries import (
    class_names,
    decode_raw,
    list_entries,
    listing_sha256,
    locate,
    read_entry,
)
from mae_lib.images.layouts.registry import LAYOUTS, find
from mae_lib.study import known
from mae_lib.study.definition import Source


def source(name: str, **fields) -> Source:
    return Source(name, 1.0, **fields)


def listed(root: Path, wanted: Source) -> list[tuple[str, int, str]]:
    return [(e.name, e.label, e.split) for e in list_entries(wanted, root)]


def contents(root: Path, wanted: Source) -> dict[str, bytes]:
    return {e.name: read_entry(root, e) for e in list_entries(wanted, root)}


def test_the_names_a_study_may_use_are_those_of_the_readers():
    assert tuple(LAYOUTS) == known.LAYOUTS
    assert {name for names in known.LAYOUTS_OF.values() for name in names} <= set(LAYOUTS)


def devkit(wnids: list[str]) -> dict[str, bytes]:
    """The development kit: numbers that are not the sorted order, and a parent class besides."""
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    numbered = [(3, WNIDS[0], 0), (1, WNIDS[1], 0), (2, WNIDS[2], 0), (4, "n00001740", 2)]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(numbered, kind).reshape(-1, 1)})
    number = {wnid: n for n, wnid, _ in numbered}
    top = "ILSVRC2012_devkit_t12/data"
    truth = "".join(f"{number[wnid]}\n" for wnid in wnids).encode()
    name = "ILSVRC2012_validation_ground_truth.txt"
    return {f"{top}/meta.mat": buffer.getvalue(), f"{top}/{name}": truth}


@pytest.mark.parametrize("kit", ["tar", "folder"])
def test_imagenets_validation_images_take_their_labels_from_the_development_kit(tmp_path, kit):
    truth = [WNIDS[2], WNIDS[0], WNIDS[1]]
    images = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(900 + i) for i in range(3)}
    write_folder(tmp_path / "a", imagenet())
    (tmp_path / "a" / "val" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG").unlink()
    write_folder(tmp_path / "a" / "val", images)
    imagenet_tar(tmp_path / "b" / "ILSVRC2012_img_train.tar")
    write_tar(tmp_path / "b" / "ILSVRC2012_img_val.tar", images)
    for folder in (tmp_path / "a", tmp_path / "b"):
        if kit == "tar":
            write_tar(folder / "ILSVRC2012_devkit_t12.tar.gz", devkit(truth), "w:gz")
        else:
            write_folder(folder, devkit(truth))
        val = listed(folder, source("imagenet", split="val"))
        assert [label for _, label, _ in val] == [2, 0, 1]
    write_folder(tmp_path / "c", imagenet() | {"ILSVRC2012_devkit_t12/data/meta.mat": b"x"})
    with pytest.raises(StoreError, match=r"no data/ILSVRC2012_validation_ground_truth.txt in it"):
        list_entries(source("imagenet"), tmp_path / "c")
    write_folder(tmp_path / "c", devkit(truth) | {"ILSVRC2012_devkit_t12/data/meta.mat": b"x"})
    with pytest.raises(StoreError, match=r"meta.mat or .* cannot be read"):
        list_entries(source("imagenet"), tmp_path / "c")


def test_imagenet_is_the_same_as_a_folder_and_as_the_tar_of_class_tars(tmp_path):
    write_folder(tmp_path / "a" / "ILSVRC", imagenet())
    imagenet_tar(tmp_path / "b" / "ILSVRC2012_img_train.tar")
    write_tar(
        tmp_path / "b" / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": jpeg(900)}
    )
    wanted = source("imagenet")
    one, two = listed(tmp_path / "a", wanted), listed(tmp_path / "b", wanted)
    assert one == two
    assert one[:2] == [("n01440764_0.JPEG", 0, "train"), ("n01440764_14.JPEG", 0, "train")]
    assert [label for _, label, _ in one] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert contents(tmp_path / "a", wanted) == contents(tmp_path / "b", wanted)
    assert contents(tmp_path / "b", wanted)["n01484850_14.JPEG"] == jpeg(202)
    assert class_names(wanted, tmp_path / "a") == class_names(wanted, tmp_path / "b") == WNIDS
    val = source("imagenet", split="val")
    assert listed(tmp_path / "a", val) == [("ILSVRC2012_val_00000001.JPEG", 1, "val")]
    # The tar of the validation part names no classes.
    assert listed(tmp_path / "b", val) == [("ILSVRC2012_val_00000001.JPEG", -1, "val")]
    assert locate(wanted, tmp_path / "b")[0].name == "imagenet-tar"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tiny_imagenet_is_the_same_as_a_folder_and_as_its_zip(tmp_path, method):
    write_folder(tmp_path / "a" / "tiny-imagenet-200", tiny_imagenet())
    packed = {f"tiny-imagenet-200/{name}": content for name, content in tiny_imagenet().items()}
    write_zip(tmp_path / "b" / "tiny-imagenet-200.zip", packed, method)
    wanted = source("tiny-imagenet", split="train+val+test")
    assert listed(tmp_path / "a", wanted) == listed(tmp_path / "b", wanted)
    assert contents(tmp_path / "a", wanted) == contents(tmp_path / "b", wanted)
    rows = {name: (label, split) for name, label, split in listed(tmp_path / "b", wanted)}
    assert len(rows) == 12
    assert rows["n01443537_2.JPEG"] == (1, "train")
    assert rows["val_0.JPEG"] == (2, "val")
    assert rows["val_1.JPEG"] == (0, "val")
    assert rows["test_0.JPEG"] == (-1, "test")
    assert class_names(wanted, tmp_path / "b") == WNIDS


def test_imagenette_is_told_from_imagenet_and_read_from_its_tgz(tmp_path):
    write_folder(tmp_path / "a", imagenette())
    write_tar(tmp_path / "b" / "imagenette2-160.tgz", imagenette(), "w:gz")
    wanted = source("imagenette", split="train+val")
    assert listed(tmp_path / "a", wanted) == listed(tmp_path / "b", wanted)
    assert contents(tmp_path / "a", wanted) == contents(tmp_path / "b", wanted)
    # Labels are those of all ten classes, whichever are there.
    assert dict((n, lab) for n, lab, _ in listed(tmp_path / "a", wanted)) == {
        "ILSVRC2012_val_00003014.JPEG": 2, "n02979186_9036.JPEG": 2, "n03888257_11.JPEG": 9,
    }  # fmt: skip
    with pytest.raises(StudyError, match="no imagenet or imagenet-tar"):
        list_entries(source("imagenet"), tmp_path / "a")


@pytest.mark.parametrize("kind", ["folder", "zip", "drive"])
def test_celeba_takes_its_split_identity_and_attributes_from_the_official_lists(tmp_path, kind):
    lists = celeba_lists(CELEBA_NAMES, CELEBA_SPLITS)
    if kind == "drive":
        folders = {"list_eval_partition.txt": "Eval", "list_attr_celeba.txt": "Anno"}
        lists = {f"{folders.get(n, 'Anno')}/{n}": content for n, content in lists.items()}
    write_folder(tmp_path / "celeba", lists)
    if kind == "folder":
        write_folder(tmp_path / "celeba", celeba_images())
    else:
        inner = "Img/" if kind == "drive" else ""
        write_zip(tmp_path / "celeba" / f"{inner}img_align_celeba.zip", celeba_images())
    entries = list_entries(source("celeba"), tmp_path)
    assert [e.name for e in entries] == CELEBA_NAMES[:4]
    assert [len(list_entries(source("celeba", split=s), tmp_path)) for s in ("valid", "test")] == [
        1, 1,
    ]  # fmt: skip
    assert {(e.label, e.native) for e in entries} == {(-1, (178, 218))}
    assert entries[1].attributes["identity"] == 8
    assert entries[1].attributes["attr"] == "".join("1" if (1 + j) % 3 else "0" for j in range(40))
    assert [read_entry(tmp_path, e) for e in entries] == [jpeg(i) for i in range(4)]


def test_celeba_without_its_partition_or_with_a_damaged_list_is_one_line(tmp_path):
    lists = celeba_lists(CELEBA_NAMES, CELEBA_SPLITS)
    write_folder(tmp_path / "celeba", celeba_images())
    with pytest.raises(StoreError, match=r"no list_eval_partition.txt; it says which"):
        list_entries(source("celeba"), tmp_path)
    (tmp_path / "celeba" / "list_eval_partition.txt").write_bytes(b"000001.jpg 0\n")
    with pytest.raises(StoreError, match=r"no split 0, 1 or 2 for 000002.jpg"):
        list_entries(source("celeba"), tmp_path)
    write_folder(tmp_path / "celeba", lists)
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_bytes(b"6\nA B\n000001.jpg 1 x\n")
    with pytest.raises(StoreError, match=r"list_attr_celeba.txt: line 3: a name and 40 numbers"):
        list_entries(source("celeba"), tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_binary_batches_are_read_in_place(tmp_path, packed):
    files, labels, pixels = cifar10()
    if packed:
        write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    else:
        write_folder(tmp_path, files)
    entries = list_entries(source("cifar10"), tmp_path)
    assert [e.name for e in entries][:2] == ["data_batch_1[0000]", "data_batch_1[0001]"]
    assert [e.label for e in entries] == labels[:5].reshape(-1).tolist()
    images = np.stack([decode_raw(read_entry(tmp_path, e)) for e in entries])
    assert np.array_equal(images, pixels[:5].reshape(-1, 32, 32, 3))
    test = list_entries(source("cifar10", split="test"), tmp_path)
    assert [e.label for e in test] == labels[5].tolist()
    assert class_names(source("cifar10"), tmp_path)[8] == "ship"


def test_the_pickled_cifar10_is_refused_by_name_and_never_unpickled(tmp_path):
    mark = tmp_path / "mark"

    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    bad = pickle.dumps(Bad())
    write_folder(tmp_path / "a", {"cifar-10-batches-py/data_batch_1": bad})
    write_tar(tmp_path / "b" / "cifar-10-python.tar.gz", {"data_batch_1": bad}, "w:gz")
    write_folder(tmp_path / "c", {"mine/data_batch_1": bad})
    for root, path in (("a", None), ("b", None), ("c", "mine")):
        wanted = source("cifar10", path=path, layout="cifar10")
        with pytest.raises(StoreError, match=r"never unpickled.*mae data fetch cifar10"):
            list_entries(wanted, tmp_path / root)
    assert not mark.exists()


def test_cifar10_with_a_cut_or_missing_batch_or_a_wrong_label_is_one_line(tmp_path):
    files, _, _ = cifar10()
    folder = write_folder(tmp_path, files) / "cifar-10-batches-bin"
    whole = (folder / "data_batch_2.bin").read_bytes()
    for content, says in (
        (whole[:-1], "no whole records of 3,073"),
        (b"", "no whole records"),
        (b"\x0a" + whole[1:], "record 0 has label 10, not 0-9"),
    ):
        (folder / "data_batch_2.bin").write_bytes(content)
        with pytest.raises(StoreError, match=says):
            list_entries(source("cifar10"), tmp_path)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(StoreError, match=r"no data_batch_2.bin in it"):
        list_entries(source("cifar10"), tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("files", "archive", "names", "scenes"),
    [
        (ade20k_2016(), "ADEChallengeData2016.zip", [1, 2], ("airport_terminal", "street")),
        (ade20k_2021(), "ADE20K_2021_17_01.zip", [355, 16869], ("bedroom", "street")),
    ],
)
def test_ade20k_of_2016_and_2021_give_images_and_scenes_only(
    tmp_path, packed, files, archive, names, scenes
):
    if packed:
        write_zip(tmp_path / archive, files)
    else:
        write_folder(tmp_path, files)
    wanted = source("ade20k")
    entries = list_entries(wanted, tmp_path)
    assert [e.name for e in entries] == [f"ADE_train_{n:08d}.jpg" for n in names]
    assert [scenes[e.label] for e in entries] == [e.attributes["scene"] for e in entries]
    assert class_names(wanted, tmp_path) == scenes
    both = list_entries(source("ade20k", split="training+validation"), tmp_path)
    assert len(both) == 3
    assert all(Image.open(io.BytesIO(read_entry(tmp_path, e))).size == (24, 24) for e in both)


def test_a_webdataset_of_shards_is_one_source_and_other_tars_beside_it_are_not(tmp_path):
    for shard in range(2):
        pairs = {}
        for i in range(3):
            key = f"k{shard}{i}"
            pairs[f"{key}.jpg"] = jpeg(10 * shard + i)
            about = {"label": i, "native": [24, 24], "split": "train", "orig": f"o{i}"}
            pairs[f"{key}.json"] = json.dumps(about).encode()
        write_tar(tmp_path / "shards" / f"set-{shard:06d}.tar", pairs)
    wanted = source("mine", layout="webdataset", path="shards")
    entries = list_entries(wanted, tmp_path)
    assert [e.name for e in entries] == ["k00", "k01", "k02", "k10", "k11", "k12"]
    assert entries[4].label == 1
    assert (entries[4].native, entries[4].attributes) == ((24, 24), {"orig": "o1"})
    assert read_entry(tmp_path, entries[5]) == jpeg(12)
    assert [place.name for _, place in find(tmp_path)] == ["shards"]
    write_tar(tmp_path / "shards" / "other-0.tar", {"a.jpg": jpeg(1), "a.json": b'{"label": 0}'})
    assert len(find(tmp_path)) == 3
    with pytest.raises(StudyError, match="found more than once"):
        list_entries(source("webdataset"), tmp_path)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (b"{}", "label or native: cannot be read"),
        (b'{"label": "cat"}', "label or native: cannot be read"),
        (b'{"label": 1e999}', "label or native: cannot be read"),
        (b'{"label": 1000000000000}', "label: -1 to 2,147,483,647, got 1e"),
        (b'{"label": -2}', "got -2"),
        (b'{"label": 0, "native": [1e999, 2]}', "label or native: cannot be read"),
        (b'{"label": 0, "native": [1, 2, 3]}', "native: two sides were expected"),
        (b'{"label": 0, "native": [-5, 0]}', "native: two sides were expected"),
        (b'{"label": 1.7}', "label: a whole number, got 1.7"),
        (b'{"label": 0, "split": "a\\u001b[31m"}', "split: is no name"),
        (b"[" * 100_000, "label or native: cannot be read"),
        (b"[1]", "label or native: cannot be read"),
        (b"\xff", "is no text"),
    ],
)
def test_a_webdatasets_json_that_says_no_label_is_one_line(tmp_path, about, says):
    write_tar(tmp_path / "a.tar", {"k.jpg": jpeg(1), "k.json": about})
    with pytest.raises(StoreError, match=says):
        list_entries(source("x", layout="webdataset", path="a.tar"), tmp_path)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_a_plain_labelled_folder_is_read_with_and_without_splits(tmp_path, kind):
    plain = {"cat/1.jpg": jpeg(1), "cat/2.png": jpeg(2), "dog/1.jpg": jpeg(3), "dog/note.txt": b"x"}
    split_up = {f"train/{name}": content for name, content in plain.items()}
    split_up |= {"test/dog/1.jpg": jpeg(4)}
    write = {
        "folder": lambda path, files: write_folder(path, files),
        "zip": lambda path, files: write_zip(path.with_suffix(".zip"), files),
        "tar": lambda path, files: write_tar(path.with_suffix(".tar"), files),
        "tgz": lambda path, files: write_tar(path.with_suffix(".tgz"), files, "w:gz"),
    }[kind]
    one, two = write(tmp_path / "one", plain), write(tmp_path / "two", split_up)
    wanted = source("pets", layout="folder", path=one.name)
    assert listed(tmp_path, wanted) == [
        ("cat/1.jpg", 0, "train"), ("cat/2.png", 0, "train"), ("dog/1.jpg", 1, "train"),
    ]  # fmt: skip
    assert contents(tmp_path, wanted)["dog/1.jpg"] == jpeg(3)
    assert class_names(wanted, tmp_path) == ("cat", "dog")
    test = source("pets", layout="folder", path=two.name, split="test")
    assert listed(tmp_path, test) == [("test/dog/1.jpg", 1, "test")]
    with pytest.raises(StudyError, match="has no 'val', only test, train"):
        listed(tmp_path, source("pets", layout="folder", path=two.name, split="val"))


def test_every_set_is_found_once_where_it_lies_and_a_source_may_lie_elsewhere(tmp_path):
    root = tmp_path / "data"
    write_folder(root / "ILSVRC2012", imagenet())
    write_folder(root, {f"tiny-imagenet-200/{n}": c for n, c in tiny_imagenet().items()})
    write_tar(root / "imagenette2-160.tgz", imagenette(), "w:gz")
    write_folder(root / "celeba", celeba_lists(CELEBA_NAMES, CELEBA_SPLITS))
    write_zip(root / "celeba" / "img_align_celeba.zip", celeba_images())
    write_tar(root / "cifar-10-binary.tar.gz", cifar10()[0], "w:gz")
    write_zip(root / "sets" / "ADEChallengeData2016.zip", ade20k_2016())
    write_folder(root / "pets", {"cat/1.jpg": jpeg(1)})
    found = {layout.name: place.relative_to(root).as_posix() for layout, place in find(root)}
    assert found == {
        "imagenet": "ILSVRC2012", "tiny-imagenet": "tiny-imagenet-200",
        "imagenette": "imagenette2-160.tgz", "celeba": "celeba",
        "cifar10": "cifar-10-binary.tar.gz", "ade20k-2016": "sets/ADEChallengeData2016.zip",
        "folder": "pets",
    }  # fmt: skip
    away = source("imagenet", path=str(root / "ILSVRC2012"))
    entries = list_entries(away, None)
    assert Path(entries[0].file).is_absolute()
    assert read_entry(None, entries[0]) == read_entry(tmp_path / "no", entries[0])
    assert listing_sha256(entries) == listing_sha256(list_entries(source("imagenet"), root))


def test_a_listing_pins_the_images_and_a_changed_set_is_refused(tmp_path):
    write_folder(tmp_path / "x", imagenet())
    sha256 = listing_sha256(list_entries(source("imagenet"), tmp_path))
    assert len(list_entries(source("imagenet", listing=sha256), tmp_path)) == 9
    (tmp_path / "x" / "train" / WNIDS[0] / f"{WNIDS[0]}_7.JPEG").unlink()
    with pytest.raises(StoreError, match="listing: not the images that the study names"):
        list_entries(source("imagenet", listing=sha256), tmp_path)


def test_entries_are_read_from_other_processes_and_whatever_vanished_is_one_line(tmp_path):
    write_tar(tmp_path / "cifar-10-binary.tar.gz", cifar10(30)[0], "w:gz")
    write_zip(tmp_path / "tiny-imagenet-200.zip", tiny_imagenet())
    entries = list_entries(source("cifar10"), tmp_path)
    entries += list_entries(source("tiny-imagenet"), tmp_path)
    here = [read_entry(tmp_path, e) for e in entries]
    assert pickle.loads(pickle.dumps(entries)) == entries
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(read_entry, [tmp_path] * len(entries), entries, chunksize=40))
    assert here == there
    backwards = [read_entry(tmp_path, e) for e in reversed(entries)]
    assert backwards == here[::-1]
    (tmp_path / "tiny-imagenet-200.zip").unlink()
    with pytest.raises(StoreError, match="gone since the source was listed"):
        read_entry(tmp_path, entries[-1])


def test_a_tar_within_a_tar_is_read_at_its_own_place(tmp_path):
    # A class tar of odd sizes: every slice must be found through both layers of headers.
    odd = {f"n01440764_{i}.JPEG": os.urandom(1 + 333 * i) for i in range(9)}
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": tar_bytes(odd)})
    assert contents(tmp_path, source("imagenet")) == odd
