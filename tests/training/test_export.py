"""A finished cell is published whole: it loads elsewhere, its card tells the truth, faults end in
one line with the exit code that says whose fault it is."""

import json
import shutil

import pytest
import torch
from test_loop import CELL

from mae_lib.cli.main import main
from mae_lib.errors import RecordError, StudyError
from mae_lib.model.described import model_from
from mae_lib.model.masking import order_of_noise
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.recorded import cell_from_settings
from mae_lib.training.assess import record_cell, trained_model
from mae_lib.training.export import convert_checkpoint, export_cell, find_cell
from mae_lib.training.loop import completed

import timm  # isort: skip - after the shim


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_RUNS", str(folder))
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        record_cell(CELL, "tiny")
    return folder


@pytest.fixture
def cell_folder(runs, tmp_path):
    return shutil.copytree(runs / "tiny" / "cells" / CELL.id, tmp_path / "r" / "cells" / CELL.id)


@pytest.fixture
def mae(runs, monkeypatch, capsys):
    """Run the command; return its exit code and what it said."""
    monkeypatch.setenv("MAE_RUNS", str(runs))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["mae", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return end.value.code or 0, (said.err or said.out).strip()

    return run


def trained(folder):
    return trained_model(CELL, completed(CELL, folder))


def loss(model):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 16, 16, 3, generator=generator)
    return model(images, order_of_noise(torch.rand(2, 16, generator=generator))).item()


def test_a_cell_is_read_back_from_its_settings(cell_folder):
    begun = read_sealed(cell_folder / "cell.json")
    assert cell_from_settings(begun["settings"], begun["digest"]) == CELL
    with pytest.raises(RecordError, match="another format"):
        cell_from_settings({**begun["settings"], "seed": 4}, begun["digest"])
    with pytest.raises(RecordError, match="not those of a cell"):
        cell_from_settings({**begun["settings"], "colour": 1}, begun["digest"])


@pytest.mark.parametrize("to", ["hf", "timm", "mae"])
def test_every_format_gives_back_the_trained_model_and_converts_into_the_others(
    cell_folder, tmp_path, to
):
    expected = loss(trained(cell_folder))
    folder = export_cell(cell_folder, to, tmp_path / "out" / to)
    assert loss(model_from(folder)) == expected
    other = convert_checkpoint(folder, "mae", tmp_path / "again")
    direct = export_cell(cell_folder, "mae", tmp_path / "direct")
    files = [path / "model.safetensors" for path in (other, direct)]
    assert files[0].read_bytes() == files[1].read_bytes()
    # A second export is the first one's bytes, and replaces it.
    before = (folder / "model.safetensors").read_bytes()
    export_cell(cell_folder, to, folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_timm_builds_the_encoder_from_the_folder_alone(cell_folder, tmp_path):
    folder = export_cell(cell_folder, "timm", tmp_path / "timm")
    encoder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model = trained(cell_folder)
    images = torch.randn(2, 16, 16, 3)
    with torch.no_grad():
        expected = encoder.forward_features(images.permute(0, 3, 1, 2))
        torch.testing.assert_close(model.encode(images), expected, rtol=1e-4, atol=1e-5)
    config = json.loads((folder / "config.json").read_text())
    assert config["masked_autoencoder"]["decoder_dim"] == model.mask_token.shape[-1]


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_folder_with_the_same_loss(cell_folder, tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason='transformers is not installed: pip install "mae-lib[peers]"'
    )
    folder = export_cell(cell_folder, "hf", tmp_path / "hf")
    theirs = transformers.ViTMAEForPreTraining.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 16, 16, 3, generator=generator)
    noise = torch.rand(2, 16, generator=generator)
    expected = loss(trained(cell_folder))
    again = theirs(pixel_values=images.permute(0, 3, 1, 2), noise=noise).loss.item()
    assert abs(again - expected) <= 1e-6 * expected
    assert transformers.ViTImageProcessor.from_pretrained(folder).size["height"] == 16


def test_the_card_is_filled_from_the_cells_own_files(cell_folder, tmp_path):
    card = (export_cell(cell_folder, "hf", tmp_path / "c") / "README.md").read_text()
    record, training = (read_sealed(cell_folder / f"{n}.json") for n in ("record", "training"))
    row = record["rows"][0]
    for value in (
        CELL.id, CELL.digest, training["weights_sha256"], f"{100 * row['top1']:.1f} (",
        f"{row['params_encoder']:,}", "192 in 24 steps", f"{training['loss']:.4g}", row["commit"],
        "3 of 16", "objects 100.0%", "torch ", "license: apache-2.0",
    ):  # fmt: skip
        assert value in card
    provenance = read_sealed(tmp_path / "c" / "provenance.json")
    assert provenance["settings"]["recipe"]["steps"] == 24
    assert {"model.safetensors", "config.json", "README.md"} <= provenance["files"].keys()


def test_the_command_writes_the_folder_and_says_what_is_in_it(mae, tmp_path):
    code, said = mae("export", CELL.id, "--to", "timm", tmp_path / "a b é")
    assert (code, said.count("bytes")) == (0, 5)
    code, said = mae("export", tmp_path / "a b é", "--to", "hf", tmp_path / "hf")
    assert code == 0
    assert "Converted, not trained here" in (tmp_path / "hf" / "README.md").read_text()


def test_bad_input_ends_in_one_line_before_anything_is_written(mae, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    new = tmp_path / "new"
    for arguments, part in (
        ((CELL.id[:-1] + "x", new), f"did you mean '{CELL.id}'?"),
        ((tmp_path / "full", new), "holds none of"),
        (("a b", new), "no such cell"),
        ((CELL.id, new, "--to", "tim"), "did you mean 'timm'?"),
        ((CELL.id, new, "--out", "../x"), "a-z, 0-9"),
        ((CELL.id, new, "--out", "none"), "no such cell in"),
        ((CELL.id, tmp_path / "full"), "holds files of something else"),
        ((CELL.id, tmp_path / "full" / "thesis.tex" / "x"), "no folder that you may write"),
        ((tmp_path / "none.pth", new), "no such file"),
    ):
        code, said = mae("export", *arguments)
        assert code == 2, said
        assert part in said
        assert "\n" not in said
        assert not new.exists()


def test_a_checkpoint_of_another_architecture_names_the_tensor(mae, cell_folder, tmp_path):
    path = export_cell(cell_folder, "mae", tmp_path / "m") / "model.safetensors"
    code, said = mae("export", path, tmp_path / "x", "--model", "vit_tiny")
    assert code == 2
    assert (
        "cls_token: of another architecture or image size, got [1, 1, 64], wanted [1, 1, 192]"
        in said
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "provenance.json"])
def test_one_flipped_bit_in_an_exported_folder_is_found(mae, cell_folder, tmp_path, name):
    folder = export_cell(cell_folder, "hf", tmp_path / "m")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    code, said = mae("export", folder, tmp_path / "x")
    assert code == 4, said
    assert name in said
    assert "\n" not in said


def test_damaged_cell_files_are_named_with_code_4(cell_folder, tmp_path):
    weights = cell_folder / "weights.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-9], whole[:2000] + bytes([whole[2000] ^ 16]) + whole[2001:]):
        weights.write_bytes(content)
        with pytest.raises(RecordError, match=r"weights.safetensors: cut or changed") as caught:
            export_cell(cell_folder, "hf", tmp_path / "x")
        assert caught.value.exit_code == 4
        assert not (tmp_path / "x").exists()


def test_a_cell_that_is_not_complete_is_not_exported(cell_folder, tmp_path):
    record = read_sealed(cell_folder / "record.json")
    write_sealed(cell_folder / "record.json", {**record, "status": "diverged"})
    with pytest.raises(StudyError, match="diverged, there are no weights"):
        export_cell(cell_folder, "hf", tmp_path / "x")
    (cell_folder / "record.json").unlink()
    with pytest.raises(StudyError, match="not complete, only trained and not evaluated"):
        export_cell(cell_folder, "hf", tmp_path / "x")
    (cell_folder / "training.json").unlink()
    with pytest.raises(StudyError, match="not complete, only begun"):
        export_cell(cell_folder, "hf", tmp_path / "x")


def test_a_cell_in_two_run_folders_wants_one_of_them_named(runs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "cells" / CELL.id).mkdir(parents=True)
    with pytest.raises(StudyError, match="name one of a, b"):
        find_cell(CELL.id, tmp_path)
    assert find_cell(CELL.id, tmp_path, out="b").parents[1].name == "b"
