"""Compare the recipes' results with published ones: collect rows of run directories, and print the manual's tables.

    python benchmarks/reproduce.py collect runs/s2_conv/*/*     # into benchmarks/results/reproduction/
    python benchmarks/reproduce.py table                        # Markdown, from the collected rows
    python benchmarks/reproduce.py readme                       # into README.md (eleven lines) and the recipes' headers

The interval is Student's, for the difference between our mean over n seeds and a published mean over
m runs with the same variance: t(n - 1) x SD x sqrt(1/n + 1/m). A published result agrees if the
difference lies within it. Published results are those of launch/report/analysis/published.yaml.
"""

import argparse
import fcntl
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from launch.report.analysis.published import PublishedResult, published_results, training_signature
from launch.report.analysis.stats import summary
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir
from stn.runs.files import read_rows, write_atomic

CONFIGS = Path(__file__).parent.parent / "configs"
README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"
ROWS = Path(__file__).parent / "results" / "reproduction"


def _recipe(config: Config) -> tuple[str, dict[str, Any] | None]:
    """Return the recipe that a run follows, in full or in part, in any precision, and a published result's options."""
    named = CONFIGS / f"{config.log.name}.yaml"
    known = [(str(config.log.name), None, load_yaml(named))] if named.is_file() else []
    known += [(result.recipe, result.options, result.config()) for result in published_results()]
    candidates = []
    for name, options, whole in known:
        if whole.data.name == config.data.name:
            part = config.train.steps / resolve(whole).train.steps  # type: ignore[operator]
            update = {"fraction": min(part, 1.0), "precision": config.train.precision}
            same = whole.model_copy(update={"train": whole.train.model_copy(update=update)})
            if training_signature(resolve(same)) == training_signature(resolve(config)):
                candidates.append((part, name, options))
    if not candidates:
        raise ValueError(f"{config.log.name} does not follow any recipe that is now in configs/")
    _, name, options = max(candidates, key=lambda candidate: candidate[0])
    return name, options


def _identity(row: Row) -> tuple:
    """Return the identity of a row; a newer row with the same identity replaces it."""
    options = row.get("options") or {}
    overrides = " ".join(f"{key}={value}" for section in options.values() for key, value in section.items())
    return row["arch"], row["net"], overrides, row["steps"], row["seed"]


LEARNT = 0.1
"""Error of the plain network below which a shorter schedule says something."""


def _finished(recipe: str) -> list[Row]:
    """Return the finished rows of a recipe, of each network those with the most steps.

    A schedule shortened so far that the plain network (or, without one, the mean) has hardly learnt says nothing.
    """
    rows = [row for row in read_rows(ROWS / f"{recipe}.jsonl") if row["status"] == "finished"]
    most: dict[tuple, int] = {}
    for row in rows:
        kind = _identity(row)[:3]
        most[kind] = max(most.get(kind, 0), row["steps"])
    rows = [row for row in rows if row["steps"] == most[_identity(row)[:3]]]
    whole = [row for row in rows if length([row], recipe) >= 1]
    plain = [row for row in rows if row["arch"] == "cnn"] or rows
    return rows if rows and 1 - fmean(row["test_acc"] for row in plain) < LEARNT else whole


def collect(path: str) -> Path:
    """Add the finished seeds of a run directory, with their evaluations, to the rows of its recipe."""
    run = RunDir(path)
    if not (run.env.is_file() and run.results.is_file()):
        raise ValueError(f"{path} is no run directory with results")
    if (state := run.read_status().get("state", "unfinished")) not in ("finished", "failed"):
        raise ValueError(
            f"{path} is {state}: collect it after it has ended, or its rows mix with those of another length"
        )
    env = json.loads(run.env.read_text())
    date = datetime.fromtimestamp(run.read_status()["time"], UTC).date().isoformat()
    evals = [row for row in run.read_metrics() if row["kind"] == "eval"]
    recipe, options = _recipe(load_yaml(run.config))
    rows = []
    for _, row in sorted(run.rows().items()):
        curve = {f"{e['epoch']:g}": round(e["test_acc"], 6) for e in evals if e["seed"] == row["seed"]}
        kept = {key: value for key, value in row.items() if not isinstance(value, list) and key != "row_sha256"}
        facts = {"date": date, "commit": env["commit"], "torch": env["packages"]["torch"], "device": env["device"]}
        rows.append(kept | {"options": options} | facts | {"evaluations": curve})
    out = ROWS / f"{recipe}.jsonl"
    collected = list(map(_identity, rows))
    rows += [row for row in read_rows(out) if _identity(row) not in collected]
    rows.sort(key=_identity)
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows))
    return out


def rows_of(result: PublishedResult) -> list[Row]:
    """Return the finished seeds that may be compared with a published result."""
    rows = _finished(result.recipe)
    identity = {key: value for key in ("arch", "net") if (value := getattr(result, key))}
    rows = [row for row in rows if identity.items() <= row.items() and row.get("options") == result.options]
    return [row for row in rows if result.at in ("last", "best") or str(result.at) in row["evaluations"]]


def length(rows: list[Row], recipe: str) -> float:
    """Return the fraction of the recipe's schedule that the shortest of these runs had."""
    whole = load_yaml(CONFIGS / f"{recipe}.yaml").train
    return min(row["steps"] / whole.steps if whole.steps else row["epochs"] / (whole.epochs or 1) for row in rows)


def _reduced(rows: list[Row]) -> list[str]:
    """Return the precisions other than fp32."""
    return sorted({row.get("precision", "fp32") for row in rows} - {"fp32"})


def line(result: PublishedResult) -> str:
    rows = rows_of(result)
    cells: list[Any] = [result.system, result.unit, result]
    if not rows:
        return _row([*cells, "not run", "", "", "", ""])
    key = {"last": "test_acc", "best": "best_test_acc"}.get(str(result.at))
    accuracies = [row[key] if key else row["evaluations"][str(result.at)] for row in rows]
    ours = result.compare(accuracies)
    share = length(rows, result.recipe)
    schedule = [f"{share:.3g}" if share < 1 else "whole", *_reduced(rows)]
    cells.append(f"{ours.mean:.2f}" if ours.sd is None else f"{ours.mean:.2f} ({ours.sd:.2f})")
    cells += [ours.n, ", ".join(schedule), f"{ours.difference:+.2f}"]
    if ours.half_width is None:
        return _row([*cells, "one run says nothing"])
    agrees = "yes" if ours.agrees else "**no**"
    return _row([*cells, f"{agrees if share == 1 else 'shorter schedule'} (± {ours.half_width:.2f})"])


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
"""Recipes whose systems share a line as long as none of them has been run."""


HEADLINES = (
    "uam-biometrics, CoordConv",
    "vicsesi, CoordConv, 50 epochs",
    "manuelrames, convolution, best of 30 evaluations",
    "manuelrames, CoordConv, best of 30 evaluations",
    "manuelrames, best model, best of 45 evaluations",
    "lavanyanemani96, CIFAR-10, best of 50 evaluations",
    *(f"Finnveden et al., R, {arch}" for arch in ("cnn", "stn_c0", "stn_cx", "stn_dlx", "stn_slx")),
)
"""Systems of the README's table."""


def headlines() -> str:
    """Return the README's table, a few lines of the whole one."""
    return "\n".join(
        line for i, line in enumerate(table().splitlines()) if i < 2 or line.split(" | ")[0][2:] in HEADLINES
    )


def table() -> str:
    head = "| system | % | published | ours, mean (SD) | n | schedule | difference | within the interval |"
    lines, listed = [head, "|---" * 8 + "|"], [result for result in published_results() if result.listed]
    lines += [line(result) for result in listed if not any(result.recipe in together for together in TOGETHER.values())]
    for title, recipes in TOGETHER.items():
        group = [result for result in listed if result.recipe in recipes]
        if any(map(rows_of, group)):
            lines += map(line, group)
        else:
            shown = group[-1]._replace(value=" / ".join(result.value for result in group))
            lines.append(_row([title, shown.unit, shown, "not run", "", "", "", ""]))
    return "\n".join(lines)


SPREADS = {
    "r": ("degrees", {"stn_c0": "23.2", "stn_cx": "47.2", "stn_dlx": "26.8", "stn_slx": "18.7"}),
    "t": ("pixels", {"stn_c0": "1.16", "stn_cx": "1.15", "stn_dlx": "1.08", "stn_slx": "1.32"}),
    "s": ("log2 of the area", {"stn_c0": ".319", "stn_cx": ".508", "stn_dlx": ".291", "stn_slx": ".330"}),
}
"""Published spread of the final pose (Finnveden et al.) on rotated, translated and scaled MNIST."""
_POSE = ("pose_spread", "pose_slope", "pose_intercept", "pose_determinant", "feature_agreement", "bypass_acc")


def poses() -> str:
    """Return a table of the poses after the transformers of Finnveden et al., mean (SD) over seeds."""
    heads = ["data", "network", "n", "steps (of 70 000)", "spread published", "spread"]
    heads += [key.removeprefix("pose_").replace("_", " ") for key in _POSE[1:]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for letter, (unit, spreads) in SPREADS.items():
        known = _finished(f"finnveden_{letter}")
        for arch, spread in spreads.items():
            rows = [row for row in known if row["arch"] == arch]
            columns = [[row[key] for row in rows if row[key] is not None] for key in _POSE]
            cells = [_spread(column) for column in columns]
            steps = f"{rows[0]['steps']:,}" if rows else ""
            name = f"{letter.upper()} ({unit})"
            lines.append(_row([name, arch, len(rows) or "not run", steps, spread, *cells]))
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    stats = summary(values)
    return f"{stats.mean:.3g}" if stats.sd is None else f"{stats.mean:.3g} ({stats.sd:.2g})"


def header(text: str, recipe: str) -> str:
    """Return a recipe's file with our results in the last comment of its header, "ours"."""
    rows = _finished(recipe)
    if not rows and not (ROWS / f"{recipe}.jsonl").is_file():
        return text
    results, kinds = [], list(dict.fromkeys(_identity(row)[:3] for row in rows))
    usual = resolve(load_yaml(CONFIGS / f"{recipe}.yaml")).arch.net
    units = {result.unit for result in published_results() if result.recipe == recipe}
    unit = units.pop() if len(units) == 1 else "accuracy"
    for kind in kinds:
        kind_rows = [row for row in rows if _identity(row)[:3] == kind]
        arch, net, overrides = kind
        label = " ".join(filter(None, (arch, net if net != usual else "", overrides)))
        scores = []
        for name, key in (("last epoch", "test_acc"), ("best evaluation on the test set", "best_test_acc")):
            stats = summary([100 * (row[key] if unit == "accuracy" else 1 - row[key]) for row in kind_rows])
            spread = "" if stats.sd is None else f" (SD {stats.sd:.2f})"
            scores.append(f"{name} {stats.mean:.2f} %{spread}")
        dates = " to ".join(sorted({min(row["date"] for row in kind_rows), max(row["date"] for row in kind_rows)}))
        steps = f", {kind_rows[0]['steps']} steps" * (length(kind_rows, recipe) < 1)
        precisions = "".join(f", {precision}" for precision in _reduced(kind_rows))
        results.append(f"{label}, {unit}: {', '.join(scores)}; n = {len(kind_rows)}{steps}{precisions}, {dates}")
    results = results or ["not run for long enough to have learnt"]
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("# ours"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("#"))
    new_lines = [f"# {'ours' if i == 0 else '':10s} {line}" for i, line in enumerate(results)]
    if len(results) == 1 and rows and length(rows, recipe) == 1:
        fused = rows[0]["fused"]
        seeds = f"{fused} seeds (--fuse {fused})" if fused > 1 else "a seed"
        duration = f"{rows[0]['wall_s'] / 60:.0f} min for {seeds} in one process on {rows[0]['device']}"
        lines = [f"# time       {duration}" if line.startswith("# time") else line for line in lines]
    return "\n".join([*lines[:first], *new_lines, *lines[last:]]) + "\n"


def readme(text: str) -> str:
    """Return README.md with today's table."""
    start = "<!-- reproduction: written by benchmarks/reproduce.py -->\n"
    before, _, rest = text.partition(start)
    return f"{before}{start}{headlines()}\n{END}{rest.partition(END)[2]}"


def _collected(path: str) -> int:
    """Collect one run directory and return the exit code; skip a sweep's own folders, which a glob matches too."""
    if Path(path).parent.name in ("sweep", "report"):
        return 0
    try:
        print(collect(path))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("collect").add_argument("runs", nargs="+")
    commands.add_parser("table")
    commands.add_parser("readme")
    arguments = parser.parse_args()
    if arguments.command == "readme":
        README.write_text(readme(README.read_text()))
        for path in CONFIGS.glob("*.yaml"):
            path.write_text(header(path.read_text(), path.stem))
    elif arguments.command == "table":
        print(f"{table()}\n\n{poses()}")
    else:
        fcntl.flock(os.open(ROWS, os.O_RDONLY), fcntl.LOCK_EX)  # two processes at once would lose rows
        sys.exit(max(map(_collected, arguments.runs)))


if __name__ == "__main__":
    main()
