"""Export one finished network as files that others can load: weights, configuration, model card, ONNX.

python -m stn export RUN [--seed N] [--out DIR] [--onnx]. B batch, C channel, H, W.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.export import Dim

from stn.commands.check import mflop
from stn.commands.evaluate import argument_parser, open_run
from stn.commands.library.run import Run
from stn.config import registry
from stn.config.command_line import fail
from stn.config.dataset import Dataset, build_dataset, find_dataset
from stn.config.resolve import signature
from stn.config.schema import Config
from stn.config.yaml_files import load_yaml
from stn.data.rng import initialised
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.models.wirings import count_parameters
from stn.runs.directory import Row
from stn.runs.files import named_in_errors, read_json
from stn.tracking.console import say, warn

TOLERANCE = 1e-5
IMAGES = 100
CLOSELY, ROUGHLY = 1e-3, 0.1
"""By how much of the largest logit rounding may change an answer: in fp32, and in a rougher precision."""
FILES = ("model.safetensors", "config.yaml", "card.md", "model.onnx")


def card(config: Config, row: Row, env: Row, network: nn.Module, dataset: Dataset) -> str:
    """Return the model card, in Markdown."""
    arch, commit = config.arch, env.get("commit") or "not known"
    if "val_acc" in row:
        accuracy = f"{row['val_acc']:.2%} of {row['val_count']:,} held-out training images"
    else:
        accuracy = f"{row['test_acc']:.2%} of {row['test_count']:,} test images"
    accuracy += ", each shown with its mirror image, which the files here do not do" * config.eval.mirror
    mean, std = map(list, dataset.test_mean_std or (dataset.mean, dataset.std))  # what the accuracy was measured with
    facts = {
        "architecture": f"`{arch.name}`: {registry.find('arch', arch.name).line}",
        "net": f"`{arch.net}`: {registry.find('net', arch.net or '').line}",
        "data set": f"`{config.data.label}`: {find_dataset(config.data.name).line}",
        "parameters": f"{count_parameters(network):,}",
        "MFLOP": f"{mflop(network, dataset.shape):.2f} (forward, one image; convolutions and linear layers)",
        "accuracy": accuracy,
        "seed": row["seed"],
        "sig": f"`{signature(config)}`",
        "torch": env.get("packages", {}).get("torch") or "not known",
        "commit": f"{commit} with changes" if env.get("dirty") else commit,
        "normalisation": f"pixels from 0 to 1, minus {mean}, over {std}",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    shape = ", ".join(map(str, dataset.shape))
    double, dtype = (".double()", ", dtype=torch.float64") if config.train.precision == "fp64" else ("", "")
    return f"""# {arch.name} on {config.data.label}

| | |
|---|---|
{table}

The network takes normalised images [B, {shape}], any B, and returns logits [B, {dataset.classes}]; so does `model.onnx`
(input `images`, output `logits`), where it was exported.

```python
import torch
from safetensors.torch import load_file
from stn.config.yaml_files import load_yaml
from stn.data.rng import initialised
from stn.models.build import build_network

network = initialised(lambda: build_network(load_yaml("config.yaml")), {row["seed"]}){double}
network.eval()
network.load_state_dict(load_file("model.safetensors"))

images = torch.rand(5, {shape}{dtype})  # pixels from 0 to 1
mean, std = torch.tensor({mean}).view(-1, 1, 1), torch.tensor({std}).view(-1, 1, 1)
logits = network((images - mean) / std)
```
"""


def write_onnx(network: nn.Module, x_BCHW: Tensor, path: Path) -> None:
    """Write an ONNX file for any batch size, from two images or more: torch takes 0 and 1 for constants."""
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of what it leaves alone
    try:
        with torch.no_grad():
            network(x_BCHW)  # grids and the like become constants: they are kept from here on
            program = torch.export.export(network, (x_BCHW,), dynamic_shapes=({0: Dim("batch")},))
            torch.onnx.export(
                program, f=path, input_names=["images"], output_names=["logits"], external_data=False, verbose=False
            )
    finally:
        logger.setLevel(level)


def exported_logits(folder: Path, x_BCHW: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield what the files compute: the card's network, and the ONNX file where onnxruntime is installed."""
    network = initialised(lambda: build_network(load_yaml(folder / "config.yaml")), seed).to(x_BCHW.dtype)
    network.eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        yield network(x_BCHW)
    if (folder / "model.onnx").exists() and find_spec("onnxruntime"):
        from onnxruntime import InferenceSession  # an extra

        session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        yield torch.from_numpy(session.run(["logits"], {"images": x_BCHW.numpy()})[0])


def _answered_otherwise(run: Run, seed: int, network: nn.Module, x_BCHW: Tensor) -> int:
    """Return how many of the first images are clearly answered otherwise than recorded; 0 if no answers are kept."""
    with suppress(ValueError), torch.no_grad():
        recorded_B = torch.from_numpy(run.answers(seed).predicted_N[: len(x_BCHW)].astype("int64"))
        logits_BK = network(x_BCHW)
        if run.config.eval.mirror:
            logits_BK = logits_BK + network(x_BCHW.flip(-1))
        behind_B = logits_BK.amax(-1) - logits_BK.gather(1, recorded_B.unsqueeze(1)).squeeze(1)
        train = run.config.train
        coarse = train.tf32 or train.precision in ("bf16", "fp16")
        return int((behind_B > (ROUGHLY if coarse else CLOSELY) * logits_BK.abs().max()).sum())
    return 0


def export_run(path: str, seed: int | None, out: Path, onnx: bool) -> None:
    """Write all files or none: they appear once what was written computes what was trained."""
    if onnx and not (find_spec("onnx") and find_spec("onnxscript")):
        raise ValueError("--onnx needs two more packages: pip install onnx onnxscript")
    run = open_run(path)
    config, row = run.config, run.row(seed)
    dataset = build_dataset(config.data.name)
    dtype = torch.float64 if config.train.precision == "fp64" else torch.float32
    network = run.model(row["seed"])
    stream = Stream(config.data, dataset, [row["seed"]], dtype=dtype)
    x_BCHW = stream.test_images(torch.arange(min(IMAGES, stream.test_count))).x_BCHW
    with torch.no_grad():
        logits_BK = network(x_BCHW)
    if moved := _answered_otherwise(run, row["seed"], network, x_BCHW):
        commit = read_json(run.directory.env).get("commit") or "not known"
        text = f"this code answers {moved} of {len(x_BCHW)} images otherwise than was recorded"
        fail(f"{text}; export it with the code that trained it: commit {commit}", code=1)
    out.mkdir(parents=True, exist_ok=True)
    with named_in_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=".") as name:
        folder = Path(name)
        weights = {name: x.contiguous().clone() for name, x in network.state_dict().items()}
        (folder / "model.safetensors").write_bytes(save(weights))
        (folder / "config.yaml").write_bytes(run.directory.config.read_bytes())
        env = read_json(run.directory.env)
        (folder / "card.md").write_text(card(config, row, env, network, dataset), encoding="utf-8")
        if onnx:
            write_onnx(network, x_BCHW[:1].expand(3, -1, -1, -1), folder / "model.onnx")
        far = max(float((logits - logits_BK).abs().max()) for logits in exported_logits(folder, x_BCHW, row["seed"]))
        if not far <= TOLERANCE:
            fail(f"what was exported differs from the trained network by {far:.3g}; nothing was written", code=1)
        for name in FILES:  # none of an earlier export stays behind
            file = folder / name
            file.replace(out / name) if file.exists() else (out / name).unlink(missing_ok=True)
    say(f"seed {row['seed']}: largest difference {far:.3g} over {len(x_BCHW)} test images; files in {out}")
    if onnx and not find_spec("onnxruntime"):
        warn("model.onnx was not compared with the network: pip install onnxruntime")


def main(arguments: list[str]) -> int:
    parser = argument_parser("export", "Write a finished network's files.")
    parser.add_argument("run", metavar="RUN", help="a finished run directory, runs/<name>/<sig>/<seeds>")
    parser.add_argument("--seed", metavar="N", type=int, help="which seed; default: the first finished one")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to; default: RUN/export")
    parser.add_argument("--onnx", action="store_true", help="model.onnx as well")
    options = parser.parse_args(arguments)
    export_run(options.run, options.seed, options.out or Path(options.run) / "export", options.onnx)
    return 0
