"""Where the public sets come from, in what files, under what terms: what `mae data fetch` says.

Sizes in bytes, None where no source states it. Sums of ImageNet and CelebA are those that
torchvision checks, sizes and sha256 of CelebA and CIFAR-10 those of tensorflow-datasets.
"""

from dataclasses import dataclass

from mae_lib.errors import StudyError
from mae_lib.study.suggest import nearest


@dataclass(frozen=True)
class Published:
    """A file as its publisher offers it. `url` is given only where anyone may download it."""

    name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Publisher:
    """A public set: its page, its terms, its files, and the steps to have it.

    `images` is by split; `place` says where it is found under MAE_DATA.
    """

    name: str
    title: str
    page: str
    terms: str
    images: dict[str, int]
    files: tuple[Published, ...]
    steps: tuple[str, ...]
    place: str

    @property
    def free(self) -> bool:
        """Whether it may be downloaded without agreeing to terms first."""
        return any(file.url for file in self.files)


PUBLISHERS: dict[str, Publisher] = {
    publisher.name: publisher
    for publisher in (
        Publisher(
            name="cifar10",
            title="CIFAR-10, binary version",
            page="https://www.cs.toronto.edu/~kriz/cifar.html",
            terms="none stated; cite Krizhevsky 2009",
            images={"train": 50_000, "test": 10_000},
            files=(
                Published(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "c32a1d4ab5d03f1284b67883e8d87530",
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                ),
            ),
            steps=("Run `mae data fetch cifar10`; the archive is read as it is.",),
            place="cifar-10-binary.tar.gz, or cifar-10-batches-bin/ unpacked",
        ),
        Publisher(
            name="imagenet",
            title="ImageNet, ILSVRC2012",
            page="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
            terms="non-commercial research and education only, no redistribution: "
            "https://image-net.org/download.php",
            images={"train": 1_281_167, "val": 50_000},
            files=(
                Published(
                    "ILSVRC2012_img_train.tar",
                    147_897_477_120,
                    "1d675b47d978889d74fa0da5fadfb00e",
                ),
                Published(
                    "ILSVRC2012_img_val.tar", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"
                ),
                Published("ILSVRC2012_devkit_t12.tar.gz", None, "fa75699e90414af021442c21a62c3abf"),
            ),
            steps=(
                "Make an account at https://image-net.org/signup.php and ask for access.",
                "Agree to the terms, then take 'Training images (Task 1 & 2)' from the page above; "
                "'Validation images (all tasks)' and 'Development kit (Task 1 & 2)' only if a probe "
                "uses them: the kit has their labels.",
                "Do not unpack the training tar: it is read as it is. An unpacked "
                "train/<wnid>/*.JPEG is read as well.",
            ),
            place="ILSVRC2012_img_train.tar, or a folder that holds train/<wnid>/*.JPEG",
        ),
        Publisher(
            name="celeba",
            title="CelebA, aligned and cropped",
            page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
            terms="non-commercial research only, no redistribution, no commercial use of the "
            "faces: see the agreement on the page",
            images={"train": 162_770, "valid": 19_867, "test": 19_962},
            files=(
                Published(
                    "img_align_celeba.zip",
                    1_443_490_838,
                    "00d2c5bc6d35e252742224ab0c1e8fcb",
                    "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
                ),
                Published(
                    "list_eval_partition.txt",
                    2_836_386,
                    "d32c9cbf5e040fd4025c592c306e6668",
                    "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
                ),
                Published(
                    "list_attr_celeba.txt",
                    26_721_026,
                    "75e246fa4810816ffd6ee81facbd244c",
                    "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
                ),
                Published("identity_CelebA.txt", None, "32bd1bd63d3c78cd57e08160ec5ed1e2"),
            ),
            steps=(
                "Read the agreement on the page above; by downloading you accept it.",
                "From its Google Drive or Baidu folder take Img/img_align_celeba.zip, "
                "Eval/list_eval_partition.txt, Anno/list_attr_celeba.txt and "
                "Anno/identity_CelebA.txt.",
                "If the zip is a small HTML page, the drive's daily quota is used up: try again "
                "the next day.",
                "Do not unpack the zip: it is read as it is.",
            ),
            place="celeba/img_align_celeba.zip (or img_align_celeba/) beside its lists",
        ),
        Publisher(
            name="ade20k",
            title="ADE20K, SceneParsing 2016 or the full 2021 release",
            page="https://groups.csail.mit.edu/vision/datasets/ADE20K/",
            terms="non-commercial research and education only, no redistribution of images: "
            "https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/",
            images={"training": 20_210, "validation": 2_000},
            files=(
                Published("ADEChallengeData2016.zip", None, "7328b3957e407ddae1d3cbf487f149ef"),
                Published("ADE20K_2021_17_01.zip"),
            ),
            steps=(
                "2016 (20,210 + 2,000 images, about 1 GB): read the terms, then take "
                "ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu.",
                "2021 (25,574 + 2,000 images, faces blurred): register at "
                "https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/ and take "
                "ADE20K_2021_17_01.zip from the link that is mailed.",
                "One of the two is enough. Do not unpack it: it is read as it is.",
            ),
            place="ADEChallengeData2016.zip or ADE20K_2021_17_01.zip, or either unpacked",
        ),
        Publisher(
            name="tiny-imagenet",
            title="Tiny-ImageNet-200 (64 px, a stand-in for ImageNet)",
            page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            terms="ImageNet's: non-commercial research and education only, no redistribution",
            images={"train": 100_000, "val": 10_000, "test": 10_000},
            files=(Published("tiny-imagenet-200.zip", None, "90528d7ca1a48142e341f4ef8d21d0de"),),
            steps=(
                "Agree to ImageNet's terms (`mae data fetch imagenet`), then download the page "
                "above. It comes over plain http: compare its MD5.",
            ),
            place="tiny-imagenet-200.zip, or tiny-imagenet-200/ unpacked",
        ),
        Publisher(
            name="imagenette",
            title="Imagenette 2 (ten ImageNet classes)",
            page="https://github.com/fastai/imagenette",
            terms="ImageNet's: non-commercial research and education only, no redistribution",
            images={"train": 9_469, "val": 3_925},
            files=(
                Published(
                    "imagenette2-160.tgz",
                    98_948_031,
                    None,
                    "88daccb09b6fce93f45e6c09ddeb269cce705549e6bff322092a2a5a11489863",
                ),
                Published(
                    "imagenette2-320.tgz",
                    341_553_947,
                    None,
                    "5020a9130cea0348272823cb12d2db7e981c6f2afa3dce71ccd5b8013005c55e",
                ),
                Published(
                    "imagenette2.tgz",
                    1_556_914_727,
                    None,
                    "de32de18a7d8df0114d5e2c3c14cafb9558e8f00441a73aa7953681ad02be49c",
                ),
            ),
            steps=(
                "Agree to ImageNet's terms (`mae data fetch imagenet`), then take one of the three "
                "from the page above. Do not unpack it: it is read as it is.",
            ),
            place="imagenette2-160.tgz (or -320, or full size), or its folder",
        ),
    )
}


def publisher_of(name: str) -> Publisher:
    """Look a public set up.

    Raises: StudyError naming the nearest known one.
    """
    if name not in PUBLISHERS:
        raise StudyError(f"{name}: no public set of that name{nearest(name, PUBLISHERS)}")
    return PUBLISHERS[name]


def instructions(publisher: Publisher, root: str) -> list[str]:
    """Return the lines that tell how to get a set, and where to put it."""
    images = ", ".join(f"{count:,} {split}" for split, count in publisher.images.items())
    lines = [
        f"{publisher.title}: {images}",
        f"  page:  {publisher.page}",
        f"  terms: {publisher.terms}",
        "  files:",
    ]
    for file in publisher.files:
        size = f"{file.size:,} bytes" if file.size else "size not published"
        sums = [f"{kind} {value}" for kind in ("md5", "sha256") if (value := getattr(file, kind))]
        lines.append(f"    {file.name}  {size}  {'  '.join(sums) or 'no checksum published'}")
    lines.append("  steps:")
    lines += [f"    {number}. {step}" for number, step in enumerate(publisher.steps, 1)]
    lines.append(f"  put into {root}: {publisher.place}")
    lines.append("  then: mae data sources")
    return lines
