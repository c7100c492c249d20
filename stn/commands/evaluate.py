"""Evaluate a finished run again (python -m stn evaluate RUN), or weights from anywhere (--weights, --recipe)."""

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.config.yaml_files import find_recipe, load_yaml
from stn.data.stream import Stream
from stn.evaluation.accuracy import bypassed, evaluate
from stn.evaluation.foreign_weights import fit, load_plain
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows
from stn.tracking.console import say
from stn.training.checkpoints import load_final
from stn.training.runtime import Runtime


def open_run(path: str) -> tuple[RunDir, Config, list[Row]]:
    """Return a run directory, its configuration for one process, and the rows of its finished seeds."""
    run = RunDir(path)
    if not run.config.is_file() or not run.results.is_file():
        raise ValueError(f"{path} is no run directory with results: it needs config.yaml and results.jsonl")
    rows = [row for row in read_rows(run.results) if row.get("status") == "finished"]
    if not rows:
        raise ValueError(f"{path} has no finished seed")
    config = _alone(load_yaml(run.config))
    if config.data.root and not Path(config.data.root).is_dir():  # the run was moved
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": None})})
    return run, config, rows


def _alone(config: Config) -> Config:
    """Return the configuration for one process, whatever it was trained with."""
    return config.model_copy(update={"train": config.train.model_copy(update={"processes": None, "parallel": "auto"})})


def _score(config: Config, seed: int, weights: dict[str, Tensor], runtime: Runtime) -> dict[str, Any]:
    """Return the scores of one network."""
    dataset = build_dataset(config.data.name)
    model = StackedModel(lambda: build_network(config), [seed], runtime.device, runtime.dtype)
    model.load_weights(0, weights)
    stream = Stream(config.data, dataset, model.seeds, runtime.device, runtime.dtype)
    result = evaluate(model, stream, config.eval.batch_size, runtime)[0]
    with bypassed(model) as has_transformers:
        if has_transformers:
            bypass = evaluate(model, stream, config.eval.batch_size, runtime)[0]
            result["bypass_acc"] = bypass[f"{stream.data.split}_acc"]
    return result


def evaluate_run(path: str, iterations: int | None) -> int:
    """Evaluate every finished seed of a run directory again, and compare it with its result row."""
    run, config, rows = open_run(path)
    if iterations is not None:
        arch: dict[str, Any] = config.arch.model_dump() | {"test_iterations": iterations}
        config = resolve(config.model_copy(update={"arch": Arch(**arch)}))
    runtime, code = Runtime(config, len(rows)), 0
    for row in rows:
        found = _score(config, row["seed"], load_final(run, row["seed"]), runtime)
        same = found["confusion"] == row["confusion"]
        said = "as recorded" if same else "NOT as recorded"
        if iterations is None:
            code = code or int(not same)
        else:
            said += f" (after {iterations} iterations)"
        figures = "  ".join(f"{k} {v:.6f}" for k, v in found.items() if isinstance(v, float))
        say(f"seed {row['seed']}  {figures}  {said}")
    return code


def evaluate_weights(path: str, recipe: str, given: dict[str, Any]) -> int:
    """Evaluate plain weights in the network of a recipe, on its test set."""
    weights, config = load_plain(path), load_yaml(find_recipe(recipe))
    fields: dict[str, Any] = config.data.model_dump() | given | {"validation": 0}
    data = Data(**fields)
    config = _alone(resolve(config.model_copy(update={"data": data})))
    weights = fit(weights, build_network(config))
    found = _score(config, 0, weights, Runtime(config, 1))
    say(f"{path} in {config.arch.name} on {config.arch.net}, {found['test_count']} test images of {data.name}")
    for title in ("test_acc", "test_error", "test_loss", "macro_f1", "bypass_acc"):
        if title in found:
            say(f"{title:10s} {found[title]:.6f}")
    say("per class  " + "  ".join(f"{k}: {accuracy:.4f}" for k, accuracy in enumerate(found["per_class_acc"])))
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stn evaluate", description="Evaluate trained weights.")
    parser.add_argument("run", nargs="?", metavar="RUN", help="a finished run directory, runs/<name>/<sig>/<seeds>")
    parser.add_argument(
        "--weights", metavar="FILE", help="a state dict: safetensors or torch.save's, also in a checkpoint"
    )
    parser.add_argument("--recipe", metavar="NAME", help="whose network it is: a recipe of configs/, or a YAML file")
    parser.add_argument("--data-root", metavar="DIR", help="folder with data sets other than MNIST")
    parser.add_argument("--limit-test", metavar="N", type=int, help="the first N test images only")
    more = "as many transforms in a row, of a transformer that was trained with --arch.iterations"
    parser.add_argument("--test-iterations", metavar="N", type=int, help=f"of RUN: {more}")
    asked = parser.parse_args(arguments)
    given = {k: v for k, v in (("root", asked.data_root), ("limit_test", asked.limit_test)) if v is not None}
    if asked.run and not (asked.weights or asked.recipe or given):
        return evaluate_run(asked.run, asked.test_iterations)
    if asked.run or asked.test_iterations is not None or not (asked.weights and asked.recipe):
        parser.error("give either RUN, or --weights and --recipe")
    return evaluate_weights(asked.weights, asked.recipe, given)
