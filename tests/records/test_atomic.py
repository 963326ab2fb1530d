"""Files appear whole or not at all, whatever happens in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import forked_writer
import pandas as pd
import pytest
from forked_writer import write

from mae_lib.errors import BusyError, MaeError, RecordError
from mae_lib.records.atomic import replacing, sha256_of, write_bytes, write_json
from mae_lib.records.csv_file import write_csv
from mae_lib.records.locks import locked
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.sidecar import check_sidecar, read_table, write_table

POINTS = (1, 2, 3, 5, 8, 13, 17)


@pytest.mark.parametrize(("kind", "code"), [("kill", -signal.SIGKILL), ("enospc", 1)])
def test_a_writer_broken_at_any_point_leaves_whole_files_and_a_rerun_equals_the_undisturbed(
    tmp_path, kind, code
):
    write(tmp_path / "calm")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-W", "ignore", forked_writer.__file__, tmp_path, kind]
    ended = subprocess.check_output([*command, *map(str, POINTS)], env=env, text=True)
    assert [int(word) for word in ended.split()] == [code] * len(POINTS)
    for point in POINTS:
        broken = tmp_path / str(point)
        if (broken / "a.json").exists():
            read_sealed(broken / "a.json")
        write(broken)
        for name in ("a.json", "b.csv", "b.csv.seal.json"):
            assert (broken / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_a_failed_write_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "x.bin"
    write_bytes(path, b"old")
    with pytest.raises(ValueError, match="broken"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("broken")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_folder_that_cannot_be_made_is_one_line_and_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MaeError, match="cannot be written") as caught:
        write_bytes(tmp_path / "file" / "x", b"")
    assert caught.value.exit_code == 2


def test_a_full_disk_is_one_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with (
        pytest.raises(MaeError, match="No space left") as caught,
        replacing(tmp_path / "x"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("position", range(0, 100, 9))
def test_any_flipped_bit_of_a_sealed_file_is_found(tmp_path, position):
    path = tmp_path / "a.json"
    write_sealed(path, {"value": 0.125, "name": "some text that is long enough to be hit"})
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordError):
        read_sealed(path)


def test_a_cut_or_empty_sealed_file_is_found(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"value": 1})
    for length in (0, 1, 20):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(RecordError, match="cut or changed"):
            read_sealed(path)


def test_a_changed_table_is_found_and_a_whole_one_reads_back_equal(tmp_path):
    frame = pd.DataFrame({"a": [0.1, 1 / 3], "b": ["x", "y"]})
    write_table(tmp_path / "t.csv", frame)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), frame)
    (tmp_path / "t.csv").write_text("a,b\n0.2,x\n")
    with pytest.raises(RecordError, match="its hash differs"):
        check_sidecar(tmp_path / "t.csv")


def test_nan_never_enters_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_the_returned_hash_is_that_of_the_file(tmp_path):
    assert write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1]})) == sha256_of(tmp_path / "t.csv")


def test_a_lock_is_refused_while_held_and_free_when_its_owner_is_killed(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from mae_lib.records.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as caught, locked(lock, wait=False):
            pass
        assert caught.value.exit_code == 3
        owner.kill()
        owner.wait()
    with locked(lock, wait=False):
        pass


def test_quarantine_never_overwrites(tmp_path):
    for n in range(3):
        (tmp_path / "x").write_text(str(n))
        quarantine(tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.corrupt", "x.corrupt-1", "x.corrupt-2"]
