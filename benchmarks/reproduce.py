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
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from reproduction_rows import CONFIGS, ROWS, collect, finished_rows, identity_of, length, precisions, rows_file
from reproduction_tables import headlines, poses, table

from launch.report.analysis.published import published_results
from launch.report.analysis.stats import summary
from stn.config.resolve import resolve
from stn.config.yaml_files import load_yaml

README = Path(__file__).parent.parent / "README.md"
END = "<!-- end -->"


def header(text: str, recipe: str) -> str:
    """Return a recipe's file with our results in the last comment of its header, "ours"."""
    rows = finished_rows(recipe)
    if not rows and not rows_file(recipe).is_file():
        return text
    results, kinds = [], list(dict.fromkeys(identity_of(row)[:3] for row in rows))
    usual = resolve(load_yaml(CONFIGS / f"{recipe}.yaml")).arch.net
    units = {result.unit for result in published_results() if result.recipe == recipe}
    unit = units.pop() if len(units) == 1 else "accuracy"
    for kind in kinds:
        kind_rows = [row for row in rows if identity_of(row)[:3] == kind]
        arch, net, overrides = kind
        label = " ".join(filter(None, (arch, net if net != usual else "", overrides)))
        scores = []
        for name, key in (("last epoch", "test_acc"), ("best evaluation on the test set", "best_test_acc")):
            stats = summary([100 * (row[key] if unit == "accuracy" else 1 - row[key]) for row in kind_rows])
            spread = "" if stats.sd is None else f" (SD {stats.sd:.2f})"
            scores.append(f"{name} {stats.mean:.2f} %{spread}")
        dates = " to ".join(sorted({min(row["date"] for row in kind_rows), max(row["date"] for row in kind_rows)}))
        steps = f", {kind_rows[0]['steps']} steps" * (length(kind_rows, recipe) < 1)
        reduced = "".join(f", {precision}" for precision in precisions(kind_rows))
        results.append(f"{label}, {unit}: {', '.join(scores)}; n = {len(kind_rows)}{steps}{reduced}, {dates}")
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
