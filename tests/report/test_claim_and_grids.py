"""The published numbers of the claim and of the public grids are those that the tables give."""

import math
import runpy

import pandas as pd
import pytest

from mae_lib.report.decide import claim_numbers, grids_folder, read_claim
from mae_lib.report.public_grids import (
    CHINCHILLA,
    OPENCLIP,
    PARTS,
    at_published,
    chinchilla_frame,
    read_refits,
    refit_part,
    table_path,
)
from mae_lib.report.results import _first_difference
from mae_lib.scaling.claim_evidence import LAWS
from mae_lib.scaling.read import read_table

COMMITTED = sorted(path.stem for path in grids_folder().glob("*.csv"))


@pytest.fixture(scope="module")
def refits():
    return {(r["grid"], r["part"], r["law"]): r for r in read_refits()["parts"]}


def test_the_published_claim_is_what_the_code_computes():
    # fits agree to rounding; simulated shares are exact counts
    assert _first_difference(read_claim(), claim_numbers(), "") is None


# Reference values: scipy fits made independently of this code; None where a law never gets there.
@pytest.mark.parametrize(
    ("law", "n"),
    [
        ("log_product", 1.1e11), ("logit_additive", 1.5e15), ("log_additive", 1.9e16),
        ("logit_ceiling", None), ("power_sum", None),
    ],
)  # fmt: skip
def test_the_parameters_needed_for_90_percent_by_law(law, n):
    found = {row["law"]: row["n_params"] for row in read_claim()["needed"]}
    assert set(found) == set(LAWS)
    assert found[law] is None if n is None else found[law] == pytest.approx(n, rel=0.05)


@pytest.mark.parametrize(
    ("law", "own", "claim"),
    [
        ("log_product", 60.92, 97.47), ("log_additive", 53.21, 70.69),
        ("log_bilinear", 53.51, 74.32), ("logit_additive", 58.86, 78.65),
        ("logit_bilinear", 53.93, 73.81), ("logit_ceiling", 55.94, 69.68),
        ("power_product", 48.80, 59.39),
    ],
)  # fmt: skip
def test_answers_at_both_targets_are_the_reference_values(law, own, claim):
    rows = {(r["target"], r["law"]): 100 * r["value"] for r in read_claim()["answers"]}
    assert rows["own", law] == pytest.approx(own, abs=0.02)
    assert rows["claim", law] == pytest.approx(claim, abs=0.02)


def test_top_5_tells_which_human_level_is_meant():
    rows = {(r["target"], r["law"]): r["value"] for r in read_claim()["top5"]}
    assert rows["own", "log_product"] == pytest.approx(0.930, abs=2e-3)
    assert rows["claim", "log_product"] > 1


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_table_is_read_with_its_sidecar_and_names_its_licence(name):
    table = read_table(grids_folder() / f"{name}.csv")
    assert len(table.frame) > 50
    text = (grids_folder() / f"{name}.yaml").read_text()
    licence = text.split("licence: ")[1].split(", ")[1].strip()
    assert (grids_folder() / licence).is_file()
    assert "commit" in text


def test_tables_without_a_licence_are_not_in_the_repository():
    assert COMMITTED == [
        "gadre2024_overtraining", "nmt_alabdulmohsin2022", "orhan2023", "porian2024_isoflop",
        "vision_alabdulmohsin2022",
    ]  # fmt: skip


def test_committed_tables_are_the_public_ones(grids):
    for name in COMMITTED:
        ours, theirs = (folder / f"{name}.csv" for folder in (grids_folder(), grids))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_recipe_computes_the_columns_of_the_chinchilla_points(tmp_path):
    rebuild = runpy.run_path(str(grids_folder() / "rebuild.py"))
    source = tmp_path / "svg.csv"
    source.write_text("x,Model Size,Training FLOP,loss\n1,1e9,1.2e20,2.5\n")
    row = rebuild["chinchilla"](source).iloc[0]
    assert row.n_tokens == pytest.approx(2e10)
    assert (row.n_params, row.flop, row.loss) == (1e9, 1.2e20, 2.5)


def test_the_recipe_drops_the_reference_model_and_joins_shapes(tmp_path):
    rebuild = runpy.run_path(str(grids_folder() / "rebuild.py"))
    (tmp_path / "arch_info.csv").write_text(
        "model,image_size,mparams,image_mparams\nViT-B-32,224,151.28,87.85\n"
    )
    head = (
        "arch,samples_seen,gmacs,upstream_dataset,downstream_dataset,acc1,acc5,"
        "image_retrieval_recall@5,text_retrieval_recall@5,name\n"
    )
    sets = ("imagenet_robustness", "vtab", "vtab+", "imagenet1k", "flickr30k", "mscoco_captions")
    rows = "".join(
        f"ViT-B-32,3e9,7.4,LAION-80M,{name},0.5,0.8,0.6,0.7,{model}\n"
        for name in sets
        for model in ("run", "openai")
    )
    (tmp_path / "zeroshot_results.csv").write_text(head + rows)
    found = rebuild["openclip"](tmp_path)
    assert found.model.tolist() == ["run"]
    row = found.iloc[0]
    assert (row.tokens_per_image, row.data_size, row.coco_i2t_r5) == (49, 80_000_000, 0.7)


@pytest.mark.parametrize("part", PARTS, ids=lambda p: f"{p.grid}-{p.part}-{p.law}")
def test_published_refits_are_what_the_tables_give(part, refits):
    if (path := table_path(part.grid)) is None:
        pytest.skip(f"MAE_GRIDS is not set: {part.grid} has no licence and is not here")
    frame = pd.read_csv(path)
    found = refit_part(part, frame, bootstrap=20)
    published = refits[part.grid, part.part, part.law]
    assert found["value"] == pytest.approx(published["value"], rel=1e-7)
    assert found["params"] == pytest.approx(published["params"], rel=1e-4, abs=1e-9)


# Reference values of independent scipy fits, and of the paper's own code.
def test_the_published_minimum_of_the_chinchilla_objective_is_the_true_one(refits):
    row = refits[CHINCHILLA, "240 points, Huber", "power_sum"]
    assert row["value"] == pytest.approx(0.00101827402, rel=1e-7)
    expected = {"E": 1.817218, "A_n_params": 477.826, "A_n_tokens": 2143.42}
    expected |= {"exponent_n_params": 0.347310, "exponent_n_tokens": 0.367172}
    assert row["natural"] == pytest.approx(expected, rel=1e-4)
    printed = {r["from"]: r["huber"] for r in read_refits()["published"]}
    assert printed["cited: arXiv 2404.10102"] == pytest.approx(0.001018645, rel=1e-6)
    assert all(value > row["value"] for value in printed.values())
    assert len(chinchilla_frame(read_refits())) == 6


@pytest.mark.parametrize(
    ("grid", "part", "law", "value"),
    [
        (CHINCHILLA, "240 points, log", "power_sum", 0.0114618870),
        (CHINCHILLA, "240 points, loss", "power_sum", 0.0832038),
        (CHINCHILLA, "245 points, Huber", "power_sum", 0.00182601),
        ("gadre2024_overtraining", "C4", "power_sum", 0.4136038),
        ("gadre2024_overtraining", "C4", "overtrain", 0.4144780),
        ("gadre2024_overtraining", "RefinedWeb", "power_sum", 0.3370320),
        ("porian2024_isoflop", "tuned/short/const", "power_sum", 0.00669324),
    ],
)
def test_published_refits_are_the_reference_values(refits, grid, part, law, value):
    assert refits[grid, part, law]["value"] == pytest.approx(value, rel=1e-5)


def test_the_objective_at_printed_parameters_needs_the_points(grids):
    frame = pd.read_csv(grids / f"{CHINCHILLA}.csv")
    found = at_published(frame)
    assert [r["huber"] for r in found] == pytest.approx(
        [r["huber"] for r in read_refits()["published"]], rel=1e-9
    )


def test_openclip_models_follow_a_line_in_compute(grids):
    frame = pd.read_csv(grids / f"{OPENCLIP}.csv")
    x = [math.log10(v) for v in frame.gmacs_per_sample * frame.samples_seen]
    y = [math.log10(1 - v) for v in frame.imagenet1k_acc1]
    slope = pd.Series(y).cov(pd.Series(x)) / pd.Series(x).var()
    assert slope == pytest.approx(-0.10125, abs=1e-4)
