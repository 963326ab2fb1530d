"""`mae data fetch`, `sources` and `feasibility` say what is there, what is not, and how to get it."""

import re

import pytest
import yaml
from publisher_layouts import (
    CELEBA_NAMES,
    CELEBA_SPLITS,
    ade20k_2016,
    celeba_images,
    celeba_lists,
    cifar10,
    imagenet_tar,
    tar_bytes,
    write_folder,
    write_tar,
    write_zip,
)

from mae_lib.cli import main
from mae_lib.images import fetch as fetching
from mae_lib.images.inventory import counts_of, inventory, missing_sets, study_inventory
from mae_lib.images.mixture import settle
from mae_lib.images.public_sizes import PUBLIC
from mae_lib.study.load import load_study
from mae_lib.study.paths import root


@pytest.fixture
def mae(monkeypatch, capsys):
    """Run the command line in this process; return exit code, stdout and stderr."""
    monkeypatch.delenv("MAE_DATA", raising=False)

    def run(*args, data=None) -> tuple[int, str, str]:
        if data is not None:
            monkeypatch.setenv("MAE_DATA", str(data))
        monkeypatch.setattr("sys.argv", ["mae", "data", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main.main()
        shown = capsys.readouterr()
        return caught.value.code or 0, shown.out, shown.err

    return run


@pytest.fixture
def sets(tmp_path):
    """The paper's four sets, tiny, as they are downloaded."""
    folder = tmp_path / "data"
    imagenet_tar(folder / "ILSVRC2012_img_train.tar")
    write_folder(folder / "celeba", celeba_lists(CELEBA_NAMES, CELEBA_SPLITS))
    write_zip(folder / "celeba" / "img_align_celeba.zip", celeba_images())
    write_tar(folder / "cifar-10-binary.tar.gz", cifar10()[0], "w:gz")
    write_zip(folder / "ADEChallengeData2016.zip", ade20k_2016())
    return folder


def rows(out: str) -> list[str]:
    """The lines of a printed table, one blank between its columns."""
    return [" ".join(line.split()) for line in out.splitlines()]


def study_file(tmp_path, **data) -> str:
    """The paper's study with kind sources and a smaller total."""
    study = yaml.safe_load((root() / "studies" / "paper.yaml").read_text())
    task = {"name": "cifar10", "source": "cifar10"}
    study["data"] |= {"kind": "sources", "total": 12, "tasks": [task]} | data
    study["grid"]["images"] = [4, 8]
    study["law"]["task"] = "cifar10"
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(study))
    return str(path)


def test_sources_lists_what_is_there_and_what_is_missing(mae, sets):
    code, out, _ = mae("sources", data=sets)
    assert code == 0
    for words in (
        "imagenet-tar ILSVRC2012_img_train.tar 9 3 train 9",
        "celeba celeba 6 0 test 1, train 4, valid 1",
        f"cifar10 cifar-10-binary.tar.gz 24 {len(set(cifar10()[1].flat))} test 4, train 20",
        "ade20k-2016 ADEChallengeData2016.zip 3 2 training 2, validation 1",
    ):
        assert words in rows(out)
    assert "not there: Tiny-ImageNet-200" in out
    assert "not there: CIFAR-10" not in out


def test_a_damaged_set_is_shown_with_its_reason_and_the_others_too(mae, sets):
    (sets / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n01440764.tar": b"x" * 600})[:900])
    code, out, _ = mae("sources", "--root", sets)
    assert code == 0
    assert "ILSVRC2012_img_train.tar" in out
    assert "cannot be used:" in out
    assert "cut or damaged" in out
    assert "ade20k-2016" in out
    found = inventory(sets)
    assert (found.problem != "").sum() == 1
    assert "imagenet" in missing_sets(found)


def test_the_sources_of_a_study_have_listings_that_pin_them(mae, tmp_path, sets):
    path = study_file(tmp_path)
    code, out, _ = mae("sources", "--study", path, data=sets)
    assert code == 0
    data = load_study(path).data
    found = study_inventory(data, sets)
    assert counts_of(found) == {"imagenet": 9, "celeba": 4, "cifar10": 20, "ade20k": 2}
    # The terminal folds the 64 digits; none is lost.
    assert all(listing[:12] in out for listing in found.listing)
    pinned = [
        {"name": s.name, "share": s.share, "listing": listing}
        for s, listing in zip(data.sources, found.listing, strict=True)
    ]
    again = load_study(study_file(tmp_path, sources=pinned)).data
    assert (study_inventory(again, sets).problem == "").all()
    assert again.digest != data.digest
    write_zip(sets / "celeba" / "img_align_celeba.zip", dict(list(celeba_images().items())[1:]))
    changed = study_inventory(again, sets).set_index("source")
    assert "listing: not the images that the study names" in changed.loc["celeba", "problem"]


def test_feasibility_compares_with_what_is_there_and_with_what_exists(mae, tmp_path, sets):
    code, out, _ = mae("feasibility", study_file(tmp_path, total=20), data=sets)
    assert code == 0
    assert "imagenet 0.5 10 9 1" in rows(out)
    for words in (
        "infeasible: data.total: 20 images cannot be had in these proportions: imagenet asked 10, "
        "has 9; celeba asked 6, has 4; ade20k asked 3, has 2; at most 12 can",
        "in these proportions at most 149,703 images (164,518 with validation)",
        "with the full ADE20K of 2021 at most 189,437 (204,251 with validation)",
    ):
        assert words in out
    _, out, _ = mae("feasibility", study_file(tmp_path, total=20, shortfall="rescale"), data=sets)
    assert "12 images, rescaled from 20" in out
    _, out, _ = mae("feasibility", study_file(tmp_path, total=20, shortfall="repeat"), data=sets)
    assert "20 images, 4 of them repeats (1 of imagenet, 2 of celeba, 1 of ade20k)" in out


def test_the_study_of_the_public_sets_asks_for_no_more_than_there_is(mae):
    data = load_study("paper-public").data
    paper = load_study("paper").data
    assert [(s.name, s.share) for s in data.sources] == [(s.name, s.share) for s in paper.sources]
    public = {name: train for name, (train, _, _) in PUBLIC.items()}
    found = settle(data.total, data.sources, public)
    assert found.counts["ade20k"] == 20_000
    code, out, _ = mae("feasibility", "paper-public")
    assert code == 0
    assert "infeasible" not in out


def test_feasibility_without_images_still_reports_the_papers_problem(mae, sets):
    code, out, _ = mae("feasibility")
    assert code == 0
    assert "MAE_DATA: not set, so only the public sizes are compared" in out
    assert "infeasible: ade20k: 27,000 images asked, 20,210 in its training part (22,210" in out
    (sets / "cifar-10-binary.tar.gz").unlink()
    code, out, _ = mae("feasibility", data=sets)
    assert code == 0
    assert (
        "no cifar10 for cifar10; give its layout and path, or see `mae data fetch cifar10`" in out
    )
    _, out, _ = mae("feasibility", "pocket")
    assert "drawn by code" in out


def test_feasibility_of_the_real_photographs(photographs, mae):
    code, out, _ = mae("feasibility", "real-small", data=photographs)
    assert code == 0
    assert "cifar10 0.05 600 2,000 0" in rows(out)
    assert "\n12,000 images\n" in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenet", ["147,897,477,120 bytes", "1d675b47d978889d74fa0da5fadfb00e", "do not"]),
        ("celeba", ["1,443,490,838 bytes", "list_eval_partition.txt", "HTML page"]),
        ("ade20k", ["ADEChallengeData2016.zip", "25,574 + 2,000", "register"]),
    ],
)
def test_fetch_of_a_set_with_terms_prints_the_steps_and_downloads_nothing(
    mae, name, words, monkeypatch
):
    monkeypatch.setattr(fetching, "fetch", None)
    code, out, _ = mae("fetch", name)
    assert code == 0
    for word in ("non-commercial", "put into MAE_DATA", *words):
        assert word.lower() in out.lower()


def test_fetch_of_cifar10_hands_the_published_sums_to_the_download(mae, tmp_path, monkeypatch):
    asked = []

    def pretend(remote, folder, *, progress, notice):
        asked.append(remote)
        progress(1, remote.size)
        notice("cut; trying again")
        return folder / remote.name

    monkeypatch.setattr(fetching, "fetch", pretend)
    code, out, _ = mae("fetch", "cifar10", "--root", tmp_path)
    assert code == 0
    assert asked[0].url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert "170,052,171 bytes" in out
    assert "cut; trying again" in out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("fetch", "cifar"), "did you mean 'cifar10'"),
        (("fetch", "cifar10"), "MAE_DATA: not set"),
        (("fetch", "cifar10", "--root", "no/such"), "no such folder"),
        (("sources",), "MAE_DATA: not set"),
        (("travel", "pocket", "--out", "x"), "procedural, only the files of kind tars travel"),
        (("travel", "paper-public", "--out", "x"), "sources, only the files of kind tars travel"),
        (("verify", "paper"), "planned, this study names no images"),
        (
            ("verify", "pocket", "--out", "no-such"),
            "not packed, or not to its end; `mae data build`",
        ),
        (("feasibility", "papr"), "did you mean 'paper'"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(mae, command, says):
    code, _, err = mae(*command)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sources": [{"name": "x", "share": 1.0}]}, "x: no known set; give its layout and path"),
        ({"sources": [{"name": "x", "share": 1.0, "layout": "zip"}]}, "layout: unknown, got 'zip'"),
        (
            {"sources": [{"name": "cifar10", "share": 1.0, "file": "a.tar"}]},
            "cifar10: a.tar: kind sources takes `path`, not file names",
        ),
        (
            {"tasks": [{"name": "cifar10", "source": "cifar"}]},
            "cifar10: source: none of imagenet, celeba, cifar10, ade20k, got 'cifar'",
        ),
        ({"tasks": [{"name": "cifar10", "train": "a.tar"}]}, "a.tar: kind sources takes `path`"),
        ({"shortfall": "silent"}, "shortfall"),
        ({"kind": "planned"}, "cifar10: `source` is for kind sources only"),
        (
            {"sources": [{"name": "cifar10", "share": 1.0, "split": "train+"}]},
            "sources.0.split",
        ),
    ],
)
def test_a_study_that_names_its_sources_wrongly_is_one_line(mae, tmp_path, change, says):
    code, _, err = mae("feasibility", study_file(tmp_path, **change))
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_path_that_is_not_there_or_of_another_layout_is_one_line(tmp_path, sets):
    for path, layout, says in (
        ("no", None, r"celeba.path: .*no: no such folder or archive"),
        (
            "cifar-10-binary.tar.gz",
            "celeba",
            "has not the layout celeba, which is a folder with img_align",
        ),
    ):
        source = {"name": "celeba", "share": 1.0, "path": path} | (
            {"layout": layout} if layout else {}
        )
        data = load_study(study_file(tmp_path, sources=[source, ], tasks=[
            {"name": "cifar10", "layout": "cifar10"}
        ])).data  # fmt: skip
        problem = study_inventory(data, sets).problem[0]
        assert re.search(says, problem)
