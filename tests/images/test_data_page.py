"""What the data page says: resolutions, terms, Croissant metadata, the datasheet."""

import html
import json
import logging
import re

import pytest
from markdown_it import MarkdownIt
from photograph_folders import encoded, picture, two_sources, write_two

from mae_lib.charts.mixture import data_mixture, native_sizes, real_pixels
from mae_lib.images.card import (
    describe,
    feasibility,
    montage,
    pairs_png,
    set_aside_frame,
    tasks_frame,
    terms_frame,
)
from mae_lib.images.croissant import write_croissant
from mae_lib.images.datasheet import datasheet, manifest_seal
from mae_lib.images.hygiene import duplicates
from mae_lib.images.resolution import (
    native_frame,
    patch_frame,
    public_resolutions,
    stored_resolutions,
)
from mae_lib.images.store import build_store
from mae_lib.study.load import load_study

# What mlcroissant calls of rdflib and pandas.
DEPRECATED = pytest.mark.filterwarnings("ignore:.* deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    write_two(root, train=12, test=6)
    for number, path in enumerate(sorted((root / "two").rglob("*.jpg"))):
        path.write_bytes(encoded(picture(1000 + number, (24, 48))))
    bad = sorted((root / "two" / "train").rglob("*.jpg"))[4]
    bad.write_bytes(b"text <b> | not a picture")
    same = sorted((root / "one" / "train").rglob("*.jpg"))
    same[1].write_bytes(same[0].read_bytes())
    data = two_sources(20, size=32, twins="keep", set_aside_limit=0.2)
    return build_store(data, root / "store", data_root=root)


def test_effective_resolution_and_real_pixels_follow_the_native_sides(store):
    rows = stored_resolutions(store, [16, 32]).set_index(["source", "resolution"])
    assert rows.loc[("two", 32), "effective"] == 24
    assert rows.loc[("two", 32), "real_pixels"] == pytest.approx((24 / 32) ** 2)
    assert rows.loc[("one", 32), "real_pixels"] == 1
    assert rows.loc[("all", 16), "real_pixels"] == 1
    sides = native_frame(store)
    assert dict(zip(sides["source"], sides["native_side"], strict=True)) == {"one": 32, "two": 24}


def test_the_papers_resolutions_are_mostly_interpolation_where_it_claims_most():
    paper = load_study("paper")
    rows = public_resolutions(paper.data.sources, [32, 178, 226, 4096])
    rows = rows.set_index(["source", "resolution"])["real_pixels"]
    assert rows["cifar10", 226] == pytest.approx((32 / 226) ** 2, abs=1e-6)
    assert rows["celeba", 178] == 1
    assert rows["celeba", 226] == pytest.approx((178 / 226) ** 2, abs=1e-6)
    mixed = sum(source.share * rows[source.name, 4096] for source in paper.data.sources)
    assert rows["all, by share", 4096] == pytest.approx(mixed, abs=1e-5)
    assert rows["all, by share", 4096] < 0.01
    patches = patch_frame(paper.cells).set_index("nominal_pixels")
    assert patches.loc[226, ["effective_pixels", "tokens", "source_size"]].tolist() == [
        224,
        196,
        256,
    ]


def test_terms_forbid_passing_on_what_the_publishers_forbid():
    terms = terms_frame(["imagenet", "celeba", "cifar10", "ade20k"], "tars").set_index("source")
    assert terms["may_be_passed_on"].to_dict() == {
        "imagenet": "no", "celeba": "no", "cifar10": "not stated", "ade20k": "no"
    }  # fmt: skip
    assert terms_frame(["faces"], "procedural")["may_be_passed_on"].tolist() == ["yes"]


def test_feasibility_of_drawn_images_is_what_is_asked():
    frame = feasibility(load_study("pocket").data, None)
    assert frame["missing"].sum() == 0
    assert frame["asked"].tolist() == [4000, 2520, 400, 1080]


def test_the_pages_pictures_and_charts_say_what_they_show(store):
    pairs = duplicates(store, workers=1)
    (png,) = pairs_png(store, pairs, most=6, across=2)
    assert png.startswith(b"\x89PNG")
    assert pairs_png(store, pairs.head(0), most=6, across=2) == []
    assert set_aside_frame(store)["kind"].tolist() == ["damaged"]
    assert montage(store, per_source=4).shape == (64, 128, 3)
    for chart, says in (
        (data_mixture(describe(store)), "one 50.0%"),
        (native_sizes(native_frame(store)), "two 24 to 24"),
        (
            real_pixels(public_resolutions(load_study("paper").data.sources, [64, 4096])),
            "0.7% of the pixels are real at 4096",
        ),
    ):
        assert says in chart.to_dict()["description"]


@DEPRECATED
def test_croissant_metadata_is_valid_and_its_records_are_the_index(store, tmp_path, caplog):
    import mlcroissant

    path = write_croissant(store, store.folder / "croissant.json", name="two", description="Two.")
    with caplog.at_level(logging.ERROR):
        dataset = mlcroissant.Dataset(jsonld=str(path))
    assert dataset.metadata.ctx.issues.errors == set()
    records = list(dataset.records("images"))
    assert len(records) == 20
    names = [record["images/name"].decode() for record in records]
    assert names == list(store.index["name"])
    again = write_croissant(store, tmp_path / "again.json", name="two", description="Two.")
    assert again.read_bytes() == path.read_bytes()
    hashes = {f["@id"]: f["sha256"] for f in json.loads(path.read_text())["distribution"]}
    assert hashes == store.manifest["files"]


@DEPRECATED
def test_a_croissant_file_that_lacks_its_records_is_found_invalid(store, tmp_path):
    import mlcroissant

    path = write_croissant(store, tmp_path / "c.json", name="two", description="Two.")
    content = json.loads(path.read_text())
    content["recordSet"][0]["field"][0]["source"]["fileObject"] = {"@id": "no-such-file"}
    path.write_text(json.dumps(content))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=str(path))


def test_the_datasheet_answers_its_seven_sections_from_the_manifest(store):
    text = datasheet(store, name="two", question="Why?", pairs=duplicates(store, workers=1))
    for heading in (
        "Motivation", "Composition", "Collection process", "Preprocessing", "Uses", "Distribution",
        "Maintenance",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in text
    assert manifest_seal(store) in text
    assert store.manifest["files"]["images.npy"] in text
    assert "1 damaged" in text
    assert "1 bytes" in text
    assert r"\|" in text or "not a picture" not in text
    assert "<b>" not in text
    assert tasks_frame(store)["classes"].tolist() == [2]


def test_markup_in_a_question_or_a_file_name_is_text_on_the_datasheet(store):
    question = (
        "Do *more* <script>alert(1)</script> `images` [help](http://x.y) ![i](j) & &amp; a_b _c_ "
        r"$x^2$ | {{ fill }} {ref}`d` ~~no~~ \\* 1. # more"
        "\n\n# A heading\n- a list | a cell"
    )
    text = datasheet(store, name="two", question=question, pairs=duplicates(store, workers=1))
    (line,) = (line for line in text.splitlines() if "question of the study" in line)
    reader = MarkdownIt("gfm-like", {"linkify": False})
    shown = reader.render(line)
    assert set(re.findall(r"</?[a-z]+", shown)) == {
        "<p",
        "</p",
        "<strong",
        "</strong",
        "<code",
        "</code",
    }
    plain = html.unescape(re.sub(r"<[^>]*>", "", shown))
    assert plain.strip().endswith("two: " + " ".join(question.split()))
    assert "<h1>A heading" not in reader.render(text)
