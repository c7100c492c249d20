"""The pictures of a run, as PNG, from its directory alone: curves, confusion matrix, warped images."""

from pathlib import Path

import torch

from stn.archs import build_model
from stn.archs.wirings import Transformed
from stn.checkpoint import load_final
from stn.config import steps_of
from stn.data.stream import Stream
from stn.log import warn
from stn.resolve import build_dataset
from stn.rundir import RunDir, read_rows, write_atomic
from stn.schema import Config

SHOWN = 12


def draw(config: Config, run: RunDir) -> None:
    """All pictures; whatever fails here costs the pictures only."""
    try:
        import matplotlib  # imported when pictures are drawn: half a second

        matplotlib.use("Agg")
        _curves(config, run)
        _confusion(config, run)
        _warps(config, run)
    except Exception as error:  # see the docstring
        warn(f"no pictures: {type(error).__name__}: {error}")


def _save(figure, path: Path) -> None:
    import io

    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def _title(config: Config, n: int) -> str:
    return f"{config.arch.name} on {config.data.name}, {n} seed{'s' * (n != 1)}"


def _curves(config: Config, run: RunDir) -> None:
    import matplotlib.pyplot as plt

    every = steps_of(config.log.every, 1)
    rows = [r for r in read_rows(run.metrics) if r["kind"] == "eval" or r["step"] % every == 0 or r["step"] < every]
    seeds = sorted({row["seed"] for row in rows})
    split = "val" if config.data.validation else "test"
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for seed in seeds:
        for axis, train_key, eval_key in ((axes[0], "loss", f"{split}_loss"), (axes[1], "acc", f"{split}_acc")):
            for kind, key, colour in (("train", train_key, "tab:blue"), ("eval", eval_key, "tab:orange")):
                points = [(r["epoch"], r[key]) for r in rows if r["seed"] == seed and r["kind"] == kind]
                label = {"train": "training", "eval": split}[kind] if seed == seeds[0] else None
                sign = 1 if key.endswith("loss") else -1
                values = [v if sign > 0 else 1 - v for _, v in points]
                marker = "o" if kind == "eval" else None
                axis.plot([e for e, _ in points], values, color=colour, marker=marker, ms=4, lw=1.2, label=label)
    for axis, name in zip(axes, ("loss", "error"), strict=True):
        axis.set(xlabel="epoch", ylabel=name, yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.suptitle(_title(config, len(seeds)))
    _save(figure, run.pictures / "curves.png")


def _confusion(config: Config, run: RunDir) -> None:
    import matplotlib.pyplot as plt

    matrices = [row["confusion"] for row in read_rows(run.results) if row.get("confusion")]
    if not matrices:
        return
    mean = torch.tensor(matrices).double().mean(0)
    share = mean / mean.sum(1, keepdim=True).clamp(min=1)
    figure, axis = plt.subplots(figsize=(6, 5.4))
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, line in enumerate(mean.tolist()):
        for j, value in enumerate(line):
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, f"{value:.4g}" if value else "", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(len(matrices[0]))
    axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axis.set_title(f"{_title(config, len(matrices))}: images, mean over seeds", fontsize=10)
    _save(figure, run.pictures / "confusion.png")


def _warps(config: Config, run: RunDir) -> None:
    """Test images and what the classifier sees of them, for the first seed that finished."""
    import matplotlib.pyplot as plt

    done = [row["seed"] for row in read_rows(run.results) if row["status"] == "finished"]
    dataset = build_dataset(config.data.name)
    model = build_model(config.arch, dataset.shape, dataset.classes)
    if not done or not isinstance(model, Transformed):
        return
    model.load_state_dict(load_final(run, done[0]))
    stream = Stream(config.data, dataset, [done[0]])
    with torch.no_grad():
        images = stream.test_images(torch.arange(min(SHOWN, stream.test_count)))
        after = model.float().eval().warps(images.x_BCHW)[-1].image_BCHW
    # Where a feature map was warped, its channels' mean is shown.
    after = after.mean(1, keepdim=True) if model.at[-1] else stream.as_image(after)
    before = stream.as_image(images.x_BCHW)
    figure, axes = plt.subplots(2, len(before), figsize=(len(before), 2.4), squeeze=False)
    for line, pictures in zip(axes, (before, after), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture.clamp(0, None).permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("before")
    axes[1, 0].set_ylabel("after")
    figure.suptitle(f"{config.arch.name} on {config.data.name}, seed {done[0]}", fontsize=10)
    _save(figure, run.pictures / "warp.png")
