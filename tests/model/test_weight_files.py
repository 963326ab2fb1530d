"""Nothing is unpickled, and a file that is cut, changed or something else ends in one line."""

import io
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from mae_lib.errors import RecordError
from mae_lib.model.weight_files import read_weights

TENSORS = {"cls_token": torch.ones(1, 1, 24), "norm.weight": torch.arange(500.0)}


class Bomb:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def refused(path, code):
    with pytest.raises(RecordError) as caught:
        read_weights(path)
    assert caught.value.exit_code == code
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "bin"])
def test_tensors_come_back_bit_for_bit(tmp_path, ending):
    path = tmp_path / f"w.{ending}"
    save_file(TENSORS, path) if ending == "safetensors" else torch.save({"model": TENSORS}, path)
    found = read_weights(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("ending", ["pth", "bin", "safetensors"])
@pytest.mark.parametrize("write", ["torch", "old torch", "pickle"])
def test_an_object_in_a_checkpoint_is_never_built(tmp_path, ending, write):
    path, mark = tmp_path / f"w.{ending}", tmp_path / "mark"
    content = {"model": TENSORS, "args": Bomb(mark)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    message = refused(path, 4 if ending == "safetensors" else 2)
    assert ending == "safetensors" or "never unpickled" in message
    assert not mark.exists()
    trap = io.BytesIO(path.read_bytes())
    pickle.load(trap) if write == "pickle" else torch.load(trap, weights_only=False)
    assert mark.exists(), "the trap itself is dead"


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_truncated_file_is_called_cut_wherever_it_ends(tmp_path, ending):
    path = tmp_path / f"w.{ending}"
    save_file(TENSORS, path) if ending == "safetensors" else torch.save(TENSORS, path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "cut or changed" in refused(path, 4)


def test_a_flipped_bit_in_the_archive_of_a_pth_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    at = whole.index(TENSORS["norm.weight"].numpy().tobytes()) + 801
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "wrong checksum" in refused(path, 4)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pth", 2)
    (tmp_path / "w.npz").write_bytes(b"x")
    assert ".safetensors" in refused(tmp_path / "w.npz", 2)
    (tmp_path / "empty").mkdir()
    assert "holds none of model.safetensors" in refused(tmp_path / "empty", 2)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "names with tensors" in refused(tmp_path / "list.pth", 2)
    save_file({"x": torch.tensor([1.0, torch.nan])}, tmp_path / "nan.safetensors")
    assert "not all its values are numbers" in refused(tmp_path / "nan.safetensors", 4)
