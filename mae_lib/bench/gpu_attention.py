"""Which attention is fastest by shape: torch's backends beside ours, forward and backward.

`python -m mae_lib.bench.gpu_attention FILE...` turns measured gpu.json files into the table that
training asks (kernels/attention_table.json).
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mae_lib.bench.gpu_timing import device_for, forward_backward, graphed, time_calls
from mae_lib.kernels import packed_attention as packed
from mae_lib.kernels.attention_table import PATH, WAYS
from mae_lib.kernels.dispatch import triton_way
from mae_lib.kernels.gpu_ops import SIZES, TINY, Size
from mae_lib.records.atomic import write_json

# A replay is one kernel or a few: short rounds hold thousands.
ROUNDS, ROUND_SECONDS = 5, 0.03


def sdpa(dry: bool) -> Iterator[dict]:
    """Time every way on the encoder's and decoder's shapes, all queries and the last block's."""
    device = device_for(dry)
    dtype = torch.float32 if dry else torch.bfloat16
    for size in (TINY,) if dry else SIZES:
        for queries in dict.fromkeys((size.tokens, size.queries)):
            for way in WAYS:
                if way == "triton" and device.type != "cuda":
                    continue
                row = {
                    "device": "cpu" if dry else torch.cuda.get_device_name(),
                    "dtype": str(dtype).removeprefix("torch."),
                    "size": size.name,
                    "batch": size.batch,
                    "heads": size.heads,
                    "tokens": size.tokens,
                    "queries": queries,
                    "head_dim": size.dim // size.heads,
                    "way": way,
                }
                try:
                    yield {"sdpa": [row | _seconds(way, size, queries, device, dtype)]}
                except Exception as error:
                    # A backend that does not take a shape says so; that is a result.
                    said = " ".join(str(error).split())[:200]
                    yield {"sdpa": [row | {"seconds": None, "refused": said}]}


def table_rows(rows: Sequence[dict]) -> list[dict]:
    """Return the fastest measured way of every shape, as the table keeps it."""
    best: dict[tuple, dict] = {}
    keys = ("device", "dtype", "tokens", "queries", "head_dim")
    for row in rows:
        if row.get("seconds") is None:
            continue
        shape = tuple(row[key] for key in keys)
        if shape not in best or row["seconds"] < best[shape]["seconds"]:
            best[shape] = {key: row[key] for key in (*keys, "way", "seconds")}
    return [best[shape] for shape in sorted(best)]


def write_table(files: Sequence[Path]) -> int:
    """Write the table from measured files; return its rows. Dry runs are left out."""
    found = [json.loads(path.read_text()) for path in files]
    rows = table_rows([row for value in found if not value["dry"] for row in value["sdpa"]])
    write_json(PATH, {"format": 1, "rows": rows})
    return len(rows)


def _seconds(
    way: str, size: Size, queries: int, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    arguments = packed.random_arguments(
        size.batch,
        size.tokens,
        size.heads,
        size.dim // size.heads,
        device=device,
        dtype=dtype,
        queries=None if queries == size.tokens else queries,
    )
    call, why = graphed(forward_backward(_function(way, len(arguments)), arguments), device)
    return time_calls(call, device, rounds=ROUNDS, round_s=ROUND_SECONDS) | {"replayed": not why}


def _function(way: str, count: int) -> Callable[..., Tensor]:
    if way == "triton":
        return triton_way("packed_attention" if count == 1 else "query_attention")
    reference = (
        packed.packed_attention_reference if count == 1 else packed.query_attention_reference
    )
    return functools.partial(_in_backend, reference, way)


def _in_backend(reference: Callable[..., Tensor], way: str, *arguments: Tensor) -> Tensor:
    with packed.backend(way):
        return reference(*arguments)


if __name__ == "__main__":
    print(f"{PATH.name}: {write_table([Path(name) for name in sys.argv[1:]])} rows")
