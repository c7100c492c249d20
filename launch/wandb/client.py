"""W&B's server, as far as run directories are concerned: what it has of them, and sending the rest.

Owns what may go wrong on the way: each is an OSError of one line. Must not know files of ours.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launch.wandb.record import Seed
from stn.tracking.wandb_run import SeedRun, bound_exit, logged_in

PAGE = 50
"""Runs that the server is asked for at once."""
TIMEOUT_S = 20
UPLOAD = {
    "x_disable_stats": True,  # of this machine, which trains nothing
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "finish_timeout_raises": True,
}


def one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class Server:
    """W&B, as far as it is asked and sent to."""

    def __init__(self, folder: str) -> None:
        import wandb  # imported when it is used: half a second

        if not logged_in(wandb):
            raise PermissionError("not logged in to W&B: run `wandb login` on this machine first")
        self.wandb, self.folder = wandb, folder
        bound_exit()
        with self._or_one_line():
            self.api = wandb.Api(timeout=TIMEOUT_S)
            self.entity = self.api.settings["entity"] or self.api.default_entity
        self.place = f"{self.api.settings['base_url']}/{self.entity}"

    @contextmanager
    def _or_one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each layer of the client has kinds of its own
            raise ConnectionError(f"W&B does not answer; nothing is lost, call again: {one_line(error)}") from None

    def ask(self, project: str, ids: list[str]) -> dict[str, Any]:
        """The runs that it has of these."""
        found: dict[str, Any] = {}
        self.api.flush()
        with self._or_one_line():
            for i in range(0, len(ids), PAGE):
                page = {"name": {"$in": ids[i : i + PAGE]}}  # W&B's filters call the id a name
                try:
                    runs = self.api.runs(f"{self.entity}/{project}", filters=page, per_page=PAGE, lazy=False)
                    found |= {run.id: run for run in runs}
                except ValueError:  # no such project yet
                    return {}
        return found

    def send(self, seed: Seed) -> int:
        """What it lacks of a seed; the number of rows. An unfinished one stays as running as it was."""
        ends = {"x_update_finish_state": seed.result is not None}
        run = SeedRun(self.wandb, seed.config, seed.sig, seed.seed, "online", self.folder, **UPLOAD, **ends)
        sent = run.rows(seed.rows)
        run.finish(seed.result)
        return sent


@contextmanager
def scratch() -> Iterator[str]:
    """A folder for W&B's own files, none of which are needed afterwards."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(prefix="wandb-sync-", ignore_cleanup_errors=True) as folder:
        os.environ["WANDB_DIR"] = folder
        try:
            yield folder
        finally:
            os.environ.pop("WANDB_DIR")
            if before is not None:
                os.environ["WANDB_DIR"] = before
