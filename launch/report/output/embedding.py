"""The pictures of runs that a page contains, as data URLs; those beyond a size are linked."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from launch.report.analysis.sections import Section

MOST_BYTES = 5_000_000
"""Size of the pictures embedded in a page; further ones are linked."""


class Embedded(NamedTuple):
    """The pictures that are embedded in a page."""

    urls: dict[Path, str]
    linked: int
    """How many others there are."""


def data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed_pictures(sections: Sequence[Section]) -> Embedded:
    """Return the pictures as data URLs by path, in the order of the page, as long as there is room."""
    urls, left = dict[Path, str](), MOST_BYTES
    groups = [pictures for section in sections for pictures in section.pictures.values()]
    paths = dict.fromkeys(picture.path for pictures in groups for picture in pictures)
    for path in paths:
        with suppress(OSError):
            content = path.read_bytes()
            if len(content) <= left:
                left -= len(content)
                urls[path] = data_url(content, "png")
    return Embedded(urls, len(paths) - len(urls))
