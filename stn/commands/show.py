"""python -m stn show RUN: the pictures of a finished run again, or those of a network with given weights."""

import argparse
from pathlib import Path
from typing import NoReturn

from stn.commands.evaluate import open_run
from stn.config.command_line import fail
from stn.config.resolve import resolve
from stn.config.yaml_files import find_recipe, load_yaml
from stn.evaluation.foreign_weights import fit, load_plain
from stn.pictures import draw
from stn.tracking.console import say


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see python -m stn show --help")


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' needs whole numbers with commas between") from None


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m stn show", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="?", metavar="RUN", help="runs/<name>/<sig>/<seeds>")
    parser.add_argument("--seed", type=int, help="another seed than the first one that finished")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/pictures, or ./pictures")
    parser.add_argument("--gif", action="store_true", help="warp.gif as well, a frame per evaluation")
    parser.add_argument("--images", type=_numbers, default=[], metavar="0,5,7", help="which of the fixed test images")
    parser.add_argument("--weights", metavar="FILE", help="a plain state dict, of the network of a recipe")
    parser.add_argument("--recipe", metavar="NAME", help="which one")
    asked = parser.parse_args(arguments)
    if (asked.run is None) == (asked.weights is None) or (asked.weights is None) != (asked.recipe is None):
        parser.error("give either RUN or --weights FILE --recipe NAME")
    if asked.weights and (asked.gif or asked.seed is not None):
        parser.error("--seed and --gif need a RUN")
    return asked


def _show_run(asked: argparse.Namespace) -> list[Path]:
    run, config, _ = open_run(asked.run)
    return draw.draw_run(config, run, asked.out or run.pictures, asked.seed, asked.images, asked.gif)


def _show_weights(asked: argparse.Namespace) -> list[Path]:
    tensors, config = load_plain(asked.weights), resolve(load_yaml(find_recipe(asked.recipe)))
    title = f"{Path(asked.weights).name} in {config.arch.name} on {config.data.name}"
    out = asked.out or Path("pictures")
    return draw.draw_weights(config, lambda model: fit(tensors, model), title, out, asked.images)


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    try:
        paths = _show_weights(asked) if asked.run is None else _show_run(asked)
    except (ValueError, OSError) as error:
        fail(error)
    if not any(path.name == "warp.png" for path in paths):
        say("nothing to warp: this network has no transformer")
    for path in paths:
        say(str(path))
    return 0
