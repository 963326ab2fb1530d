"""Tiny archives in the publishers' original layouts, built by tests: names and bytes, no pictures of
anyone's."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Files = dict[str, bytes]
WNIDS = ("n01440764", "n01443537", "n01484850")


def jpeg(number: int, side: int = 24) -> bytes:
    """A small JPEG that differs from every other number's."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for folder in sorted({str(Path(name).parent) + "/" for name in files} - {"./"}):
            archive.writestr(folder, b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files, mode))
    return path


def tar_bytes(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for folder in sorted({str(Path(name).parent) for name in files} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def imagenet(per_class: int = 3) -> Files:
    """ILSVRC2012 unpacked, its validation part sorted by class."""
    files = {
        f"train/{wnid}/{wnid}_{i * 7}.JPEG": jpeg(100 * w + i)
        for w, wnid in enumerate(WNIDS)
        for i in range(per_class)
    }
    return files | {f"val/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG": jpeg(900)}


def imagenet_tar(path: Path) -> Path:
    """ILSVRC2012_img_train.tar: class tars inside, each with its images at the top."""
    inner = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{i * 7}.JPEG": jpeg(100 * w + i) for i in range(3)})
        for w, wnid in enumerate(WNIDS)
    }
    return write_tar(path, inner)


def tiny_imagenet() -> Files:
    """tiny-imagenet-200 with three classes; wnids.txt is not sorted, as in the original."""
    files: Files = {"wnids.txt": "\n".join(reversed(WNIDS)).encode() + b"\n"}
    for w, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t9\t9\n"
        for i in range(3):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(100 * w + i)
    lines = []
    for i, wnid in enumerate((WNIDS[2], WNIDS[0])):
        files[f"val/images/val_{i}.JPEG"] = jpeg(500 + i)
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = jpeg(600)
    return files


def imagenette() -> Files:
    """Imagenette 2: ImageNet's layout, ten classes, a CSV beside."""
    return {
        "imagenette2-160/noisy_imagenette.csv": b"path,noisy_labels_0\n",
        "imagenette2-160/train/n02979186/n02979186_9036.JPEG": jpeg(1),
        "imagenette2-160/train/n03888257/n03888257_11.JPEG": jpeg(2),
        "imagenette2-160/val/n02979186/ILSVRC2012_val_00003014.JPEG": jpeg(3),
    }


def celeba_lists(names: list[str], splits: list[int]) -> Files:
    header = " ".join(f"Attribute_{i}" for i in range(40))
    attributes = [" ".join("1" if (i + j) % 3 else "-1" for j in range(40)) for i in range(99)]
    # The original pads its columns with two blanks and ends lines so.
    rows = [f"{name}  {attributes[i].replace(' ', '  ')} " for i, name in enumerate(names)]
    return {
        "list_eval_partition.txt": "".join(
            f"{n} {s}\n" for n, s in zip(names, splits, strict=True)
        ).encode(),
        "list_attr_celeba.txt": "\n".join([str(len(names)), header, *rows, ""]).encode(),
        "identity_CelebA.txt": "".join(f"{n} {i + 7}\n" for i, n in enumerate(names)).encode(),
    }


CELEBA_NAMES = [f"{i:06d}.jpg" for i in range(1, 7)]
CELEBA_SPLITS = [0, 0, 0, 0, 1, 2]


def celeba_images(top: str = "img_align_celeba/") -> Files:
    return {f"{top}{name}": jpeg(i) for i, name in enumerate(CELEBA_NAMES)}


def cifar10(records: int = 4) -> tuple[Files, np.ndarray, np.ndarray]:
    """The six binary batches; also labels `[6, n]` and pixels `[6, n, 32, 32, 3]`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, (6, records), np.uint8)
    pixels = rng.integers(0, 256, (6, records, 32, 32, 3), np.uint8)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    files = {
        f"cifar-10-batches-bin/{name}": cifar10_batch(labels[i], pixels[i])
        for i, name in enumerate(names)
    }
    return files | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}, labels, pixels


def cifar10_batch(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([labels[:, None], planes], axis=1).astype(np.uint8).tobytes()


def ade20k_2016() -> Files:
    return {
        "ADEChallengeData2016/sceneCategories.txt": b"ADE_train_00000001 airport_terminal\n"
        b"ADE_train_00000002 street\nADE_val_00000001 airport_terminal\n",
        "ADEChallengeData2016/objectInfo150.txt": b"Idx\tRatio\n",
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg": jpeg(1),
        "ADEChallengeData2016/images/training/ADE_train_00000002.jpg": jpeg(2),
        "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg": jpeg(3),
        "ADEChallengeData2016/annotations/training/ADE_train_00000001.png": b"mask",
    }


def ade20k_2021() -> Files:
    top = "ADE20K_2021_17_01/images/ADE"
    return {
        f"{top}/training/urban/street/ADE_train_00016869.jpg": jpeg(1),
        f"{top}/training/urban/street/ADE_train_00016869_seg.png": b"mask",
        f"{top}/training/urban/street/ADE_train_00016869.json": b"{}",
        f"{top}/training/urban/street/ADE_train_00016869/instance_000_ADE_train_00016869.png": b"m",
        f"{top}/training/home_or_hotel/bedroom/ADE_train_00000355.jpg": jpeg(2),
        f"{top}/validation/urban/street/ADE_val_00000007.jpg": jpeg(3),
        "ADE20K_2021_17_01/index_ade20k.pkl": b"never opened",
    }
