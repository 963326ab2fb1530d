"""Time the equal ways on this processor once, cache the outcome, and take a rival only when it clearly
pays.

The defaults win unless a rival is faster by `MARGIN`, so that two machines of one model choose alike
and load from outside cannot flip a choice. Rounds are interleaved and ratios taken within a round. A
process of its own measures, so that threads and allocator settings of the caller stay as they are.
"""

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mae_lib.errors import MaeError, RecordError
from mae_lib.kernels import native
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.kernels.attention import attention_fused, attention_products
from mae_lib.kernels.linear import linear, linear_onednn
from mae_lib.kernels.stack import Plan, random_arguments, stack_reference
from mae_lib.records.cache import cache_folder
from mae_lib.records.locks import locked
from mae_lib.records.provenance import available_cores, processor
from mae_lib.records.sealed import read_sealed, write_sealed

MARGIN = 1.15
ROUNDS = 9
_INNER_SECONDS = 0.01
# What is taken where nothing was measured: right on Intel, the slower on AMD (benchmarks/README.md).
DEFAULTS = {
    "linear": "torch",
    "attention_fp32": "fused",
    "attention_bf16": "products",
    "blocks_bf16": "torch",
}
# The layers of S/8 at 64 pixels in batches of 64: encoder rows x width -> out, then the decoder's.
_PRODUCTS = ((832, 384, 1536), (4160, 192, 768))
# Images, heads, tokens, channels a head of the same cell's encoder and decoder.
_ATTENTIONS = ((64, 6, 13, 64), (64, 6, 65, 32))
# Tokens and width of its blocks.
_STACKS = ((13, 384), (65, 192))


@dataclass(frozen=True)
class Trial:
    """One choice: the default, its rival, and how many times faster the rival is.

    `ratio` is the median over rounds of default time / rival time, `low` and `high` its 20th and
    80th percentiles; of several shapes the one where the rival does worst decides. An `advice` is
    shown and not acted upon.
    """

    choice: str
    default: str
    rival: str
    ratio: float
    low: float
    high: float
    taken: str
    advice: bool = False


def choices(threads: int | None = None) -> dict[str, str]:
    """Return what is taken on this processor, measuring it when no cache holds it."""
    return DEFAULTS | {t.choice: t.taken for t in calibration(threads) if not t.advice}


@functools.cache
def calibration(threads: int | None = None) -> tuple[Trial, ...]:
    """Return the trials of this processor, from the cache where they are there and whole.

    Raises: MaeError when the measuring process fails.
    """
    threads = threads or available_cores()
    path = cache_path(threads)
    if (kept := _kept(path)) is not None:
        return kept
    with _alone(path.with_suffix(".lock")):
        # Whoever measured before this process is not measured against again.
        if (kept := _kept(path)) is not None:
            return kept
        trials = measure_apart(threads)
        about = {"processor": processor(), "torch": torch.__version__, "threads": threads}
        # A home that cannot be written costs the next process a few seconds, and nothing else.
        with contextlib.suppress(MaeError):
            write_sealed(path, about | {"trials": [asdict(trial) for trial in trials]})
    return trials


def _kept(path: Path) -> tuple[Trial, ...] | None:
    try:
        return tuple(Trial(**row) for row in read_sealed(path)["trials"])
    except (RecordError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process measure at a time: two would slow each other down, and measure that."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(MaeError):
            stack.enter_context(locked(lock))
        yield


def cache_path(threads: int) -> Path:
    """Return where the trials of this processor, torch and thread count are kept."""
    # numba takes some versions of numpy only.
    ways = "|".join(DEFAULTS) + f"|numba {native.version()}|numpy {np.__version__}"
    key = f"{processor()}|{torch.__version__}|{threads}|{MARGIN}|{ROUNDS}|{ways}"
    name = f"calibration-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
    return cache_folder() / name


def measure_apart(threads: int) -> tuple[Trial, ...]:
    """Measure in a process of its own.

    Raises: MaeError with its last line when it fails.
    """
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "mae_lib.kernels.calibrate", str(threads)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise MaeError(f"calibration: the measuring process failed, got {last!r}")
    return tuple(Trial(**row) for row in json.loads(done.stdout))


def measure(threads: int) -> list[Trial]:
    """Time every choice with `threads` threads: some seconds, in this very process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Memory first: once the allocator is told to keep what is freed, it cannot be told otherwise.
    trials = [_memory()]
    trials.append(_rival("linear", "torch", "onednn", [_products(s, linear) for s in _PRODUCTS],
                         [_products(s, linear_onednn) for s in _PRODUCTS]))  # fmt: skip
    for name, dtype in (("attention_fp32", torch.float32), ("attention_bf16", torch.bfloat16)):
        ways = {"fused": attention_fused, "products": attention_products}
        default = DEFAULTS[name]
        rival = next(way for way in ways if way != default)
        runs = [[_attention(s, dtype, ways[way]) for s in _ATTENTIONS] for way in (default, rival)]
        trials.append(_rival(name, default, rival, *runs))
    if (stack_native := _native_stack()) is not None:
        ways = [[_stack(s, way) for s in _STACKS] for way in (stack_reference, stack_native)]
        trials.append(_rival("blocks_bf16", "torch", "native", *ways))
    single = [_products(s, linear) for s in _PRODUCTS]
    half = [_products(s, linear, torch.bfloat16) for s in _PRODUCTS]
    trials.append(_rival("precision", "fp32", "bf16", single, half, advice=True))
    if threads > 1:
        fewer = threads // 2
        trials.append(
            _rival("threads", str(threads), str(fewer), single,
                   [_with_threads(fewer, threads, run) for run in single], advice=True)
        )  # fmt: skip
    return trials


def _native_stack() -> Callable | None:
    """Return the compiled loops, where numba is here and takes the numpy that is here."""
    if not native.available():
        return None
    try:
        from mae_lib.kernels.stack_native import stack_native
    except ImportError:
        return None
    return stack_native


def interleaved(first: Callable[[], None], second: Callable[[], None]) -> np.ndarray:
    """Return time of `first` / time of `second` in each of `ROUNDS` rounds, taking turns."""
    repeats = []
    for run in (first, second):
        run()
        started = time.perf_counter()
        run()
        repeats.append(max(1, int(_INNER_SECONDS / (time.perf_counter() - started))))
    ratios = np.empty(ROUNDS)
    for round_ in range(ROUNDS):
        seconds = [0.0, 0.0]
        for which in ((0, 1), (1, 0))[round_ % 2]:
            run, count = (first, second)[which], repeats[which]
            started = time.perf_counter()
            for _ in range(count):
                run()
            seconds[which] = (time.perf_counter() - started) / count
        ratios[round_] = seconds[0] / seconds[1]
    return ratios


def _rival(choice, default, rival, defaults, rivals, *, advice: bool = False) -> Trial:
    """Compare shape by shape; the rival must pay on each of them."""
    found = [np.quantile(interleaved(a, b), (0.2, 0.5, 0.8))
             for a, b in zip(defaults, rivals, strict=True)]  # fmt: skip
    low, middle, high = min(found, key=lambda quantiles: quantiles[1])
    return Trial(
        choice=choice,
        default=default,
        rival=rival,
        ratio=round(float(middle), 3),
        low=round(float(low), 3),
        high=round(float(high), 3),
        taken=rival if middle >= MARGIN else default,
        advice=advice,
    )


def _products(shape: tuple[int, int, int], way: Callable, dtype=torch.float32) -> Callable:
    """Return one layer forward and backward."""
    rows, width, out = shape
    x = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(out, width, dtype=dtype, requires_grad=True)
    bias = torch.randn(out, dtype=dtype, requires_grad=True)
    grad = torch.randn(rows, out, dtype=dtype)

    def run() -> None:
        torch.autograd.grad(way(x, weight, bias), (x, weight, bias), grad)

    return run


def _attention(shape: tuple[int, int, int, int], dtype: torch.dtype, way: Callable) -> Callable:
    """Return one attention forward and backward."""
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    grad = torch.randn(shape, dtype=dtype)

    def run() -> None:
        torch.autograd.grad(way(q, k, v), (q, k, v), grad)

    return run


def _stack(shape: tuple[int, int], way: Callable) -> Callable:
    """Return two blocks forward and backward, weights cast as in training."""
    tokens, dim = shape
    plan = Plan(batch=64, heads=6, eps=1e-6)
    x, parameters = random_arguments(plan, tokens=tokens, dim=dim, depth=2)
    grad = torch.randn_like(x)

    def run() -> None:
        torch.autograd.grad(way(plan, x, parameters), (x, *parameters), grad)

    return run


def _with_threads(fewer: int, all_of_them: int, run: Callable[[], None]) -> Callable[[], None]:
    def with_fewer() -> None:
        torch.set_num_threads(fewer)
        run()
        torch.set_num_threads(all_of_them)

    return with_fewer


def _memory() -> Trial:
    """Compare blocks that go back to the system at once with blocks that stay; no bit depends on it,
    so it is kept whenever it does not lose."""

    def blocks() -> float:
        started = time.perf_counter()
        for _ in range(3):
            # As a step does: activations are held to its end, then all are freed.
            held = [torch.empty(2**18).fill_(1.0) for _ in range(100)]
            del held
        return time.perf_counter() - started

    blocks()
    given_back = [blocks() for _ in range(ROUNDS)]
    possible = keep_freed_memory()
    blocks()
    ratios = np.array(given_back) / np.array([blocks() for _ in range(ROUNDS)])
    low, middle, high = (round(float(q), 3) for q in np.quantile(ratios, (0.2, 0.5, 0.8)))
    taken = "kept" if possible and middle >= 1 else "given back"
    return Trial("memory", "given back", "kept", middle, low, high, taken)


if __name__ == "__main__":
    print(json.dumps([asdict(trial) for trial in measure(int(sys.argv[1]))]))
