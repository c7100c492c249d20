"""Curves and confusion matrix, over all seeds of a run."""

import torch
from matplotlib.figure import Figure

from stn.config.fields import steps_of
from stn.config.schema import Config
from stn.runs.directory import RunDir
from stn.runs.files import read_rows


def _title(config: Config, n: int) -> str:
    return f"{config.arch.name} on {config.data.name}, {n} seed{'s' * (n != 1)}"


def curves(config: Config, run: RunDir) -> Figure:
    every = steps_of(config.log.every)
    rows = [r for r in read_rows(run.metrics) if r["kind"] == "eval" or r["step"] % every == 0 or r["step"] < every]
    seeds = sorted({row["seed"] for row in rows})
    split = config.data.split
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
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
    return figure


def confusion(config: Config, run: RunDir) -> Figure | None:
    matrices = [row["confusion"] for row in read_rows(run.results) if row.get("confusion")]
    if not matrices:
        return None
    mean = torch.tensor(matrices).double().mean(0)
    share = mean / mean.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(6, 5.4))
    axis = figure.subplots()
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, line in enumerate(mean.tolist()):
        for j, value in enumerate(line):
            colour = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, f"{value:.4g}" if value else "", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(len(matrices[0]))
    axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axis.set_title(f"{_title(config, len(matrices))}: images, mean over seeds", fontsize=10)
    return figure
