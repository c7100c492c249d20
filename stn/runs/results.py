"""The result rows of a block of seeds: published at once, one row per seed, each repaired from a second copy.

The rows of a block are published together (.rows/pending-*), then each under a name that can be created only once
(.rows/<seed>, which decides whose row counts), then in results.jsonl.
"""

import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from stn.config.resolve import resolve, signature
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.files import parse_rows, publish, read_json, read_rows, read_text, write_atomic
from stn.runs.lease import Lease
from stn.runs.predictions import faults
from stn.runs.records import Result, Row, hash_of, valid


def lines(rows: list[Row]) -> str:
    """Return rows as JSONL."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


class Results:
    """A directory with result rows, and the lease on it."""

    def __init__(self, path: Path) -> None:
        self.path, self.results, self.published = path, path / "results.jsonl", path / ".rows"
        self.lease = Lease(path / ".claim")

    @property
    def sig(self) -> str | None:
        """The signature in its path; None if it was moved elsewhere."""
        name = self.path.absolute().parent.name
        return name if re.fullmatch("[0-9a-f]{12}", name) else None

    def find_sig(self, rows: Iterable[Row]) -> str:
        """Return the signature; of a directory that was moved the one in its rows, its env.json or its configuration.

        It is a ValueError if none of them has one.
        """
        records = () if self.sig else (*rows, read_json(self.path / "env.json"))
        if sig := self.sig or next((row["sig"] for row in records if isinstance(row.get("sig"), str)), None):
            return sig
        config = load_yaml(self.path / "config.yaml")
        try:
            return signature(resolve(config))
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path / 'config.yaml'}: {error}") from None

    @cached_property
    def seeds(self) -> set[int] | None:
        """The seeds in the directory's name; None if the name is a hash of them."""
        with suppress(ValueError):
            return set(parse_seeds(self.path.name))
        return None

    @property
    def asked(self) -> set[int]:
        """The seeds that it is to train, by its configuration if the name is a hash; ValueError if that is damaged."""
        return self.seeds or set(parse_seeds(load_yaml(self.path / "config.yaml").train.seeds))

    def may_write(self) -> bool:
        """Whether we still hold the lease; re-reads the directory."""
        return not self.lease.token or self.lease.held()

    @contextmanager
    def unless_deposed(self) -> Iterator[None]:
        """Ignore that a temporary file is gone if the lease is: whoever has taken over deletes them."""
        try:
            yield
        except FileNotFoundError:
            if self.may_write():
                raise

    def replace(self, path: Path, content: bytes | str) -> bool:
        """Replace a file of this directory, unless the lease is lost; return whether it was replaced."""
        with self.unless_deposed():
            return write_atomic(path, content, self.may_write)
        return False

    @cached_property
    def _sig_of_rows(self) -> str | None:
        """The signature of its rows: of a directory that was moved, of the first one that has one."""
        if self.sig:
            return self.sig
        published = [read_json(path) for _, path in sorted(self._published_files().items())]
        rows = valid([*read_rows(self.results), *published], Result)
        return next((row["sig"] for row in rows if row.get("sig")), None)

    def _of_this_block(self, rows: Iterable[Row]) -> dict[int, Row]:
        """Return the result rows among these by seed, without those that are damaged or of another run."""
        sig = self._sig_of_rows
        here = [row for row in valid(rows, Result) if sig is None or row.get("sig", sig) == sig]
        return {row["seed"]: row for row in here if self.seeds is None or row["seed"] in self.seeds}

    def _published_files(self) -> dict[int, Path]:
        return {int(path.name): path for path in self.published.glob("*") if path.name.isdecimal()}

    def _published_rows(self, files: dict[int, Path]) -> dict[int, Row]:
        rows = {seed: self._of_this_block([read_json(path)]).get(seed) for seed, path in files.items()}
        return {seed: row for seed, row in rows.items() if row}

    def rows(self) -> dict[int, Row]:
        """Return the result rows of this block by seed, including those not yet in results.jsonl."""
        rows = self._of_this_block(read_rows(self.results))
        return rows | self._published_rows({s: path for s, path in self._published_files().items() if s not in rows})

    def skipped_lines(self) -> list[str]:
        """Return a message if results.jsonl has lines that rows() does not read."""
        texts = read_text(self.results).splitlines()
        skipped = len(texts) - len(self._of_this_block(parse_rows(texts)))
        return [f"{self.results}: skipped {skipped} damaged, foreign or repeated lines"] if skipped else []

    def blocks(self) -> list[Self]:
        """Return the run directories of the experiment."""
        return [type(self)(path) for path in sorted(self.path.parent.glob("*")) if path.is_dir()]

    def finished(self) -> dict[int, Row]:
        """Return the result rows by seed, of all blocks of the experiment."""
        return {seed: row for run in reversed(self.blocks()) for seed, row in run.rows().items()}

    def _others_with_row(self, seed: int) -> list[Self]:
        """Return the other blocks that have a row of this seed; any block may if its name is a hash."""
        others = [run for run in self.blocks() if run.path.name != self.path.name]
        return [run for run in others if (run.seeds is None or seed in run.seeds) and seed in run.rows()]

    def add_results(self, rows: list[Row]) -> None:
        """Publish the rows of a block of seeds: all of them or, after a kill, none."""
        pending = self.published / f"pending-{socket.gethostname()}-{os.getpid()}"
        signed = [row | {"row_sha256": hash_of(json.loads(lines([row])))} for row in rows]
        if self.replace(pending, lines(signed)):
            self.publish_pending()

    def publish_pending(self) -> None:
        """Publish each pending row; if another block of the experiment has one for its seed, that one stays."""
        for path in self.published.glob("pending-*"):
            for seed, row in self._of_this_block(read_rows(path)).items():
                file = self.published / str(seed)
                if not self._others_with_row(seed) and not publish(file, lines([row])) and seed not in self.rows():
                    self.replace(file, lines([row]))  # the one there is damaged
            path.unlink(missing_ok=True)
        self._write_results(self.rows)
        self.settle(set(self.rows()))

    def settle(self, seeds: set[int]) -> None:
        """Keep one row per seed. Two blocks that publish at once both check afterwards, so at least one sees both."""
        for seed in seeds & set(self.rows()):
            for later in sorted([self, *self._others_with_row(seed)], key=lambda run: run.path)[1:]:
                later.forget({seed})

    def _write_results(self, rows: Callable[[], dict[int, Row]]) -> None:
        """Write rows into results.jsonl; repeat if another process overwrote it with older ones."""
        while (text := lines([row for _, row in sorted(rows().items())])) != read_text(self.results):
            if not self.replace(self.results, text):
                return

    def _all_rows(self) -> dict[int, Row]:
        """Return the rows of results.jsonl and of .rows, which counts where they differ."""
        return self._of_this_block(read_rows(self.results)) | self._published_rows(self._published_files())

    def is_whole(self) -> bool:
        """Whether results.jsonl, .rows and predictions are undamaged, and rows say the same in both places."""
        files, rows = self._published_files(), self._all_rows()
        text = lines([row for _, row in sorted(rows.items())])
        same = self._published_rows(files).keys() == files.keys() == rows.keys() and text == read_text(self.results)
        return same and not faults(self.path, rows)

    def heal(self, tell: Callable[[str], None]) -> None:
        """Publish what a kill has left pending, and repair results.jsonl and .rows from each other."""
        texts = read_text(self.results).splitlines()
        if bad := len(texts) - len(self._of_this_block(parse_rows(texts))):
            tell(f"{self.results}: {bad} damaged or foreign lines are dropped; .rows may have their other copy")
        self.publish_pending()
        files, rows = self._published_files(), self._all_rows()
        for seed in rows.keys() - files.keys():  # deleted, or of before there were two copies
            self.replace(self.published / str(seed), lines([rows[seed]]))
        for seed in files.keys() - self._published_rows(files).keys():
            tell(f"{files[seed]} was damaged; " + ("repaired" if seed in rows else "its seed is trained again"))
            if seed in rows:
                self.replace(files[seed], lines([rows[seed]]))
            else:
                files[seed].unlink(missing_ok=True)
        self._write_results(self._all_rows)
        for fault in faults(self.path, self.rows()):
            tell(f"{fault}; reports leave it out where they compare images")

    def forget(self, seeds: set[int]) -> None:
        """Delete the rows of these seeds from this block."""
        for seed in seeds:
            (self.published / str(seed)).unlink(missing_ok=True)
        self.replace(self.results, lines([row for seed, row in sorted(self.rows().items()) if seed not in seeds]))
        self._write_results(self.rows)
