"""A picture as a notebook output, with its text alternative."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """PNG bytes that notebooks show by an HTML image."""

    png: bytes
    alt: str

    def _repr_html_(self) -> str:
        source = base64.b64encode(self.png).decode()
        text = html.escape(self.alt, quote=True)
        return f'<img class="picture" alt="{text}" src="data:image/png;base64,{source}">'

    def __repr__(self) -> str:
        return self.alt


def picture(png: bytes, *, alt: str) -> Picture:
    """Return a PNG as a notebook output."""
    return Picture(png, alt)


def pictures(pngs: Sequence[bytes], *, alt: str) -> list[Picture]:
    """Return PNGs as notebook outputs, none where there is none."""
    return [Picture(png, alt) for png in pngs]
