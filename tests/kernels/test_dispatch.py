"""Where kernels are taken: by rule, by force, one at a time for measuring, and never by surprise."""

import os
import sys

import pytest
import torch

from mae_lib.errors import KernelError
from mae_lib.kernels import dispatch

FP32 = torch.float32


@pytest.fixture(autouse=True)
def free(monkeypatch):
    monkeypatch.delenv("MAE_KERNELS", raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="triton has wheels for Linux only")
def test_triton_is_here_so_that_no_kernel_goes_untested():
    assert dispatch.has_triton()
    assert torch.cuda.is_available() or os.environ["TRITON_INTERPRET"] == "1"


def test_a_cpu_takes_the_reference_and_a_gpu_the_kernel_but_for_float64():
    for name in dispatch.TRITON:
        assert not dispatch.takes_triton(name, "cpu", FP32)
        assert dispatch.takes_triton(name, "cuda", torch.bfloat16)
        assert not dispatch.takes_triton(name, "cuda", torch.float64)
    assert dispatch.chosen("add_norm", max, torch.zeros(1)) is max


def test_either_way_can_be_forced_and_other_words_are_refused(monkeypatch):
    monkeypatch.setenv("MAE_KERNELS", "reference")
    assert not dispatch.takes_any("cuda", FP32)
    monkeypatch.setenv("MAE_KERNELS", "fastest")
    with pytest.raises(KernelError, match="MAE_KERNELS: reference or triton, got 'fastest'"):
        dispatch.takes_triton("add_norm", "cuda", FP32)
    monkeypatch.setenv("MAE_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.takes_triton("add_norm", "cpu", FP32)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(KernelError, match="triton needs a CUDA device, got cpu; unset it, or set"):
        dispatch.takes_triton("add_norm", "cpu", FP32)


def test_without_triton_the_reference_is_taken_and_forcing_is_refused(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    monkeypatch.setattr(dispatch, "_loaded", {})
    assert not dispatch.takes_any("cuda", FP32)
    monkeypatch.setenv("MAE_KERNELS", "triton")
    with pytest.raises(KernelError, match="triton is forced and not installed here"):
        dispatch.takes_triton("add_norm", "cuda", FP32)
    with pytest.raises(KernelError, match="add_norm: triton is not installed here"):
        dispatch.triton_way("add_norm")


def test_one_kernel_can_be_taken_alone():
    with dispatch.only(["bias_gelu"]):
        assert dispatch.takes_triton("bias_gelu", "cuda", FP32)
        assert not dispatch.takes_triton("add_norm", "cuda", FP32)
    with dispatch.only([]):
        assert not dispatch.takes_any("cuda", FP32)
    assert dispatch.takes_triton("add_norm", "cuda", FP32)
    with pytest.raises(KernelError, match="can be chosen, got magic"), dispatch.only(["magic"]):
        pass
