"""python -m stn show RUN: the pictures of a finished run again, or those of a network with given weights."""

import argparse
from pathlib import Path

from stn.commands.evaluate import argument_parser, open_run
from stn.config.resolve import resolve
from stn.config.yaml_files import find_recipe, load_yaml
from stn.evaluation.foreign_weights import fit, load_plain, refuse_other_arch
from stn.evaluation.pictures import draw
from stn.tracking.console import say


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers, such as 0,5,7") from None


def main(arguments: list[str]) -> int:
    parser = argument_parser("show", __doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="runs/<name>/<sig>/<seeds>")
    parser.add_argument("--seed", type=int, help="which seed; default: the first finished one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/pictures; for others ./pictures")
    parser.add_argument("--gif", action="store_true", help="warp.gif as well, a frame per evaluation")
    parser.add_argument("--images", type=_numbers, default=[], metavar="0,5,7", help="which of the fixed test images")
    parser.add_argument("--weights", metavar="FILE", help="a plain state dict, of the network of a recipe")
    parser.add_argument("--recipe", metavar="NAME", help="the recipe of --weights")
    options = parser.parse_args(arguments)
    if (options.run is None) == (options.weights is None) or (options.weights is None) != (options.recipe is None):
        parser.error("give either RUN or --weights FILE --recipe NAME")
    if options.weights and (options.gif or options.seed is not None):
        parser.error("--seed and --gif need a RUN")
    if options.run is not None:
        run = open_run(options.run)
        # Trackers show what is in RUN/pictures as the first seed's.
        others = options.seed is not None or options.images
        out = options.out or (Path("pictures") if others else run.directory.pictures)
        paths = draw.draw_run(run.config, run.directory, out, options.seed, options.images, options.gif)
    else:
        tensors, config = load_plain(options.weights), resolve(load_yaml(find_recipe(options.recipe)))
        refuse_other_arch(options.weights, config.arch.name)
        title = f"{Path(options.weights).name} in {config.arch.name} on {config.data.name}"
        out = options.out or Path("pictures")
        paths = draw.draw_weights(config, lambda model: fit(tensors, model), title, out, options.images)
    if not any(path.name == "warp.png" for path in paths):
        say("nothing to warp: this network has no transformer")
    for path in paths:
        say(str(path))
    return 0
