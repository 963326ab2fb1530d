"""The measured table decides, and only near what it measured."""

import json

import pytest

from mae_lib.errors import KernelError
from mae_lib.kernels import attention_table

ROWS = [
    {"device": "H", "dtype": "bfloat16", "tokens": 64, "queries": 64, "head_dim": 32, "way": "triton"},
    {"device": "H", "dtype": "bfloat16", "tokens": 80, "queries": 80, "head_dim": 32, "way": "flash"},
]  # fmt: skip


def asked(tokens: int, queries: int, **other: object) -> str:
    shape = {"device": "H", "dtype": "bfloat16", "head_dim": 32} | other
    return attention_table.nearest_way(ROWS, tokens=tokens, queries=queries, **shape)


def test_the_nearest_row_of_the_same_device_dtype_and_head_dim_decides():
    assert asked(65, 65) == "triton"
    assert asked(79, 79) == "flash"
    assert asked(64, 64, device="other") == "torch"
    assert asked(64, 64, dtype="float16") == "torch"
    assert asked(64, 64, head_dim=64) == "torch"


def test_a_shape_far_from_every_row_is_left_to_torch():
    assert asked(257, 257) == "torch"
    assert asked(65, 30) == "torch"
    assert attention_table.nearest_way([], device="H", dtype="bfloat16", tokens=4, queries=4,
                                       head_dim=32) == "torch"  # fmt: skip


def test_the_committed_table_can_be_read_and_an_unknown_way_is_refused(tmp_path, monkeypatch):
    for row in attention_table.measured_rows():
        assert row["tokens"] > 0
        assert row["device"]
    wrong = tmp_path / "attention_table.json"
    wrong.write_text(json.dumps({"format": 1, "rows": [ROWS[0] | {"way": "magic"}]}))
    monkeypatch.setattr(attention_table, "PATH", wrong)
    attention_table.measured_rows.cache_clear()
    with pytest.raises(KernelError, match=r"way: one of torch, flash, .* got 'magic'"):
        attention_table.measured_rows()
    attention_table.measured_rows.cache_clear()
