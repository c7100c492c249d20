"""Writes matplotlib's figures as files: PNG and SVG, and PDF for a paper."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from stn.runs.files import write_atomic

KINDS = ("png", "svg")
FALLBACKS = ("Noto Sans CJK JP", "Noto Sans", "Arial Unicode MS", "Hiragino Sans", "MS Gothic", "WenQuanYi Zen Hei")
"""Fonts for labels in other scripts, used if they are installed."""
UNDATED = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata: without a date, equal figures are equal files."""
STYLE: Any = {"svg.hashsalt": "stn", "svg.fonttype": "none", "pdf.fonttype": 42}
"""Text stays text; publishers refuse Type 3 fonts."""


def save(figure: Figure, path: Path, kinds: Sequence[str] = KINDS) -> dict[str, bytes]:
    """Write a figure beside ``path`` in each format, and return their contents."""
    families = [*rcParams["font.family"], *(name for name in FALLBACKS if name in get_font_names())]
    contents = {}
    with rc_context({**STYLE, "font.family": families}), catch_warnings():
        filterwarnings("ignore", r"Glyph .* missing")  # a box in the PNG; the SVG has the text itself
        # Layout dominates the time, and once is enough for all formats. None, as "none" makes savefig draw twice.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
        figure.set_layout_engine(None)
        for kind in kinds:
            figure.savefig(buffer := io.BytesIO(), format=kind, dpi=130, metadata=UNDATED[kind])
            contents[kind] = buffer.getvalue()
            write_atomic(path.with_suffix(f".{kind}"), contents[kind])
    return contents
