"""How attention over short sequences is cut into blocks for a GPU: plain arithmetic, no kernel."""

from dataclasses import dataclass

from torch import Tensor

# The least rows that a tensor core multiplies.
LEAST = 16


@dataclass(frozen=True)
class Blocks:
    """`pack` images share a block; `queries` and `keys` are its sides, `head` the padded head dim."""

    pack: int
    queries: int
    keys: int
    head: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values as rows: tensors whose token b * tokens + n lies `stride` numbers
    after the one before, head h at h * head_dim."""

    q: Tensor
    k: Tensor
    v: Tensor
    batch: int
    queries: int
    keys: int
    heads: int
    head_dim: int
    q_stride: int
    k_stride: int

    @property
    def scale(self) -> float:
        """1 / sqrt(head dim)."""
        return self.head_dim**-0.5


def heads_of_packed(qkv: Tensor) -> Heads:
    """View a contiguous `[B, N, 3, H, d]`."""
    batch, tokens, _, heads, head_dim = qkv.shape
    q, k, v = qkv.unbind(2)
    stride = 3 * heads * head_dim
    return Heads(q, k, v, batch, tokens, tokens, heads, head_dim, stride, stride)


def heads_of_queries(q: Tensor, kv: Tensor) -> Heads:
    """View contiguous `[B, M, H, d]` and `[B, N, 2, H, d]`."""
    batch, tokens, _, heads, head_dim = kv.shape
    k, v = kv.unbind(2)
    row = heads * head_dim
    return Heads(q, k, v, batch, q.shape[1], tokens, heads, head_dim, row, 2 * row)


def blocks_of(heads: Heads, *, backward: bool = False) -> Blocks:
    """Choose the blocks: all keys in one up to 128, else steps of 64.

    Under 9 tokens some images share a block. What a program holds must fit its registers: backward
    a wide head takes twice the warps and half the queries, and without tensor cores (fp32), where
    a product is unrolled, blocks are of 32, without loads ahead of the loop.
    """
    narrow, head = heads.q.dtype.itemsize < 4, _block(heads.head_dim)
    most, step, numbers, stages = (128, 64, 1024, 2) if narrow else (32, 32, 128, 1)
    pack = max(1, LEAST // max(heads.keys, heads.queries))
    keys, queries = _block(pack * heads.keys), _block(pack * heads.queries)
    keys, queries = keys if keys <= most else step, min(step, queries)
    if backward and head > 32:
        numbers, queries = numbers // 2, queries if head <= 64 else min(queries, 32)
    # So many scores a warp.
    warps = max(1, min(8, queries * keys // numbers))
    return Blocks(pack, queries, keys, head, warps, stages)


def _block(rows: int) -> int:
    return max(LEAST, 1 << (rows - 1).bit_length())
