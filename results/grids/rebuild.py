"""Rebuild the two public tables that carry no licence, from files that you download yourself.

Nothing of them is in this repository. Download the named files, then run one of

    python results/grids/rebuild.py chinchilla svg_extracted_data.csv chinchilla_besiroglu2024.csv
    python results/grids/rebuild.py openclip FOLDER cherti2023_openclip.csv

and set MAE_GRIDS to the folder of the results, so that the tests find them.
"""

import sys
from pathlib import Path

import pandas as pd

CHINCHILLA = (
    "https://raw.githubusercontent.com/epoch-research/analyzing-chinchilla/"
    "92258837425e1b5f2851d624287f0120583a3d0e/data/svg_extracted_data.csv"
)
# FOLDER holds arch_info.csv and zeroshot_results.csv of this commit.
OPENCLIP = (
    "https://github.com/LAION-AI/scaling-laws-openclip/tree/"
    "652b1e7471f7ccf372277f67cb680de5c9fa139d"
)
# The nominal number of pairs in each training set; the last one is nominal at the source too.
PAIRS = {"LAION-80M": 80_000_000, "LAION-400M": 407_332_084, "LAION-2B": 2_320_000_000}
CLASSIFICATION = {"imagenet_robustness": "imagenet_robustness", "vtab": "vtab"} | {
    "vtab+": "vtabplus",
    "imagenet1k": "imagenet1k",
}
RETRIEVAL = {"flickr30k": "flickr", "mscoco_captions": "coco"}


def chinchilla(source: Path) -> pd.DataFrame:
    """Return 245 points read from figure 4 of arXiv 2203.15556: tokens = FLOP / (6 parameters)."""
    found = pd.read_csv(source)
    size, flop = found["Model Size"], found["Training FLOP"]
    return pd.DataFrame(
        {"n_params": size, "n_tokens": flop / (6 * size), "flop": flop, "loss": found["loss"]}
    )


def openclip(folder: Path) -> pd.DataFrame:
    """Return 29 models of arXiv 2212.07143: final checkpoints, OpenAI's reference left out."""
    scores = pd.read_csv(folder / "zeroshot_results.csv")
    shapes = pd.read_csv(folder / "arch_info.csv").set_index("model")
    scores = scores[scores.name != "openai"]
    rows = []
    for (name, arch), part in scores.groupby(["name", "arch"]):
        shape, first = shapes.loc[arch], part.iloc[0]
        patch, side = int(arch.split("-")[2]), int(shape.image_size)
        row = {
            "model": name,
            "arch": arch,
            "n_params": shape.mparams * 1e6,
            "n_params_image": shape.image_mparams * 1e6,
            "patch": patch,
            "image_size": side,
            "tokens_per_image": (side // patch) ** 2,
            "upstream": first.upstream_dataset,
            "data_size": PAIRS[first.upstream_dataset],
            "samples_seen": first.samples_seen,
            "gmacs_per_sample": first.gmacs,
        }
        by_set = part.set_index("downstream_dataset")
        for theirs, ours in CLASSIFICATION.items():
            row |= {f"{ours}_{m}": by_set.loc[theirs, m] for m in ("acc1", "acc5")}
        for theirs, ours in RETRIEVAL.items():
            row[f"{ours}_i2t_r5"] = by_set.loc[theirs, "text_retrieval_recall@5"]
            row[f"{ours}_t2i_r5"] = by_set.loc[theirs, "image_retrieval_recall@5"]
        rows.append(row)
    return pd.DataFrame(rows)


def main(table: str, source: str, target: str) -> None:
    """Read the downloaded source and write the table."""
    frame = {"chinchilla": chinchilla, "openclip": openclip}[table](Path(source))
    frame.to_csv(target, index=False, float_format="%.10g")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("chinchilla", "openclip"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
