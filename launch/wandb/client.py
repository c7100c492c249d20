"""W&B's server: which of our runs it has, and sending it the rest. Every failure is an OSError of one line."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launch.wandb.record import SeedRecord
from stn.tracking.wandb_run import SeedRun, bound_exit, logged_in

PAGE = 50
"""Runs asked for in one request."""
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
    """A connection to W&B's server, as the user who is logged in."""

    def __init__(self, folder: str) -> None:
        import wandb  # takes half a second

        if not logged_in(wandb):
            raise PermissionError("not logged in to W&B: run `wandb login` on this machine first")
        self.wandb, self.folder = wandb, folder
        bound_exit()
        with self.one_line_errors():
            self.api = wandb.Api(timeout=TIMEOUT_S)
            self.entity = self.api.settings["entity"] or self.api.default_entity
        self.address = f"{self.api.settings['base_url']}/{self.entity}"

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each layer of the client has its own classes
            text = "W&B does not answer; nothing is lost, run the same command again"
            raise ConnectionError(f"{text}: {one_line(error)}") from None

    def runs(self, project: str, ids: list[str]) -> dict[str, Any]:
        """Return the runs that the server has of these ids."""
        runs: dict[str, Any] = {}
        self.api.flush()
        with self.one_line_errors():
            for i in range(0, len(ids), PAGE):
                page = {"name": {"$in": ids[i : i + PAGE]}}  # W&B's filters call the id a name
                try:
                    answer = self.api.runs(f"{self.entity}/{project}", filters=page, per_page=PAGE, lazy=False)
                    runs |= {run.id: run for run in answer}
                except ValueError:  # the project does not exist yet
                    return {}
        return runs

    def send(self, seed: SeedRecord) -> int:
        """Send what the server lacks of a seed and return the number of rows; an unfinished seed's run stays open."""
        finish = {"x_update_finish_state": seed.result is not None}
        run = SeedRun(self.wandb, seed.config, seed.sig, seed.seed, "online", self.folder, **UPLOAD, **finish)
        sent = run.send(seed.rows)
        run.finish(seed.result)
        return sent


@contextmanager
def scratch() -> Iterator[str]:
    """Give W&B a temporary folder for its own files, none of which are needed afterwards."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(prefix="wandb-sync-", ignore_cleanup_errors=True) as folder:
        os.environ["WANDB_DIR"] = folder
        try:
            yield folder
        finally:
            os.environ.pop("WANDB_DIR")
            if before is not None:
                os.environ["WANDB_DIR"] = before
