"""One finished network as files that others can load: weights, model card, TorchScript, ONNX.

python -m stn export RUN [--seed N] [--out DIR] [--onnx]. Torch captures the network once, with any
batch size; TorchScript and ONNX are made from that. B batch, C channel, H, W.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stn.commands.check import mflop
from stn.commands.evaluate import open_run
from stn.config import registry
from stn.config.command_line import fail
from stn.config.dataset import Dataset, build_dataset
from stn.config.schema import Config
from stn.config.signature import signature
from stn.data.stream import Stream
from stn.evaluation.foreign_weights import fit
from stn.models.build import build_model
from stn.models.wirings import count
from stn.runs.directory import Row
from stn.runs.files import read_json
from stn.tracking.console import say
from stn.training.checkpoints import load_final

TOLERANCE = 1e-5
IMAGES = 100
FILES = ("model.safetensors", "config.yaml", "card.md", "model.ts", "model.onnx")

CARD = """# {name} on {data}

| | |
|---|---|
{table}

`model.ts` and `model.onnx` take normalised images [B, {shape}], any B, and return logits [B, {classes}].

```python
import torch

model = torch.jit.load("model.ts")
images = torch.rand(5, {shape}{dtype})  # pixels from 0 to 1
mean, std = torch.tensor({mean}).view(-1, 1, 1), torch.tensor({std}).view(-1, 1, 1)
logits = model((images - mean) / std)
```

The network itself, where this package is installed:

```python
from safetensors.torch import load_file
from stn.config.dataset import build_dataset
from stn.config.yaml_files import load_yaml
from stn.models.build import build_model

config = load_yaml("config.yaml")
dataset = build_dataset(config.data.name)
network = build_model(config.arch, dataset.shape, dataset.classes).eval(){double}
network.load_state_dict(load_file("model.safetensors"))
```
"""


def card(config: Config, row: Row, env: Row, network: nn.Module, dataset: Dataset) -> str:
    """The model card, in Markdown."""
    arch, commit = config.arch, env.get("commit") or "not known"
    if "val_acc" in row:
        accuracy = f"{row['val_acc']:.2%} of {row['val_count']:,} held-out training images"
    else:
        accuracy = f"{row['test_acc']:.2%} of {row['test_count']:,} test images"
    mean, std = dataset.test_figures or (dataset.mean, dataset.std)  # what the accuracy was measured with
    double = config.train.precision == "fp64"
    facts = {
        "architecture": f"`{arch.name}`: {registry.names('arch')[arch.name]}",
        "net": f"`{arch.net}`: {registry.names('net')[arch.net or '']}",
        "data set": f"`{config.data.name}`: {registry.names('dataset')[config.data.name]}",
        "parameters": f"{count(network):,}",
        "MFLOP": f"{mflop(network, dataset.shape):.2f} (forward, one image; convolutions and linear layers)",
        "accuracy": accuracy,
        "seed": row["seed"],
        "sig": f"`{signature(config)}`",
        "torch": env.get("packages", {}).get("torch") or "not known",
        "commit": f"{commit} with changes" if env.get("dirty") else commit,
        "normalisation": f"pixels from 0 to 1, minus {list(mean)}, over {list(std)}",
    }
    return CARD.format(
        name=arch.name,
        data=config.data.name,
        table="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        shape=", ".join(map(str, dataset.shape)),
        classes=dataset.classes,
        mean=list(mean),
        std=list(std),
        dtype=", dtype=torch.float64" * double,
        double=".double()" * double,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's advice to leave TorchScript, and what ONNX's optimiser says of what it leaves alone."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        logger.setLevel(logging.ERROR)
        yield
    logger.setLevel(level)


def capture(network: nn.Module, x_BCHW: Tensor) -> ExportedProgram:
    """The network's operations for any batch size."""
    with torch.no_grad():
        network(x_BCHW)  # grids and the like become constants: they are kept from here on
        return torch.export.export(network, (x_BCHW,), dynamic_shapes=({0: Dim("batch")},))


def write_torchscript(program: ExportedProgram, x_BCHW: Tensor, path: Path) -> None:
    module = program.module(check_guards=False)
    module._forward_pre_hooks.clear()  # it compares shapes in Python, which cannot be traced
    with _quiet(), torch.no_grad():
        # Not from the network as it is, in whose Python code sizes of maps would become tensors.
        torch.jit.save(torch.jit.trace(module, x_BCHW, check_trace=False), path)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    with _quiet():
        made = torch.onnx.export(program, input_names=["images"], output_names=["logits"], verbose=False)
        assert made is not None
        made.save(path)


def difference(path: Path, network: nn.Module, x_BCHW: Tensor) -> float:
    """The largest difference of a TorchScript file's logits from the network's, over one image and over all."""
    with _quiet():
        model = torch.jit.load(path)
    with torch.no_grad():
        return max(float((model(x) - network(x)).abs().max()) for x in (x_BCHW[:1], x_BCHW))


def export_run(path: str, seed: int | None, out: Path, onnx: bool) -> None:
    """All files or none: they appear once the TorchScript computes what was trained."""
    if onnx and not (find_spec("onnx") and find_spec("onnxscript")):
        raise ValueError("--onnx needs two more packages: pip install onnx onnxscript")
    run, config, rows = open_run(path)
    found = {row["seed"]: row for row in rows}
    if seed is not None and seed not in found:
        raise ValueError(f"{path} has no finished seed {seed}; finished: {sorted(found)}")
    row = found[min(found) if seed is None else seed]
    dataset = build_dataset(config.data.name)
    dtype = torch.float64 if config.train.precision == "fp64" else torch.float32
    network = build_model(config.arch, dataset.shape, dataset.classes).eval().to(dtype)
    network.load_state_dict(fit(load_final(run, row["seed"]), network))
    stream = Stream(config.data, dataset, [row["seed"]], dtype=dtype)
    x_BCHW = stream.test_images(torch.arange(min(IMAGES, stream.test_count))).x_BCHW
    few_BCHW = x_BCHW[:1].expand(3, -1, -1, -1)  # torch takes a batch of 0 or 1 for a constant
    program = capture(network, few_BCHW)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as name:
        folder = Path(name)
        weights = {name: x.contiguous().clone() for name, x in network.state_dict().items()}
        (folder / "model.safetensors").write_bytes(save(weights))
        (folder / "config.yaml").write_bytes(run.config.read_bytes())
        (folder / "card.md").write_text(card(config, row, read_json(run.env), network, dataset), encoding="utf-8")
        write_torchscript(program, few_BCHW, folder / "model.ts")
        if onnx:
            write_onnx(program, folder / "model.onnx")
        far = difference(folder / "model.ts", network, x_BCHW)
        if not far <= TOLERANCE:
            fail(f"model.ts differs from the network by {far:.3g}; nothing was written", code=1)
        for name in FILES:  # none of an earlier export stays behind
            made = folder / name
            made.replace(out / name) if made.exists() else (out / name).unlink(missing_ok=True)
    say(f"seed {row['seed']}: largest difference {far:.3g} over {len(x_BCHW)} test images; files in {out}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stn export", description="Write a finished network's files.")
    parser.add_argument("run", metavar="RUN", help="a finished run directory, runs/<name>/<sig>/<seeds>")
    parser.add_argument("--seed", metavar="N", type=int, help="which seed; default: the first finished one")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to; default: RUN/export")
    parser.add_argument("--onnx", action="store_true", help="model.onnx as well")
    asked = parser.parse_args(arguments)
    export_run(asked.run, asked.seed, asked.out or Path(asked.run) / "export", asked.onnx)
    return 0
