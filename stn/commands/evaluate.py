"""Evaluate a finished run again (python -m stn evaluate RUN), or weights from anywhere (--weights, --recipe)."""

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from stn.commands.library.run import ONE_PROCESS, Run, change
from stn.config.command_line import fail
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve, signature
from stn.config.schema import Config
from stn.config.yaml_files import find_recipe, load_yaml
from stn.data.stream import Stream
from stn.evaluation.accuracy import bypassed, evaluate
from stn.evaluation.foreign_weights import fit, load_plain, refuse_other_arch
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.files import read_json, write_atomic
from stn.tracking.console import say
from stn.training.checkpoints import load_final
from stn.training.runtime import Runtime

ROUNDING = 1e-3
"""Share of the images that another device, another kernel or half precision may classify differently."""


def argument_parser(command: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command of ``python -m stn``, whose errors are one line."""
    parser = argparse.ArgumentParser(prog=f"python -m stn {command}", description=about, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see python -m stn {command} --help")
    return parser


def open_run(path: str) -> Run:
    """Return a run of which at least one seed has finished."""
    run = Run(path)
    run.row()
    return run


def _score(config: Config, seed: int, weights: dict[str, Tensor], runtime: Runtime) -> dict[str, Any]:
    """Return the scores of one network."""
    model = StackedModel(partial(build_network, config), [seed], runtime.device, runtime.dtype)
    model.load_weights(0, weights)
    stream = Stream(config.data, build_dataset(config.data.name), [seed], runtime.device, runtime.dtype)
    (scores,) = evaluate(model, stream, config.eval, runtime)
    with bypassed(model) as has_transformers:
        if has_transformers:
            (bypass_scores,) = evaluate(model, stream, config.eval, runtime)
            scores["bypass_acc"] = bypass_scores[f"{config.data.split}_acc"]
    return scores


def _verdict(recorded: Any, scores: dict[str, Any], split: str, rounding: bool) -> tuple[bool, str]:
    """Return whether a confusion matrix is as recorded, and a sentence on it; rounding may move a few images."""
    if not recorded:
        return False, "NOT compared: no confusion matrix was recorded"
    total = scores[f"{split}_count"]
    moved = int((torch.tensor(scores["confusion"]) - torch.tensor(recorded)).clamp(min=0).sum())
    if not moved:
        return True, "as recorded"
    if rounding and moved <= ROUNDING * total:
        return True, f"as recorded but for {moved} of {total:,} images, by rounding"
    return False, "NOT as recorded"


def _numbers(scores: dict[str, Any]) -> str:
    return "  ".join(f"{key} {score:.6f}" for key, score in scores.items() if isinstance(score, float))


def evaluate_run(path: str, iterations: int | None, mirror: bool, record: str | None) -> int:
    """Evaluate every finished seed of a run directory again, and compare it with its result row."""
    run = open_run(path)
    config, rows = run.config, run.finished
    otherwise = f" (after {iterations} iterations)" if iterations is not None else ""
    if iterations is not None:
        config = resolve(change(config, arch={"test_iterations": iterations}))
    if mirror and not config.eval.mirror:
        config, otherwise = change(config, eval={"mirror": True}), f"{otherwise} (with mirror images)"
    half = config.train.precision in ("bf16", "fp16")
    if config.train.precision == "fp16" and not torch.cuda.is_available():
        say("fp16 needs a GPU: evaluated in fp32")
        config = change(config, train={"precision": "fp32"})
    runtime, code = Runtime(config, len(rows)), 0
    elsewhere = not str(read_json(run.directory.env).get("device")).startswith(runtime.device.type)
    rounding = half or elsewhere or runtime.device.type == "cuda"
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        found[row["seed"]] = scores = _score(config, row["seed"], load_final(run.directory, row), runtime)
        same, verdict = _verdict(row.get("confusion"), scores, config.data.split, rounding)
        if not (same or otherwise):
            code = 1
        say(f"seed {row['seed']}  {_numbers(scores)}  {verdict}{otherwise}")
    titles = [title for title, score in found[rows[0]["seed"]].items() if isinstance(score, float)]
    mean = {title: fmean(scores[title] for scores in found.values()) for title in titles}
    if len(rows) > 1:
        say(f"mean, n = {len(rows)}  {_numbers(mean)}")
    if record:
        about = {"signature": signature(run.config), "mirror": config.eval.mirror, "test_iterations": iterations}
        about |= {"mean": mean, "seeds": found}
        write_atomic(Path(record), (json.dumps(about) + "\n").encode())
    return code


def evaluate_weights(path: str, recipe: str, data: dict[str, Any], mirror: bool) -> int:
    """Evaluate plain weights in the network of a recipe, on its test set."""
    weights, config = load_plain(path), load_yaml(find_recipe(recipe))
    seen_twice = {"mirror": mirror or config.eval.mirror}
    config = resolve(change(config, data=data | {"validation": 0}, eval=seen_twice, train=ONE_PROCESS))
    refuse_other_arch(path, config.arch.name)
    scores = _score(config, 0, fit(weights, build_network(config)), Runtime(config, 1))
    images = f"{scores['test_count']} test images of {config.data.label}"
    images += ", each with its mirror image" * config.eval.mirror
    say(f"{path} in {config.arch.name} on {config.arch.net}, {images}")
    for title in ("test_acc", "test_error", "test_loss", "macro_f1", "bypass_acc"):
        if title in scores:
            say(f"{title:10s} {scores[title]:.6f}")
    say("per class  " + "  ".join(f"{k}: {accuracy:.4f}" for k, accuracy in enumerate(scores["per_class_acc"])))
    return 0


def main(arguments: list[str]) -> int:
    parser = argument_parser("evaluate", "Evaluate trained weights.")
    parser.add_argument("run", nargs="?", metavar="RUN", help="a finished run directory, runs/<name>/<sig>/<seeds>")
    parser.add_argument(
        "--weights", metavar="FILE", help="a state dict: safetensors or torch.save's, also in a checkpoint"
    )
    parser.add_argument("--recipe", metavar="NAME", help="whose network it is: a recipe of configs/, or a YAML file")
    parser.add_argument("--data-root", metavar="DIR", help="of --weights: folder with data sets other than MNIST")
    parser.add_argument("--limit-test", metavar="N", type=int, help="of --weights: the first N test images only")
    more = "as many transforms in a row, of a transformer that was trained with --arch.iterations"
    parser.add_argument("--test-iterations", metavar="N", type=int, help=f"of RUN: {more}")
    twice = "show each image a second time, mirrored, and take the mean of the logits"
    parser.add_argument("--mirror", action="store_true", help=twice)
    parser.add_argument("--json", metavar="FILE", help="of RUN: write every seed's scores, and their mean, there")
    options = parser.parse_args(arguments)
    pairs = (("root", options.data_root), ("limit_test", options.limit_test))
    data = {key: value for key, value in pairs if value is not None}
    if options.run and not (options.weights or options.recipe or data):
        return evaluate_run(options.run, options.test_iterations, options.mirror, options.json)
    if options.run and data and not (options.weights or options.recipe):
        parser.error("--limit-test and --data-root go with --weights; RUN is evaluated on its own test images")
    of_run = options.run or options.json or options.test_iterations is not None
    if of_run or not (options.weights and options.recipe):
        parser.error("give either RUN, or --weights and --recipe")
    return evaluate_weights(options.weights, options.recipe, data, options.mirror)
