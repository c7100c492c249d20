"""CSV and Parquet: results and metrics as two tables, a line per seed and a line per row of its metrics.

Lines of other seeds in the tables stay; those of the same (sig, seed) are replaced.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from launch.export.command import Outcome, import_package
from launch.export.seeds import SeedRecord, scalars
from stn.runs.files import read_text, write_atomic

Table = list[dict[str, Any]]
KEY = ("sig", "seed")


def _result_line(seed: SeedRecord) -> dict[str, Any]:
    config = seed.config
    what = {"name": config.log.name, "arch": config.arch.name, "net": config.arch.net, "dataset": config.data.name}
    known = {"sig": seed.sig, "seed": seed.seed, **what, "status": seed.status}
    return known | seed.scalars | known | {"path": str(seed.run.path), "digest": seed.digest}


def _key(line: dict[str, Any]) -> tuple[str, str]:
    return str(line.get("sig")), str(line.get("seed"))


def _columns(table: Table) -> list[str]:
    return list(dict.fromkeys(key for line in table for key in line))


def _write(seeds: Iterable[SeedRecord], folder: Path, ending: str, read: Callable, save: Callable) -> Iterator[Outcome]:
    results, metrics = folder / f"results.{ending}", folder / f"metrics.{ending}"
    old_results = {_key(line): line for line in read(results)}
    whole = metrics.exists()  # else it was deleted
    exported, outcomes = dict[tuple[str, str], SeedRecord](), list[Outcome]()
    for seed in seeds:
        key = (seed.sig, str(seed.seed))
        old = old_results.get(key)
        outcome = "new" if old is None else "unchanged" if whole and old.get("digest") == seed.digest else "replaced"
        outcomes.append((seed, outcome))
        if outcome != "unchanged":
            exported[key] = seed
    if exported:
        kept = [line for key, line in old_results.items() if key not in exported]
        points = [line for line in read(metrics) if _key(line) not in exported]
        for seed in exported.values():
            points += [{"sig": seed.sig, "seed": seed.seed} | scalars(row) for row in seed.rows]
        save(metrics, points)  # first: a kill before the results are saved makes the next call replace all of it
        save(results, kept + [_result_line(seed) for seed in exported.values()])
    yield from outcomes


def _read_csv(path: Path) -> Table:
    try:
        lines = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise ValueError(f"{path} is not from an export: {error}") from None
    if lines and not set(KEY) <= lines[0].keys():
        raise ValueError(f"{path} is not from an export: it has no columns {' and '.join(KEY)}")
    return [{key: value for key, value in line.items() if key and value not in ("", None)} for line in lines]


def _save_csv(path: Path, table: Table) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(table), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_atomic(path, text.getvalue().encode(errors="replace"))  # damaged rows may hold lone surrogates


def write_csv(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    return _write(seeds, Path(out), "csv", _read_csv, _save_csv)


def write_parquet(seeds: Iterator[SeedRecord], out: str, project: str) -> Iterator[Outcome]:
    arrow = import_package("parquet")
    import pyarrow.parquet as pq  # type: ignore[import-not-found]  # an extra

    def read(path: Path) -> Table:
        if not path.exists():
            return []
        try:
            table = pq.read_table(path).to_pylist()
        except (arrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from None
        return [{key: value for key, value in line.items() if value is not None} for line in table]

    def column(values: list[Any]) -> Any:
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {int, float}:
            return arrow.array(values, arrow.float64() if float in kinds else arrow.int64())
        texts = [None if value is None else str(value).encode(errors="replace").decode() for value in values]
        return arrow.array(texts, arrow.string())

    def save(path: Path, table: Table) -> None:
        columns = {name: column([line.get(name) for line in table]) for name in _columns(table)}
        buffer = io.BytesIO()
        pq.write_table(arrow.table(columns), buffer)
        write_atomic(path, buffer.getvalue())

    return _write(seeds, Path(out), "parquet", read, save)
