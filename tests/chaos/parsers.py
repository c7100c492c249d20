"""The parsers of the project, each as a function of a file's content, with examples of what it reads."""

import contextlib
import hashlib
import io
import lzma
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
import yaml
from safetensors.torch import save

from launch.sweep.expand import expand, write
from stn.config.command_line import parse
from stn.config.resolve import resolve, signature, validate
from stn.config.schema import Config, Eval
from stn.config.seed_list import format_seeds, parse_seeds
from stn.config.yaml_files import RECIPES, dump_yaml, load_yaml
from stn.data import sources
from stn.evaluation.foreign_weights import fit, load_plain
from stn.runs.directory import RunDir
from tests.chaos.readers import (
    Parse,
    answers,
    checkpoint,
    earlier,
    images_of_tests,
    plan,
    run_file,
    uploaded,
    with_wrong_headers,
)
from tests.support.networks import seeded_network
from tests.support.sweeps import TWO_CELLS

EARLIER = b"""dataset,arch,setting,sig,seed,status,reason,test_acc
mnist,cnn,,0f,0,finished,,0.98
mnist,cnn,,0f,1,failed,"loss is nan, at step 3",
mnist,stn_slx,"lr=0.1",1e,0,finished,,0.99
"""


class Parser(NamedTuple):
    examples: list[bytes]
    parse: Parse
    form: str = "bytes"
    share: float = 1.0
    """Of the inputs: slow parsers get fewer."""


def _recipe(path: Path) -> Parse:
    def read(content: bytes) -> str:
        path.write_bytes(content)
        config = load_yaml(path)
        validate(config)
        return signature(resolve(config)) + dump_yaml(config)

    return read


def _command_line(content: bytes) -> object:
    try:
        words = shlex.split(content.decode(errors="replace"))
    except ValueError:  # a shell would not have taken it either
        return None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            return [signature(resolve(command)) for command in parse([w for w in words if w not in ("-h", "--help")])]
        except SystemExit as end:
            if end.code not in (0, 2):
                raise AssertionError(f"exit code {end.code}") from None
            if "Traceback" in told.getvalue():
                raise AssertionError("a traceback") from None


def _sweep(folder: Path) -> Parse:
    def read(content: bytes) -> object:
        path = folder / "two.yaml"
        path.write_bytes(content)
        return [job.title for job in expand(str(path), str(folder / "runs")).plan.jobs]

    return read


def _foreign(path: Path) -> Parse:
    network = seeded_network("cnn", net="tutorial")

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return fit(load_plain(path), network)

    return read


def _packed(path: Path, content: bytes) -> Parse:
    sha256 = hashlib.sha256(content).hexdigest()

    def read(packed: bytes) -> object:
        path.with_suffix("").unlink(missing_ok=True)
        path.write_bytes(packed)
        return sources._unpacked(path, sha256)

    return read


def _cifar(folder: Path) -> Parse:
    def read(content: bytes) -> object:
        for name in sources._CIFAR10:
            (folder / name).write_bytes(content)
        with patch.dict(sources._CIFAR10, {name: hashlib.sha256(bytes(3073)).hexdigest() for name in sources._CIFAR10}):
            return sources._cifar10_binary(folder)

    return read


def parsers(folder: Path, finished: Path) -> dict[str, Parser]:
    """Return all parsers by name; ``finished`` is the run directory of a finished training."""

    def run(name: str) -> RunDir:
        return RunDir(shutil.copytree(finished.parents[2], folder / name) / finished.relative_to(finished.parents[2]))

    (folder / "sweeps").mkdir(parents=True)
    sweep = yaml.safe_dump(TWO_CELLS).encode()
    (folder / "two.yaml").write_bytes(sweep)
    write(expand(str(folder / "two.yaml"), str(folder / "planned")))
    planned, plain, weights = folder / "planned" / "two" / "sweep", lzma.compress(bytes(3000)), io.BytesIO()
    state = seeded_network("cnn", net="tutorial").state_dict()
    torch.save({"model": state, "epoch": 3}, weights)
    base = run("readers")
    files = {name: finished / name for name in ("results.jsonl", "metrics.jsonl", "status.json", "env.json", ".rows/0")}
    recipes = [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))] + [dump_yaml(Config()).encode()]
    sent = b'{"place": "server/stn", "stamp": [[1, 2], [3, 4]], "done": {"0": "finished"}}'
    lists = [b"0", b"0,3,8-15", b"0-99", format_seeds(list(range(0, 50, 3))).encode()]
    durations = [b"2 epochs", b"500 steps", b"30 %", b"1.5 epochs"]
    words = [b"--arch stn_c0 --dataset mnist_r --seeds 0-3 --lr 0.01,0.02 --steps 100 --optim.warmup '3 steps'",
             b"--config configs/s3.yaml --epochs 2 --optim.betas 0.9 0.99 --log.no-pictures"]  # fmt: skip
    running = b'{"state": "running", "time": 1.0, "host": "a", "pid": 7, "seeds": "0-1", "step": 8, "steps": 12}'
    more = {"status.json": [running, running.replace(b"running", b"stopped")]}
    read = {}
    for name, path in files.items():
        examples = [path.read_bytes(), *more.get(name, [])]
        read[f"reader of {name}"] = Parser(examples, run_file(base.path / name, base), "jsonl")
    claim = base.path / ".claim" / "1"
    held = claim.read_bytes().replace(b"true", b"false")
    unread = Path(shutil.copytree(planned, folder / "plan" / "sweep")) / "sweep.yaml"
    final = (finished / "checkpoints/seed-0/final.safetensors").read_bytes()
    said, shown = ((finished / "predictions" / f"{name}.safetensors").read_bytes() for name in ("seed-0", "images"))
    return {
        "configuration": Parser(recipes, _recipe(folder / "recipe.yaml"), "yaml"),
        "seed list": Parser(lists, lambda text: format_seeds(parse_seeds(text.decode(errors="replace")))),
        "duration": Parser(durations, lambda text: resolve(Config(eval=Eval(every=text.decode(errors="replace"))))),
        "command line": Parser(words, _command_line, share=0.1),
        "sweep": Parser([sweep], _sweep(folder / "sweeps"), "yaml"),
        "manifest": Parser([(planned / "manifest.jsonl").read_bytes()], plan(planned / "manifest.jsonl"), "jsonl"),
        "plan": Parser([unread.read_bytes()], plan(unread), "yaml"),
        **read,
        "lease": Parser([held, claim.read_bytes()], run_file(claim, base), "json"),
        "earlier report": Parser([EARLIER], earlier(folder / "rows.csv")),
        "uploads": Parser([sent], uploaded(run("uploads")), "json"),
        "checkpoint": Parser([final, *with_wrong_headers(final)], checkpoint(run("saved"))),
        "answers": Parser([said], answers(run("answers"))),
        "test images": Parser([shown], images_of_tests(run("tested"))),
        "foreign safetensors": Parser([save(state)], _foreign(folder / "theirs.safetensors")),
        "foreign pickle": Parser([weights.getvalue()], _foreign(folder / "theirs.pt")),
        "packed images": Parser([plain], _packed(folder / "images.xz", bytes(3000))),
        "CIFAR-10": Parser([bytes(3073)], _cifar(folder)),
    }  # fmt: skip
