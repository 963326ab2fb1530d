"""Checkpoints go out and come back in the names of facebookresearch/mae, timm and Hugging Face."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mae_lib.errors import KernelError, RecordError
from mae_lib.model.described import hf_config, model_from, own_section, ratio_of, sizes_of
from mae_lib.model.interchange import SPELLINGS, exported, load_tensors, recognise
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import keep_count, noise_of_order, order_of_noise
from mae_lib.study.models import MODELS, ModelShape

import timm  # isort: skip - after the shim

SHAPE = ModelShape(48, 3, 3, 32, 2, 2)
# The blocks of facebook/vit-mae-base as published, and facebookresearch/mae's: names are facts.
HF_BLOCK = {
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
    "layernorm_before",
    "layernorm_after",
}
MAE_BLOCK = {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}
HF_MODULES = {
    "vit.embeddings.patch_embeddings.projection",
    "vit.layernorm",
    "decoder.decoder_embed",
    "decoder.decoder_norm",
    "decoder.decoder_pred",
}
MAE_MODULES = {"patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred"}
HF_SINGLE = {
    "vit.embeddings.cls_token",
    "vit.embeddings.position_embeddings",
    "decoder.mask_token",
    "decoder.decoder_pos_embed",
}
MAE_SINGLE = {"cls_token", "pos_embed", "mask_token", "decoder_pos_embed"}  # fmt: skip


def published(places, block, modules, single):
    """Spell out the names of a checkpoint with one block in the encoder and one in the decoder."""
    modules = modules | {f"{place}.0.{part}" for place in places for part in block}
    return single | {f"{name}.{kind}" for name in modules for kind in ("weight", "bias")}


def build(shape=SHAPE, *, pixels=40, patch=4, seed=0, keep=None, norm_pix=True):
    tokens = (pixels // patch) ** 2
    model = MaskedAutoencoder(
        shape,
        pixels=pixels,
        patch_size=patch,
        keep=keep or keep_count(tokens, 0.8),
        norm_pix=norm_pix,
    ).initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def batch(model, seed=4):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, model.pixels, model.pixels, 3, generator=generator)
    return images, torch.rand(3, model.tokens, generator=generator)


def written(folder, model, spelling="hf", config=None):
    folder.mkdir()
    save_file(exported(model, spelling), folder / "model.safetensors", metadata={"format": "pt"})
    config = hf_config(sizes_of(model)) if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def same(left, right):
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_names_are_those_of_the_published_files():
    model = build(ModelShape(24, 1, 3, 16, 1, 2), pixels=16)
    places = ("vit.encoder.layer", "decoder.decoder_layers")
    assert set(exported(model, "hf")) == published(places, HF_BLOCK, HF_MODULES, HF_SINGLE)
    places = ("blocks", "decoder_blocks")
    assert set(exported(model, "mae")) == published(places, MAE_BLOCK, MAE_MODULES, MAE_SINGLE)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_recognised_and_comes_back_bit_for_bit(spelling):
    model, fresh = build(), build(seed=7)
    tensors = exported(model, spelling)
    assert recognise(tensors) == spelling
    load_tensors(fresh, tensors)
    assert same(model, fresh)


def test_queries_keys_and_values_are_cut_in_this_order():
    model = build()
    parts = [
        exported(model, "hf")[f"vit.encoder.layer.1.attention.attention.{name}.weight"]
        for name in ("query", "key", "value")
    ]
    assert torch.equal(torch.cat(parts), model.encoder.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize(
    ("name", "theirs", "pixels", "patch"),
    [
        ("vit_tiny", "vit_tiny_patch16_224", 32, 8),
        ("vit_small", "vit_small_patch16_224", 32, 16),
        ("vit_hybrid", "vit_base_r50_s16_224", 64, 16),
    ],
)
def test_a_trained_encoder_loads_strictly_into_timms_model(name, theirs, pixels, patch):
    shape = MODELS[name]
    # All blocks are alike, so the slow hybrid is asked with two; tests/model/test_hybrid.py has all.
    depth = 2 if shape.stem else shape.depth
    model = build(ModelShape(shape.embed_dim, depth, shape.num_heads, 16, 1, 2, shape.stem),
                  pixels=pixels, patch=patch, keep=1)  # fmt: skip
    size = {"depth": depth} | ({} if shape.stem else {"patch_size": patch})
    with torch.device("meta"):
        encoder = timm.create_model(theirs, num_classes=0, img_size=pixels, **size).eval()
    encoder.load_state_dict(model.encoder.state_dict(), strict=True, assign=True)
    images, _ = batch(model)
    with torch.no_grad():
        expected = encoder.forward_features(images.permute(0, 3, 1, 2))
        torch.testing.assert_close(model.encode(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "patch"), [("vit_base", 16), ("vit_large", 16), ("vit_huge", 14)])
def test_the_large_encoders_have_timms_names_and_shapes(name, patch):
    with torch.device("meta"):
        model = MaskedAutoencoder(MODELS[name], pixels=224, patch_size=14, keep=51)
        theirs = timm.create_model(f"{name}_patch{patch}_224", num_classes=0, patch_size=14)
    ours = {n: t.shape for n, t in model.encoder.state_dict().items()}
    assert ours == {n: t.shape for n, t in theirs.state_dict().items()}


def test_noise_gives_the_order_that_others_draw_from_it_and_back():
    noise = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    order = order_of_noise(noise)
    assert torch.equal(order, torch.argsort(noise, dim=1))
    assert torch.equal(order_of_noise(noise_of_order(order)), order)
    assert order_of_noise(torch.zeros(1, 5)).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("tokens", "keep"), [(64, 12), (100, 19), (100, 20), (196, 49), (4, 1)])
def test_the_mask_ratio_written_for_hugging_face_keeps_as_many_patches(tokens, keep):
    side = int(tokens**0.5)
    model = build(ModelShape(24, 1, 3, 16, 1, 2), pixels=4 * side, keep=keep)
    ratio = ratio_of(sizes_of(model))
    assert int(tokens * (1 - ratio)) == keep


@pytest.mark.parametrize("spelling", ["hf", "mae", "ours"])
def test_a_folder_rebuilds_the_model_from_its_config(tmp_path, spelling):
    model = build(keep=20, norm_pix=False)
    config = None if spelling == "hf" else {"masked_autoencoder": own_section(sizes_of(model))}
    again = model_from(written(tmp_path / "m", model, spelling, config))
    assert same(model, again)
    assert sizes_of(again) == sizes_of(model)
    images, noise = batch(model)
    assert torch.equal(model(images, order_of_noise(noise)), again(images, order_of_noise(noise)))


def test_a_checkpoint_without_config_is_read_by_its_shapes(tmp_path):
    shape = ModelShape(192, 6, 3, 128, 2, 4)  # vit_tiny_d6
    model = build(shape, pixels=16)
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": exported(model, "mae"), "epoch": torch.tensor(3)}, path)
    assert same(model, model_from(path))


def test_an_encoder_alone_is_read_when_it_is_asked_for(tmp_path):
    model = build(ModelShape(192, 6, 3, 128, 2, 4), pixels=16)
    path = tmp_path / "encoder.safetensors"
    save_file({n: t.clone() for n, t in model.encoder.state_dict().items()}, path)
    again = model_from(path)
    images, _ = batch(model)
    assert torch.equal(model.encode(images), again.encode(images))
    with pytest.raises(RecordError, match=r"mask_token: missing.*decoder=False"):
        model_from(path, decoder=True)


def change(tensors, name, value):
    return {**{n: t for n, t in tensors.items() if n != name}, **({name: value} if value is not
                                                                  None else {})}  # fmt: skip


BAD = {
    "another width": ("blocks.1.attn.qkv.weight", torch.zeros(96, 32),
                      r"blocks.1.attn.qkv.weight: of another .* got \[96, 32\], wanted \[144, 48\]"),
    "another size": ("pos_embed", torch.zeros(1, 65, 48),
                     r"pos_embed: of another architecture or image size, got \[1, 65, 48\]"),
    "one missing": ("norm.bias", None, r"norm.bias: missing in the checkpoint, wanted \[48\]"),
    "one too many": ("blocks.3.norm1.weight", torch.ones(48),
                     r"blocks.3.norm1.weight: of another architecture"),
    "other positions": ("decoder_pos_embed", torch.zeros(1, 101, 32),
                        r"decoder_pos_embed: not the fixed sine-cosine table"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_another_architecture_names_the_tensor_and_leaves_the_model_as_it_was(kind):
    name, value, message = BAD[kind]
    model, before = build(), build()
    with pytest.raises(RecordError, match=message) as caught:
        load_tensors(model, change(exported(build(seed=5), "mae"), name, value))
    assert caught.value.exit_code == 2
    assert same(model, before)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "hidden_size",
            10**7,
            r"cls_token: of another .* got \[1, 1, 48\], wanted \[1, 1, 10000000\]",
        ),
        (
            "image_size",
            80,
            r"position_embeddings: of another .* got \[1, 101, 48\], wanted \[1, 401",
        ),
        ("num_hidden_layers", 10**6, "1000002 blocks for"),
        (
            "num_hidden_layers",
            4,
            r"layer.3.norm.* missing|layer.3.layernorm_before.weight: missing",
        ),
        ("mask_ratio", 1.5, "config.json|patches visible"),
        ("patch_size", 0, "config.json: not of ViTMAE"),
        ("hidden_size", "wide", "config.json: not of ViTMAE"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors_ends_in_one_line(tmp_path, field, value, message):
    model = build()
    config = {**hf_config(sizes_of(model)), field: value}
    with pytest.raises(RecordError, match=message) as caught:
        model_from(written(tmp_path / "m", model, "hf", config))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_hybrid_has_no_name_in_vitmae_and_a_resnet_is_no_masked_autoencoder():
    stem = MODELS["vit_hybrid"].stem
    model = build(ModelShape(24, 1, 3, 16, 1, 2, stem), pixels=64, patch=16, keep=3)
    with pytest.raises(RecordError, match="convolutional stem is timm's"):
        exported(model, "hf")
    with pytest.raises(RecordError, match=r"no vision transformer.*conv1.weight"):
        recognise(["conv1.weight", "layer1.0.conv1.weight"])


def test_images_of_another_size_are_refused_in_one_line():
    model = build()
    _, noise = batch(model)
    for call in (lambda x: model(x, order_of_noise(noise)), model.encode):
        with pytest.raises(KernelError, match=r"\[batch, 40, 40, 3\].* got \[3, 44, 44, 3\]"):
            call(torch.zeros(3, 44, 44, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm_pix", [True, False])
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(tmp_path, norm_pix):
    transformers = pytest.importorskip(
        "transformers", reason='transformers is not installed: pip install "mae-lib[peers]"'
    )
    model = build(norm_pix=norm_pix)
    images, noise = batch(model)
    folder = written(tmp_path / "ours", model)
    theirs, found = transformers.ViTMAEForPreTraining.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(found.values())
    expected = model(images, order_of_noise(noise)).item()
    loss = theirs(pixel_values=images.permute(0, 3, 1, 2), noise=noise).loss.item()
    assert abs(loss - expected) <= 1e-6 * expected
    theirs.save_pretrained(tmp_path / "theirs")
    in_memory = build(seed=9, norm_pix=norm_pix)
    load_tensors(in_memory, theirs.state_dict())
    for again in (model_from(tmp_path / "theirs"), in_memory):
        assert same(model, again)
        assert again(images, order_of_noise(noise)).item() == expected
