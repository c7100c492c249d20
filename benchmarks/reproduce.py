"""What the recipes reach beside what was published: rows out of run directories, and the README's table.

    python benchmarks/reproduce.py collect runs/s2_conv/*/*     # into benchmarks/results/reproduction/
    python benchmarks/reproduce.py table                        # Markdown, from what was collected
    python benchmarks/reproduce.py readme                       # the same, into README.md and the recipes' headers

An interval is Student's, for the difference between our mean over n seeds and a published mean over
m runs that scatter as ours do: t(n - 1) x SD x sqrt(1/n + 1/m). A published figure agrees where the
difference lies within it. Published figures are those of launch/report/published.yaml.
"""

import argparse
import json
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from launch.report.published import Figure, figures, science
from launch.report.stats import half_width
from stn.config import find_recipe, load_yaml
from stn.files import read_rows, write_atomic
from stn.resolve import resolve
from stn.rundir import Row, RunDir
from stn.schema import Config

CONFIGS = Path(__file__).parent.parent / "configs"
README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"
ROWS = Path(__file__).parent / "results" / "reproduction"
# fmt: off
_KEPT = [
    "sig", "seed", "name", "arch", "net", "dataset", "params", "steps", "epochs", "status",
    "test_acc", "test_loss", "macro_f1", "best_test_acc", "best_epoch", "bypass_acc", "pose_spread",
    "pose_slope", "pose_intercept", "pose_determinant", "feature_agreement", "wall_s",
    "images_per_s", "fused", "precision", "world_size", "weights_sha256",
]
# fmt: on


def _recipe(config: Config) -> Config:
    """The recipe that a run was started from, with what a table may differ in: architecture and length."""
    recipe = load_yaml(find_recipe(str(config.log.name)))
    optim = recipe.optim.model_copy(update={"milestones": config.optim.milestones})
    train = config.train if recipe.train.steps else recipe.train  # a schedule in steps may be cut short
    arch = recipe.arch.model_copy(update={"name": config.arch.name})
    return recipe.model_copy(update={"optim": optim, "train": train, "arch": arch})


def collect(path: str) -> Path:
    """The finished seeds of a run directory, each with its evaluations, beside those of other directories."""
    run = RunDir(path)
    if not (run.env.is_file() and run.results.is_file()):
        raise SystemExit(f"error: {path} is no run directory with results")
    env = json.loads(run.env.read_text())
    date = datetime.fromtimestamp(run.read_status()["time"], UTC).date().isoformat()
    evals = [row for row in read_rows(run.metrics) if row["kind"] == "eval"]
    config = load_yaml(run.config)
    rows = []
    for row in read_rows(run.results):
        curve = {f"{e['epoch']:g}": round(e["test_acc"], 6) for e in evals if e["seed"] == row["seed"]}
        kept = {key: row[key] for key in _KEPT if key in row}
        facts = {"date": date, "commit": env["commit"], "torch": env["packages"]["torch"], "device": env["device"]}
        rows.append(kept | facts | {"evaluations": curve})
    if science(resolve(config)) != science(resolve(_recipe(config))):
        raise SystemExit(f"error: {path} is not a run of configs/{config.log.name}.yaml as it is today")
    out = ROWS / f"{config.log.name}.jsonl"
    own = {(row["arch"], row["seed"]) for row in rows}
    rows += [row for row in read_rows(out) if (row["arch"], row["seed"]) not in own]
    rows.sort(key=lambda row: (row["arch"], row["seed"]))
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows))
    return out


def values(figure: Figure) -> tuple[list[float], float]:
    """Ours in per cent, a number for each seed, and the share of the published schedule."""
    rows = [row for row in read_rows(ROWS / f"{figure.recipe}.jsonl") if row["status"] == "finished"]
    own = {key: value for key in ("arch", "net") if (value := getattr(figure, key))}
    # What else a figure may lay over its recipe is refused by ``collect``.
    rows = [row for row in rows if own.items() <= row.items() and not figure.options]
    key = {"last": "test_acc", "best": "best_test_acc"}.get(str(figure.at))
    found = [row[key] if key else row["evaluations"][str(figure.at)] for row in rows]
    return [figure.ours(accuracy) for accuracy in found], share(rows, figure.recipe)


def share(rows: list[Row], recipe: str) -> float:
    """How much of a recipe's schedule the shortest of its runs had."""
    whole = load_yaml(CONFIGS / f"{recipe}.yaml").train
    shares = [row["steps"] / whole.steps if whole.steps else row["epochs"] / (whole.epochs or 1) for row in rows]
    return min(shares, default=0.0)


def line(figure: Figure) -> str:
    ours, share = values(figure)
    n = len(ours)
    cells: list[Any] = [figure.system, figure.unit, figure]
    if not ours:
        return _row([*cells, "not run", "", "", "", ""])
    mean = statistics.mean(ours)
    difference = mean - float(figure.value)
    full = f"{share:.3g}" if share < 1 else "whole"
    if n == 1:
        return _row([*cells, f"{mean:.2f}", "1", full, f"{difference:+.2f}", "one run says nothing"])
    sd = statistics.stdev(ours)
    half = half_width(sd, n, figure.n or 1)
    agrees = "yes" if abs(difference) <= half else "**no**"
    verdict = f"{agrees} (± {half:.2f})" if share == 1 else f"shorter schedule (± {half:.2f})"
    return _row([*cells, f"{mean:.2f} ({sd:.2f})", n, full, f"{difference:+.2f}", verdict])


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


TOGETHER = {
    "Finnveden et al., T, cnn / c0 / cx / dlx / slx": {"finnveden_t"},
    "Finnveden et al., S, cnn / c0 / cx / dlx / slx": {"finnveden_s"},
    "Jaderberg et al., R, FCN / CNN / ST-FCN / ST-CNN (affine)": {"jaderberg_r"},
    "Jaderberg et al., RTS": {"jaderberg_rts"},
    "Jaderberg et al., P": {"jaderberg_p"},
    "Jaderberg et al., E": {"jaderberg_e"},
    "Jaderberg et al., TC": {"jaderberg_tc"},
    "Lin and Lucey, CNN / STN / IC-STN-2 / IC-STN-4": {"icstn", "icstn_cnn"},
}
"""Recipes whose systems share a line until one of them has been run."""


def table() -> str:
    head = "| system | % | published | ours, mean (SD) | n | schedule | difference | within the interval |"
    lines, listed = [head, "|---" * 8 + "|"], [figure for figure in figures() if figure.listed]
    lines += [line(figure) for figure in listed if not any(figure.recipe in some for some in TOGETHER.values())]
    for title, recipes in TOGETHER.items():
        group = [figure for figure in listed if figure.recipe in recipes]
        if any(values(figure)[0] for figure in group):
            lines += map(line, group)
        else:
            shown = group[-1]._replace(value=" / ".join(figure.value for figure in group))
            lines.append(_row([title, shown.unit, shown, "not run", "", "", "", ""]))
    return "\n".join(lines)


SPREADS = {"stn_c0": 23.2, "stn_cx": 47.2, "stn_dlx": 26.8, "stn_slx": 18.7}
"""Of the final pose on R in degrees, as published."""
_POSE = ("pose_spread", "pose_slope", "pose_intercept", "pose_determinant", "feature_agreement", "bypass_acc")


def poses() -> str:
    """What the transformers of the R column do, mean (SD) over seeds."""
    heads = ["R", "n", "steps (of 70 000)", "spread published", "spread"]
    heads += [key.removeprefix("pose_").replace("_", " ") for key in _POSE[1:]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arch, spread in SPREADS.items():
        rows = [row for row in read_rows(ROWS / "finnveden_r.jsonl") if row["arch"] == arch]
        rows = [row for row in rows if row["status"] == "finished"]
        columns = [[row[key] for row in rows if row[key] is not None] for key in _POSE]
        cells = [f"{statistics.mean(c):.3g} ({statistics.stdev(c):.2g})" if len(c) > 1 else "" for c in columns]
        steps = f"{rows[0]['steps']:,}" if rows else ""
        lines.append(f"| {arch} | {len(rows) or 'not run'} | {steps} | {spread} | {' | '.join(cells)} |")
    return "\n".join(lines)


def header(text: str, recipe: str) -> str:
    """A recipe's file with what its rows say in its last comment, "ours"."""
    rows = [row for row in read_rows(ROWS / f"{recipe}.jsonl") if row["status"] == "finished"]
    if not rows:
        return text
    said = []
    for arch in dict.fromkeys(row["arch"] for row in rows):
        own = [row for row in rows if row["arch"] == arch]
        figures = []
        for name, key in (("last epoch", "test_acc"), ("best evaluation on the test set", "best_test_acc")):
            values = [100 * row[key] for row in own]
            spread = f" (SD {statistics.stdev(values):.2f})" if len(values) > 1 else ""
            figures.append(f"{name} {statistics.mean(values):.2f} %{spread}")
        dates = " to ".join(sorted({min(row["date"] for row in own), max(row["date"] for row in own)}))
        steps = f", {own[0]['steps']} steps" * (share(own, recipe) < 1)
        said.append(f"{arch}: {', '.join(figures)}; n = {len(own)}{steps}, {dates}")
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("# ours"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("#"))
    made = [f"# {'ours' if i == 0 else '':10s} {line}" for i, line in enumerate(said)]
    if len(said) == 1 and share(rows, recipe) == 1:
        took = f"{rows[0]['wall_s'] / 60:.0f} min for {rows[0]['fused']} seeds in one process on {rows[0]['device']}"
        lines = [f"# time       {took}" if line.startswith("# time") else line for line in lines]
    return "\n".join([*lines[:first], *made, *lines[last:]]) + "\n"


def readme(text: str) -> str:
    """README.md with today's tables."""
    for name, made in (("reproduction", table), ("poses", poses)):
        start = f"<!-- {name}: written by benchmarks/reproduce.py -->\n"
        before, _, rest = text.partition(start)
        text = f"{before}{start}{made()}\n{END}{rest.partition(END)[2]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("collect").add_argument("runs", nargs="+")
    commands.add_parser("table")
    commands.add_parser("readme")
    asked = parser.parse_args()
    if asked.command == "readme":
        README.write_text(readme(README.read_text()))
        for path in CONFIGS.glob("*.yaml"):
            path.write_text(header(path.read_text(), path.stem))
    else:
        print(
            f"{table()}\n\n{poses()}"
            if asked.command == "table"
            else "\n".join(str(collect(run)) for run in asked.runs)
        )


if __name__ == "__main__":
    main()
