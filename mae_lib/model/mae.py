"""The masked auto-encoder: exact, and nothing computed that the loss does not read.

Against the textbook form (reference.py) four things are rearranged, none of them approximated:
only visible patches are embedded; the decoder works on tokens in shuffled order with gathered
positions, since attention does not see order; its last block computes masked tokens only; head
and loss see masked tokens only.
Source: He et al. 2022 (arXiv 2111.06377); the algebra is proved in tests/model/test_mae.py.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mae_lib.errors import KernelError
from mae_lib.kernels.choose import linear_now
from mae_lib.kernels.loss import TARGET_EPS, masked_error, normalise_patches
from mae_lib.kernels.patches import gather_patches, patchify, unpatchify
from mae_lib.model.block import run_stack
from mae_lib.model.encoders import NORM_EPS, build_encoder
from mae_lib.model.hybrid import initialise_stem, tile_tokens, visible_tokens
from mae_lib.model.positions import sincos_positions
from mae_lib.model.timm_modules import Block
from mae_lib.study.models import ModelShape

CHANNELS = 3


def compute_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype that master weights are cast to for products; None: their own."""
    return torch.bfloat16 if precision in ("bf16", "fp8") else None


def residual_dtype(residual: str, precision: str) -> torch.dtype | None:
    """Return the dtype of the residual stream, None for that of products; it is never narrower."""
    return torch.float32 if residual == "fp32" and compute_dtype(precision) else None


class MaskedAutoencoder(torch.nn.Module):
    """A timm encoder and a light decoder that predicts the pixels of masked patches.

    `pixels` is the side of square images, or (height, width); `channels` are those of an image.
    Raises: KernelError for sizes that cannot be cut or masked.
    """

    def __init__(
        self,
        shape: ModelShape,
        *,
        pixels: int | tuple[int, int],
        patch_size: int,
        keep: int,
        channels: int = CHANNELS,
        norm_pix: bool = True,
        decoder_dim: int | None = None,
        decoder_depth: int | None = None,
        decoder_heads: int | None = None,
        compute_dtype: torch.dtype | None = None,
        residual_dtype: torch.dtype | None = None,
    ):
        super().__init__()
        height, width = (pixels, pixels) if isinstance(pixels, int) else pixels
        self.rows, self.columns = height // patch_size, width // patch_size
        self.tokens = self.rows * self.columns
        cut = height % patch_size or width % patch_size
        if cut or not 0 < keep < self.tokens:
            raise KernelError(
                "model: patch_size must divide pixels, and at least one patch be visible and one "
                f"masked, got patch_size {patch_size}, pixels {pixels}, keep {keep}",
                exit_code=2,
            )
        self.patch_size, self.keep, self.norm_pix = patch_size, keep, norm_pix
        self.shape, self.has_stem = shape, shape.stem is not None
        # Height, width and channels of an image.
        self.image_shape = (height, width, channels)
        dim = decoder_dim or shape.decoder_dim
        values = patch_size**2 * channels
        norm_layer = functools.partial(torch.nn.LayerNorm, eps=NORM_EPS)
        self.encoder = build_encoder(shape, pixels=pixels, patch_size=patch_size, channels=channels)
        self.decoder_embed = torch.nn.Linear(shape.embed_dim, dim)
        self.mask_token = torch.nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_blocks = torch.nn.ModuleList(
            Block(dim, decoder_heads or shape.decoder_heads, qkv_bias=True, norm_layer=norm_layer)
            for _ in range(decoder_depth or shape.decoder_depth)
        )
        self.decoder_norm = norm_layer(dim)
        self.decoder_pred = torch.nn.Linear(dim, values)
        positions = sincos_positions(dim, self.rows, self.columns).float()
        self.register_buffer("decoder_pos_embed", positions, persistent=False)
        # None: the stream between blocks is kept in the dtype of products.
        self.compute_dtype, self.residual_dtype = compute_dtype, residual_dtype
        # Sharding and activation checkpointing put themselves around a block here.
        self.run_block: Callable[..., Tensor] | None = None

    @property
    def pixels(self) -> int:
        """The side of the square images that the grid trains on.

        Raises: KernelError for a model of other images, which no format of ours describes.
        """
        height, width, channels = self.image_shape
        if height != width or channels != CHANNELS:
            raise KernelError(
                f"model: square images of {CHANNELS} channels are wanted here, got "
                f"{height} x {width} x {channels}",
                exit_code=2,
            )
        return height

    def initialise(self, seed: int) -> "MaskedAutoencoder":
        """Draw every weight from `seed` alone: Xavier for matrices, 0.02 normal for tokens."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.xavier_uniform_(module.weight, generator=generator)
                torch.nn.init.zeros_(module.bias)
        embed = self.encoder.patch_embed.proj
        flat = embed.weight.data.view(embed.weight.shape[0], -1)
        torch.nn.init.xavier_uniform_(flat, generator=generator)
        torch.nn.init.zeros_(embed.bias)
        for token in (self.encoder.cls_token, self.mask_token):
            torch.nn.init.normal_(token, std=0.02, generator=generator)
        if self.has_stem:
            initialise_stem(self.encoder.patch_embed.backbone, generator)
        return self

    @property
    def takes_patches(self) -> bool:
        """Whether `forward` takes patches for images: no stem looks beyond the visible ones."""
        return not self.has_stem or self.shape.stem_tiles

    def forward(
        self,
        images: Float[Tensor, "B height width C"] | Float[Tensor, "B L ppC"],
        order: Int[Tensor, "B L"],
    ) -> Float[Tensor, ""]:
        """Return the mean squared error on the masked patches of normalised images.

        `order` lists each image's patches; the first `keep` are visible. From the noise of another
        implementation it comes by `masking.order_of_noise`. Instead of images, their patches may
        come, cut out in that order (`takes_patches`).
        """
        if images.ndim == 3 and self.takes_patches:
            patches = images
        else:
            self._require_size(images)
            patches = gather_patches(images, order, self.patch_size)
        predicted = self._predict(self.embed(images, patches[:, : self.keep], order), order)
        return masked_error(predicted, patches[:, self.keep :], self.norm_pix)

    def targets(self, patches: Float[Tensor, "B M ppC"]) -> Float[Tensor, "B M ppC"]:
        """Return what is predicted: pixels, or pixels scaled by each patch's mean and SD."""
        return normalise_patches(patches) if self.norm_pix else patches

    def encode(self, images: Float[Tensor, "B height width C"]) -> Float[Tensor, "B tokens D"]:
        """Return the normed class and patch tokens of whole images."""
        self._require_size(images)
        patches = patchify(images, self.patch_size)
        batch = images.shape[0]
        order = torch.arange(self.tokens, device=images.device).expand(batch, -1)
        tokens = self._encode(self.embed(images, patches, order), order)
        return tokens.view(batch, self.tokens + 1, -1)

    def reconstruct(
        self, images: Float[Tensor, "B height width C"], order: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B height width C"]:
        """Return normalised images with their masked patches predicted, visible ones pasted.

        With normalised targets the prediction is scaled back by the true patch's mean and SD.
        """
        self._require_size(images)
        patches = gather_patches(images, order, self.patch_size)
        masked = patches[:, self.keep :]
        visible = self.embed(images, patches[:, : self.keep], order)
        predicted = self._predict(visible, order).to(patches.dtype)
        if self.norm_pix:
            variance, mean = torch.var_mean(masked, dim=-1, keepdim=True)
            predicted = predicted * torch.sqrt(variance + TARGET_EPS) + mean
        filled = torch.cat([patches[:, : self.keep], predicted], dim=1)
        index = order[..., None].expand_as(filled)
        return unpatchify(
            torch.zeros_like(filled).scatter_(1, index, filled), self.patch_size, self.columns
        )

    def _require_size(self, images: Tensor) -> None:
        """Images of another size would be cut along the wrong grid without a word."""
        if images.shape[1:] != self.image_shape:
            raise KernelError(
                f"images: [batch, {', '.join(map(str, self.image_shape))}] is what this model "
                f"takes, got {list(images.shape)}",
                exit_code=2,
            )

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor if self.compute_dtype is None else tensor.to(self.compute_dtype)

    def _stream(self, tensor: Tensor) -> Tensor:
        """Turn what enters the residual stream into the stream's dtype."""
        return self._cast(tensor) if self.residual_dtype is None else tensor.to(self.residual_dtype)

    def embed(
        self,
        images: Float[Tensor, "B *image"],
        patches: Float[Tensor, "B K ppC"],
        order: Int[Tensor, "B L"],
    ) -> Float[Tensor, "B K D"]:
        """Embed the first K patches of `order`, given cut out; no other pixel is read.

        A convolutional stem takes the images themselves, every other patch of them filled, or as
        tiles the patches alone.
        """
        batch, count, values = patches.shape
        embed = self.encoder.patch_embed
        if self.shape.stem_tiles:
            tokens = tile_tokens(embed, patches, patch=self.patch_size, dtype=self.compute_dtype)
            return self._cast(tokens)
        if self.has_stem:
            tokens = visible_tokens(
                embed, images, order, keep=count, patch=self.patch_size, dtype=self.compute_dtype
            )
            return self._cast(tokens)
        weight = embed.proj.weight.permute(0, 2, 3, 1).reshape(-1, values)
        rows = self._cast(patches).reshape(batch * count, values)
        tokens = linear_now()(rows, self._cast(weight), self._cast(embed.proj.bias))
        return tokens.view(batch, count, -1)

    def _encode(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Encode embedded patches: rows of [class token, patches] an image."""
        batch, count, _ = tokens.shape
        encoder = self.encoder
        positions = self._stream(encoder.pos_embed[0])
        x = self._stream(tokens) + positions[order[:, :count] + 1]
        first = self._stream(encoder.cls_token[0]) + positions[:1]
        x = torch.cat([first.expand(batch, 1, -1), x], dim=1).reshape(batch * (count + 1), -1)
        run = self.run_block
        return run_stack(encoder.blocks, encoder.norm, x, batch=batch, cast=self._cast, run=run)

    def _predict(self, visible: Tensor, order: Tensor) -> Tensor:
        """Decode: from embedded visible patches to the values of the masked ones `[B, M, ppC]`."""
        batch, masked, linear = len(order), self.tokens - self.keep, linear_now()
        encoded = self._encode(visible, order)
        embed = self.decoder_embed
        known = linear(encoded, self._cast(embed.weight), self._cast(embed.bias))
        known = self._stream(known.view(batch, self.keep + 1, -1))
        dim = known.shape[-1]
        unknown = self._stream(self.mask_token).expand(batch, masked, dim)
        place = torch.cat([torch.zeros_like(order[:, :1]), order + 1], dim=1)
        x = torch.cat([known, unknown], dim=1) + self._stream(self.decoder_pos_embed)[place]
        x = x.reshape(-1, dim)
        x = run_stack(
            self.decoder_blocks,
            self.decoder_norm,
            x,
            batch=batch,
            cast=self._cast,
            queries=masked,
            run=self.run_block,
        )
        head = self.decoder_pred
        values = linear(x, self._cast(head.weight), self._cast(head.bias))
        return values.view(batch, masked, -1)
