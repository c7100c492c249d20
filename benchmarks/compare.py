"""Compare two records of fused.py or peers.py, ratio by ratio; exit 1 if one got worse by more than its noise.

    python benchmarks/compare.py OLD.json NEW.json [--tolerance 0.1]

A ratio is of two measurements on one machine in one run (columns "x ..."), which other machines and other days share;
images/s are not compared. Its noise is twice the relative standard deviation of its row's images/s, of both records
together, over rounds, or over turns where there is one round; at least the tolerance. Ratios of different kinds of
CPU differ, and the output says so; those of different numbers of cores are shown, but end it with 0.
"""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from measure import Parser, console
from rich.table import Table

from stn.config.command_line import fail

OTHERS = ("machine", "vector_instructions")
"""Lists of a record that are not the rows of a network."""
Rows = dict[tuple[str, str], dict[str, Any]]


class Change(NamedTuple):
    """A ratio in both records."""

    row: str
    ratio: str
    old: float
    new: float
    noise: float

    @property
    def word(self) -> str:
        change = self.new / self.old - 1
        return "same" if abs(change) <= self.noise else "better" if change > 0 else "WORSE"


def read(path: Path) -> tuple[dict[str, Any], Rows]:
    """Return a record, and its rows by network and form."""
    try:
        record = json.loads(path.read_text())
        return record, read_rows(record)
    except OSError as error:
        fail(f"cannot read '{path}': {error.strerror}")
    except (ValueError, TypeError, AttributeError, KeyError):
        fail(f"'{path}' is no record of benchmarks/fused.py or peers.py (--json FILE)")


def read_rows(record: dict[str, Any]) -> Rows:
    tables = {name: rows for name, rows in record.items() if isinstance(rows, list) and name not in OTHERS}
    return {(name, _label(row["form"])): row for name, rows in tables.items() for row in rows}


def _label(form: dict[str, Any]) -> str:
    words = [form["kind"], f"{form.get('seeds', 1)} seeds", f"{form.get('processes', 1)} processes"]
    words += [f"{form['workers']} workers"] if form.get("workers") else []
    words += ["graph"] if form.get("graph") else []
    words += [form["precision"]] if form.get("precision", "fp32") != "fp32" else []
    return ", ".join(words)


def scatter(row: dict[str, Any]) -> float:
    """Return the relative standard deviation of a row's images/s; 0 where there is one value only."""
    rounds = [found for found in row["rounds"] if "error" not in found]
    speeds = [found["images_per_s"] for found in rounds]
    if len(rounds) == 1:  # the first turn is not counted, nor is it in the median
        speeds = [sum(each) for each in zip(*(p["images_per_s"][1:] for p in rounds[0]["processes"]), strict=True)]
    return statistics.stdev(speeds) / statistics.mean(speeds) if len(speeds) > 1 else 0.0


def changes(old: Rows, new: Rows, tolerance: float) -> list[Change]:
    found = []
    for key in [key for key in old if key in new]:
        noise = max(tolerance, 2 * math.hypot(scatter(old[key]), scatter(new[key])))
        for name in [name for name in old[key] if name.startswith("x ")]:
            before, after = old[key].get(name), new[key].get(name)
            if before and after and (before, after) != (1, 1):
                found.append(Change(": ".join(key), name, before, after, noise))
    return found


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument(
        "--tolerance", type=float, default=0.1, help="changes up to this fraction are noise (default 0.1)"
    )
    parser.add_argument("--only", default="", metavar="FORM", help="compare one kind of form, such as fused")
    arguments = parser.parse_args()
    if not 0 <= arguments.tolerance < 1:
        fail(f"--tolerance {arguments.tolerance:g}: give a fraction below 1, as in --tolerance 0.1")
    (old_record, old), (new_record, new) = read(arguments.old), read(arguments.new)
    old = {key: row for key, row in old.items() if arguments.only in ("", row["form"]["kind"])}
    found = changes(old, new, arguments.tolerance)
    if not found:
        fail("the records have no ratio in common")
    for key in ("cpu", "cores", "gpu", "torch"):
        if old_record.get(key) != new_record.get(key):
            console.print(f"note: another {key}: {old_record.get(key)}, now {new_record.get(key)}")
    table = Table("", "ratio", "old", "new", "noise", "")
    for change in found:
        shown = f"{change.old:.2f}", f"{change.new:.2f}", f"± {change.noise:.0%}"
        table.add_row(change.row, change.ratio, *shown, change.word)
    console.print(table)
    worse = [change for change in found if change.word == "WORSE"]
    console.print(f"{len(found)} ratios in both records, {len(worse)} worse")
    if old_record.get("cores") != new_record.get("cores"):
        console.print("not judged: a plain loop gains from more cores in other ways than many seeds do")
        return 0
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
