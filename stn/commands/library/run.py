"""One run: what was trained, how it went, and the trained networks.

Imports torch only when a network is asked for.
"""

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stn.commands.library.tables import run_dirs
from stn.config.dataset import build_dataset, forget_files
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.yaml_files import load_yaml, overlay
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_json
from stn.runs.predictions import Answers, KnownImages, read_answers, read_images

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stn.data.stream import Stream

ONE_PROCESS = {"processes": None, "parallel": "auto"}
"""Keys of train for one process, whatever a run was trained with."""
PREDICT_BATCH = 250
"""Images per batch of predict."""


class Run:
    """A run directory: what was trained, how it went, and the trained networks."""

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDir(path)
        if not self.directory.config.is_file():
            raise ValueError(f"{path} is no run directory: it has no config.yaml")
        self._networks: dict[int, nn.Module] = {}

    def __repr__(self) -> str:
        config = self.config
        return f"<Run {self.path}: {config.arch.name} on {config.data.label}, finished seeds {self.seeds}>"

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @cached_property
    def config(self) -> Config:
        """The resolved configuration, for one process; its data root is left open where that folder is gone."""
        config = change(load_yaml(self.directory.config), train=ONE_PROCESS)
        if config.data.root and not Path(config.data.root).is_dir():
            config = change(config, data={"root": None})
        known = read_json(self.directory.env).get("data")
        content = known.get("content") if isinstance(known, dict) else None
        if ":" in config.data.name and content not in (None, build_dataset(config.data.name).content):
            forget_files()
        if ":" in config.data.name and content not in (None, build_dataset(config.data.name).content):
            raise ValueError(f"{self.path} was trained on other images than {config.data.name} has now")
        return resolve(config)

    @cached_property
    def rows(self) -> list[Row]:
        """The result rows of the seeds that have finished or failed, in the order of the seeds."""
        return [row for _, row in sorted(self.directory.rows().items())]

    @property
    def finished(self) -> list[Row]:
        """The result rows of the seeds that have finished."""
        return [row for row in self.rows if row["status"] == "finished"]

    @property
    def seeds(self) -> list[int]:
        """The seeds that have finished."""
        return [row["seed"] for row in self.finished]

    @cached_property
    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl: training, evaluations, transforms and poses."""
        return self.directory.read_metrics()

    def row(self, seed: int | None = None) -> Row:
        """Return the result row of a finished seed; by default of the first."""
        for row in self.finished:
            if seed in (None, row["seed"]):
                return row
        which = "finished seed" if seed is None else f"finished seed {seed}; finished: {self.seeds}"
        raise ValueError(f"{self.path} has no {which}")

    def answers(self, seed: int | None = None) -> Answers:
        """Return the answers of a seed's network to the test images, as arrays; by default the first seed's.

        ``predicted_N`` are classes, ``margin_N`` the probability of the true class less the largest other. ValueError
        for a run that kept none, or whose file is missing or damaged.
        """
        row = self.row(seed)
        if not row.get("predictions"):
            raise ValueError(f"{self.path} kept no answers of seed {row['seed']}: it was trained by an older version")
        return read_answers(self.path, row)

    def known_images(self) -> KnownImages:
        """Return the labels and applied poses of the test images, and the pixels of those that are hardest."""
        return read_images(self.path)

    def model(self, seed: int | None = None) -> "nn.Module":
        """Return a seed's network with its final weights, on the CPU, for evaluation; by default the first seed's.

        It takes normalised images; ``predict`` takes them as they are.
        """
        import torch

        from stn.data.rng import initialised
        from stn.evaluation.foreign_weights import fit
        from stn.models.build import build_network
        from stn.training.checkpoints import load_final

        row = self.row(seed)
        network = initialised(partial(build_network, self.config), row["seed"])  # it may keep what it draws
        network.eval()
        network.to(torch.float64 if self.config.train.precision == "fp64" else torch.float32)
        network.load_state_dict(fit(load_final(self.directory, row), network))
        return network

    def predict(self, images: Any, seed: int | None = None) -> "Tensor":
        """Return the probability of each class, [B, classes], by a seed's network; by default the first seed's.

        With ``eval.mirror`` each image is seen with its mirror image, as when it was scored.

        Args:
            images: Tensor or array [B, C, H, W] or one image [C, H, W], without C too where it is 1; bytes, or floats
                from 0 to 1.
            seed: A finished seed.
        """
        import torch

        which: int = self.row(seed)["seed"]
        if which not in self._networks:
            self._networks[which] = self.model(which)
        network, dataset = self._networks[which], build_dataset(self.config.data.name)
        x_BCHW = self._as_batch(torch.as_tensor(images), dataset.shape)
        mean, std = dataset.test_mean_std or (dataset.mean, dataset.std)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        x_BCHW = ((x_BCHW - mean) / std).to(next(network.parameters()).dtype)
        with torch.no_grad():
            logits_BK = torch.cat([network(part) for part in x_BCHW.split(PREDICT_BATCH)])
            if self.config.eval.mirror:
                flipped = [network(part) for part in x_BCHW.flip(-1).split(PREDICT_BATCH)]
                logits_BK = (logits_BK + torch.cat(flipped)) / 2
        return logits_BK.softmax(-1)

    def _as_batch(self, images: "Tensor", shape: tuple[int, int, int]) -> "Tensor":
        """Return images as [B, C, H, W], from 0 to 1."""
        C, H, W = shape
        plain = C == 1 and images.shape[-2:] == (H, W) and images.ndim < 4 and images.shape != shape
        x_BCHW = images.unsqueeze(-3) if plain else images
        x_BCHW = x_BCHW.unsqueeze(0) if x_BCHW.ndim == 3 else x_BCHW
        if x_BCHW.ndim != 4 or x_BCHW.shape[1:] != shape:
            raise ValueError(
                f"images of shape {[*images.shape]} do not fit {self.config.data.label}: [B, {C}, {H}, {W}]"
            )
        if not x_BCHW.is_floating_point():
            return x_BCHW.float() / 255
        if len(x_BCHW) and not (x_BCHW.min() >= 0 and x_BCHW.max() <= 1):
            raise ValueError("images that are floats must be from 0 to 1; give bytes, or divide by 255")
        return x_BCHW.float()

    @cached_property
    def _stream(self) -> "Stream":
        from stn.data.stream import Stream

        return Stream(self.config.data, build_dataset(self.config.data.name), self.seeds[:1] or [0])

    def test_images(self, count: int) -> "tuple[Tensor, Tensor]":
        """Return the first images that the run was evaluated on, from 0 to 1, and their classes."""
        import torch

        batch = self._stream.test_images(torch.arange(min(count, self._stream.test_count)))
        return self._stream.as_image(batch.x_BCHW).clamp(0, 1), batch.y_B


def change(config: Config, **sections: dict[str, Any]) -> Config:
    """Return a configuration with some keys of its sections replaced."""
    return Config(**overlay(config.model_dump(), sections))  # type: ignore[arg-type]


def load(path: str | Path) -> Run:
    """Return the run at a path, or the only one below it."""
    if (Path(path) / "config.yaml").is_file():
        return Run(path)
    runs = run_dirs((path,))
    if len(runs) > 1:
        names = ", ".join(str(run.path) for run in runs[:3]) + ", ..." * (len(runs) > 3)
        raise ValueError(f"{path} has {len(runs)} run directories; name one: {names}")
    return Run(runs[0].path)
