"""How many images the public sets of the paper's mixture hold, and what that allows."""

from collections.abc import Sequence

import pandas as pd

from mae_lib.images.mixture import allot, largest_total
from mae_lib.study.definition import Source

# Training images, and the validation images that could be added, each with its source.
PUBLIC: dict[str, tuple[int, int, str]] = {
    "imagenet": (1_281_167, 50_000, "ILSVRC2012, Russakovsky et al. 2015 (arXiv 1409.0575)"),
    "celeba": (162_770, 19_867, "Liu et al. 2015 (arXiv 1411.7766), list_eval_partition.txt"),
    "cifar10": (50_000, 10_000, "Krizhevsky 2009"),
    "ade20k": (20_210, 2_000, "SceneParsing 2016, Zhou et al. 2017 (arXiv 1608.05442)"),
}
# Later releases of the same sets. The paper names none; the full ADE20K of 2021 has more images.
LATER_RELEASES: dict[str, tuple[int, int, str]] = {
    "ade20k": (25_574, 2_000, "full release of 2021, github.com/CSAILVision/ADE20K"),
}
# The shorter side of a published image in pixels, where the publisher fixes it. ADE20K: larger
# images of SceneParsing 2016 were reduced to this side; smaller ones are smaller.
NATIVE_SIDES: dict[str, tuple[int, str]] = {
    "celeba": (178, "aligned and cropped to 178 x 218"),
    "cifar10": (32, "32 x 32"),
    "ade20k": (512, "SceneParsing 2016: shorter side reduced to 512 at most"),
}


def feasibility(total: int, sources: Sequence[Source]) -> pd.DataFrame:
    """Return a row a source: asked, available in training and with validation, and missing."""
    asked = allot(total, [source.share for source in sources])
    rows = []
    for source, count in zip(sources, map(int, asked), strict=True):
        train, validation, origin = PUBLIC[source.name]
        rows.append(
            {
                "source": source.name,
                "asked": count,
                "train": train,
                "with_validation": train + validation,
                "missing": max(0, count - train),
                "origin": origin,
            }
        )
    return pd.DataFrame(rows)


def feasible_totals(sources: Sequence[Source]) -> dict[str, int]:
    """Return the largest totals in these proportions, from training images and with validation."""
    return _totals(sources, PUBLIC)


def later_totals(sources: Sequence[Source]) -> dict[str, int]:
    """Return the same totals with the later releases in place of those that the sets began with."""
    return _totals(sources, PUBLIC | LATER_RELEASES)


def _totals(sources: Sequence[Source], sizes: dict[str, tuple[int, int, str]]) -> dict[str, int]:
    return {
        "train": largest_total(sources, {name: n for name, (n, _, _) in sizes.items()}),
        "with_validation": largest_total(sources, {n: a + b for n, (a, b, _) in sizes.items()}),
    }
