"""The residual stream in fp32 under bf16 products: nearer to the exact loss, another cell by name."""

import dataclasses

import numpy as np
import pytest
import torch

from mae_lib.kernels import dispatch
from mae_lib.model import block
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype, residual_dtype
from mae_lib.model.masking import patch_order
from mae_lib.study.definition import Recipe, settings_of
from mae_lib.study.models import ModelShape

SHAPE = ModelShape(64, 12, 2, 64, 4, 2)


def model(precision, residual="compute"):
    built = MaskedAutoencoder(
        SHAPE,
        pixels=32,
        patch_size=4,
        keep=12,
        compute_dtype=compute_dtype(precision),
        residual_dtype=residual_dtype(residual, precision),
    )
    return built.initialise(0)


def inputs():
    images = torch.randn(4, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    return images, patch_order(0, np.arange(4), 0, 64)


def test_the_wider_stream_loses_less():
    images, order = inputs()
    with torch.no_grad():
        exact = model("fp64").double().encode(images.double())
        off = {
            residual: (model("bf16", residual).encode(images).double() - exact).norm().item()
            for residual in ("compute", "fp32")
        }
    assert off["fp32"] < 0.8 * off["compute"]
    loss = model("bf16", "fp32")(images, order)
    loss.backward()
    assert torch.isfinite(loss)


def test_blocks_and_their_fused_form_agree_on_a_wide_stream(monkeypatch):
    images, order = inputs()
    plain = model("bf16", "fp32")(images, order)
    # The fused form by its references: what a device runs, less its kernels.
    monkeypatch.setattr(block, "takes_any", lambda *_: True)
    with dispatch.only(()):
        fused = model("bf16", "fp32")(images, order)
    torch.testing.assert_close(fused, plain, rtol=2**-8, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_where_products_are_as_wide_nothing_changes(precision):
    assert residual_dtype("fp32", precision) is None


def test_the_default_is_in_no_digest_and_the_change_is():
    recipe = Recipe()
    assert "residual" not in settings_of(recipe)
    assert settings_of(dataclasses.replace(recipe, residual="fp32"))["residual"] == "fp32"
