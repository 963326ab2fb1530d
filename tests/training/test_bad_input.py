"""Bad input ends in one line that names it, and what was there before is still there after."""

import dataclasses
import pickle
import re
import shutil

import pytest
import torch
from tiny_cell import CELL, DATA, losses, weights

from mae_lib.errors import MaeError
from mae_lib.images.store import build_store
from mae_lib.model.described import model_from
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.records import faults
from mae_lib.records.atomic import sha256_of
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.load import cell_from_namespace
from mae_lib.training.checkpoint import restore_checkpoint
from mae_lib.training.loop import build_model, pretrain
from mae_lib.training.recipe import build_optimizer


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    pretrain(CELL, store, folder, log_every=5)
    return folder


@pytest.fixture(scope="module")
def cut(store, tmp_path_factory):
    """A run that was told to end after step 12, with the checkpoints of steps 11 and 12."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_FAULT_AT", "step:term:12")
        patch.setattr(faults, "_tried", set())
        with pytest.raises(MaeError, match="after step 12"):
            pretrain(CELL, store, folder, log_every=5, checkpoint_seconds=0)
    return folder


def truncated(path, mark):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path, mark):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def pickled(path, mark):
    """A pickle that would write a file, under a record whose hashes are right."""
    path.write_bytes(pickle.dumps({"model.mask_token": Bomb(mark)}))
    reseal(path)


def reseal(path):
    record = path.with_suffix(".json")
    write_sealed(record, read_sealed(record) | {"sha256": sha256_of(path)})


@pytest.mark.parametrize("damage", [truncated, flipped, pickled])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_loses_one_step(
    store, calm, cut, tmp_path, damage
):
    folder, mark = tmp_path / "cell", tmp_path / "mark"
    shutil.copytree(cut, folder)
    damage(folder / "state" / "step-00000012.safetensors", mark)
    pretrain(CELL, store, folder, log_every=5)
    assert not mark.exists()
    assert weights(folder) == weights(calm)
    assert losses(folder) == losses(calm)
    assert (folder / "state" / "step-00000012.safetensors.corrupt").exists()


def test_a_checkpoint_of_another_cell_is_refused_and_left_alone(store, cut, tmp_path):
    other = dataclasses.replace(CELL, seed=CELL.seed + 1)
    shutil.copytree(cut / "state", tmp_path / "state")
    with pytest.raises(MaeError, match=f"belongs to cell {CELL.digest}, not {other.digest}"):
        pretrain(other, store, tmp_path)
    assert len(list((tmp_path / "state").iterdir())) == 4


def test_a_checkpoint_of_another_architecture_changes_nothing(cut, tmp_path):
    shutil.copytree(cut / "state", tmp_path / "state")
    model = build_model(dataclasses.replace(CELL, model="vit_nano"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MaeError, match="of another architecture, got") as caught:
        restore_checkpoint(tmp_path / "state", model, build_optimizer(model, CELL.recipe))
    assert caught.value.exit_code == 2
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def parameters(**changed):
    return {"study": "pocket", "out": "scratch", "model": "vit_pico", "images": 80,
            "resolution": 32, "patch_size": 4, "mask_ratio": 0.8, "seed": 0} | changed  # fmt: skip


def other_images():
    build_model(CELL)(torch.zeros(2, 20, 20, 3), torch.arange(16).expand(2, -1))


def cut_off_model():
    MaskedAutoencoder(build_model(CELL).shape, pixels=22, patch_size=4, keep=3)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (other_images, r"images: \[batch, 16, 16, 3\] is what this model takes, got \[2, 20, 20"),
        (cut_off_model, "patch_size must divide pixels"),
        (lambda: cell_from_namespace(parameters(mask_ratio=0.0)), "mask_ratio: .* got 0.0"),
        (lambda: cell_from_namespace(parameters(mask_ratio=1.0)), "mask_ratio: .* got 1.0"),
        (lambda: cell_from_namespace(parameters(mask_ratio=0.99)), "leaves 0 visible"),
        (lambda: cell_from_namespace(parameters(resolution=3)), "resolution: must be at least"),
        (lambda: cell_from_namespace(parameters(patch_size=None, resolution=33)), "resolution: "),
        (lambda: cell_from_namespace(parameters(resolution=128)), "stores 64 pixels a side"),
    ],
)
def test_what_cannot_be_computed_is_one_line_with_code_2(ask, says):
    with pytest.raises(MaeError, match=says) as caught:
        ask()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line_before_any_work(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MaeError, match=r"cannot be written, got Not a directory; .*") as caught:
        pretrain(CELL, store, tmp_path / "file" / "cell")
    assert caught.value.exit_code == 2


def test_a_file_of_weights_with_an_object_in_it_is_refused_and_never_built(tmp_path):
    path = tmp_path / "mae.pth"
    torch.save({"model": {"cls_token": Bomb(tmp_path / "mark")}}, path)
    with pytest.raises(MaeError, match="objects are never unpickled") as caught:
        model_from(path)
    assert re.match(str(path), str(caught.value))
    assert not (tmp_path / "mark").exists()
