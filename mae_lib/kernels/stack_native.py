"""A stack of transformer blocks as one operation: bfloat16 on a processor, by compiled loops.

The products are torch's; all between them is done by loops that read and write each tensor once:
a bias never costs a pass of its own, scores stay in the cache, and the sums over rows that are the
gradients of biases ride along. Master weights stay fp32 and are cast once a step.
Imported only where `native.available()`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mae_lib.kernels.attention_native import attention, attention_backward
from mae_lib.kernels.gelu_native import bias_gelu, bias_gelu_backward
from mae_lib.kernels.norm_native import add_norm, norm_backward
from mae_lib.kernels.stack import PER_BLOCK, Plan, by_block

_HALF = torch.bfloat16
# Of a long sum over few rows oneDNN makes two thirds of its speed with matrix units; of two halves
# all (benchmarks/README.md).
_LONG, _FEW = 1024, 960


def stack_native(
    plan: Plan, x: Float[Tensor, "rows D"], parameters: list[Tensor]
) -> Float[Tensor, "out D"]:
    """Return stack_reference of bfloat16 tokens and fp32 weights.

    Error: at most twice torch's own in bfloat16 against float64 (tests/kernels/test_native_stack.py).
    """
    keep = torch.is_grad_enabled()
    return _Stack.apply(plan, keep, x.contiguous(), *parameters)


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan, keep, x, *parameters):
        norm_weight, norm_bias = parameters[-2:]
        blocks = list(by_block(parameters))
        stream, branch, bias, kept = x, None, None, []
        for i, weights in enumerate(blocks):
            queries = plan.queries if i == len(blocks) - 1 else None
            stream, branch, bias, saved = _block(plan, queries, stream, branch, bias, weights)
            if keep:
                kept.append(saved)
        stream, normed, moments = add_norm(stream, branch, bias, norm_weight, norm_bias, plan.eps)
        if keep:
            ctx.plan, ctx.kept, ctx.last = plan, kept, (stream, moments)
            ctx.save_for_backward(*parameters)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        plan, parameters = ctx.plan, ctx.saved_tensors
        stream, moments = ctx.last
        grad, *of_norm, of_bias = norm_backward(
            grad.contiguous(), stream, moments, parameters[-2], None
        )
        found = list(of_norm)
        while ctx.kept:
            at = PER_BLOCK * (len(ctx.kept) - 1)
            # What a block kept is freed as soon as it is used.
            grad, of_weights, of_bias = _block_backward(
                plan, ctx.kept.pop(), grad, of_bias, parameters[at : at + PER_BLOCK]
            )
            found = [*of_weights, *found]
        return None, None, grad, *found


def _block(plan, queries, stream, branch, bias, weights):
    """Run one block on the stream (x + branch + bias); return its own stream, branch, bias, and
    what its gradient needs."""
    norm1_w, norm1_b, qkv_w, qkv_b, proj_w, _, norm2_w, norm2_b, fc1_w, fc1_b, fc2_w, fc2_b = (
        weights
    )
    batch, dim = plan.batch, stream.shape[1]
    wide, h1, moments1 = add_norm(stream, branch, bias, norm1_w, norm1_b, plan.eps)
    qkv16, proj16, fc1_16, fc2_16 = (w.to(_HALF) for w in (qkv_w, proj_w, fc1_w, fc2_w))
    if queries is None:
        q, kv, asked, narrow = times(h1, qkv16.t()), None, None, wide
    else:
        asked = _last(h1, batch, queries)
        q, kv = times(asked, qkv16[:dim].t()), times(h1, qkv16[dim:].t())
        narrow = _last(wide, batch, queries)
    mixed = attention(q, kv, qkv_b, batch=batch, heads=plan.heads)
    stream2, h2, moments2 = add_norm(
        narrow, times(mixed, proj16.t()), weights[5], norm2_w, norm2_b, plan.eps
    )
    u, g = bias_gelu(times(h2, fc1_16.t()), fc1_b)
    saved = (wide, h1, moments1, asked, q, kv, mixed, stream2, h2, moments2, u, g)
    return stream2, times(g, fc2_16.t()), fc2_b, (saved, (qkv16, proj16, fc1_16, fc2_16), queries)


def _block_backward(plan, kept, grad, of_fc2_b, weights):
    """Return the gradients of a block's stream and weights, and of the bias added before it."""
    saved, (qkv16, proj16, fc1_16, fc2_16), queries = kept
    wide, h1, moments1, asked, q, kv, mixed, stream2, h2, moments2, u, g = saved
    batch, dim = plan.batch, grad.shape[1]
    of_fc2 = _of_weight(grad, g)
    of_u, of_fc1_b = bias_gelu_backward(times(grad, fc2_16), u)
    of_fc1 = _of_weight(of_u, h2)
    of_stream2, of_norm2_w, of_norm2_b, of_proj_b = norm_backward(
        times(of_u, fc1_16), stream2, moments2, weights[6], grad
    )
    of_proj = _of_weight(of_stream2, mixed)
    of_q, of_kv, of_qkv_b = attention_backward(
        times(of_stream2, proj16), q, kv, weights[3], batch=batch, heads=plan.heads
    )
    if queries is None:
        of_h1, of_qkv, beside = times(of_q, qkv16), _of_weight(of_q, h1), of_stream2
    else:
        of_qkv = torch.cat([_of_weight(of_q, asked), _of_weight(of_kv, h1)])
        of_h1 = times(of_kv, qkv16[dim:])
        _last_of(of_h1, batch, queries).add_(times(of_q, qkv16[:dim]).view(batch, queries, dim))
        beside = torch.zeros_like(wide)
        _last_of(beside, batch, queries).copy_(of_stream2.view(batch, queries, dim))
    of_stream, of_norm1_w, of_norm1_b, of_bias = norm_backward(
        of_h1, wide, moments1, weights[0], beside
    )
    found = [of_norm1_w, of_norm1_b, of_qkv, of_qkv_b, of_proj, of_proj_b]
    found += [of_norm2_w, of_norm2_b, of_fc1, of_fc1_b, of_fc2, of_fc2_b]
    return of_stream, found, of_bias


def times(a: Float[Tensor, "n k"], b: Float[Tensor, "k m"]) -> Float[Tensor, "n m"]:
    """Return a b."""
    rows, long = a.shape
    if long < _LONG or rows >= _FEW:
        return a @ b
    half = long // 2
    return (a[:, :half] @ b[:half]).addmm_(a[:, half:], b[half:])


def _of_weight(grad: Tensor, x: Tensor) -> Tensor:
    return (grad.t() @ x).float()


def _last_of(x: Tensor, batch: int, count: int) -> Tensor:
    return x.view(batch, -1, x.shape[1])[:, -count:]


def _last(x: Tensor, batch: int, count: int) -> Tensor:
    # Of one token each, `reshape` would return a view with gaps.
    return _last_of(x, batch, count).reshape(batch * count, x.shape[1]).contiguous()
