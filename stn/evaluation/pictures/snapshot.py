"""The warps of a few images at one moment of training: a frame of a film, or a picture for trackers.

Imports no matplotlib, which takes half a second.
"""

import io

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from stn.data.stream import Stream
from stn.evaluation.pictures.subject import Subject
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row


def frame(s: Subject, row: Row, side: int = 84) -> Image.Image:
    """Return the images of a subject and, below them, their warps in a snapshot, each about ``side`` pixels wide."""
    x_BCHW = s.x_BCHW.float().cpu()  # as the network's constants are, whose transforms these are
    before = s.stream.as_image(x_BCHW)
    enlargement = -(-side // before.shape[-1])
    lines = [F.interpolate(x, before.shape[2:]) for x in (before, *s.warped(x_BCHW, s.recorded(row)))]
    cells = [F.pad(line.clamp(0, 1), (0, 1, 0, 1), value=0.5) for line in lines]
    table_CHW = torch.cat([torch.cat(list(line), 2) for line in cells], 1)
    table_CHW = F.interpolate(table_CHW[None] * 255, scale_factor=enlargement)[0].byte()
    pixels_HW3 = table_CHW.permute(1, 2, 0).expand(-1, -1, 3).contiguous()
    picture = Image.new("RGB", (pixels_HW3.shape[1], pixels_HW3.shape[0] + 18))
    picture.paste(Image.fromarray(pixels_HW3.numpy()), (0, 18))
    # The text differs between frames: two equal frames would become one.
    ImageDraw.Draw(picture).text((4, 3), f"epoch {row['epoch']:.3g}   step {row['step']}", fill="white")
    return picture


@torch.no_grad()
def snapshot_png(model: StackedModel, stream: Stream, row: Row) -> bytes:
    """Return a PNG of the warps whose parameters a row has."""
    network, count = model.template, len(row["theta"])
    assert isinstance(network, Transformed)
    buffer = io.BytesIO()
    frame(Subject(network, stream, "", list(range(count)), [row]), row, side=56).save(buffer, "PNG")
    return buffer.getvalue()
