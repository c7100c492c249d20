"""One seed as a W&B run: what it is called, which values are sent, and from where it goes on.

The live sink and the later upload share it, so that a run looks the same whoever has sent it.
"""

import hashlib
import re
import threading
import time
from functools import cache
from typing import Any

import psutil

from stn.config.schema import Config
from stn.runs.directory import Row

KINDS = ("train", "eval")
"""What is sent, in the order in which it is logged at a step; transforms (kinds "warp", "pose") stay in the record."""
QUIET = {"silent": True, "console": "off", "init_timeout": 20, "finish_timeout": 60}
EXIT_S = 60.0


def logged_in(wandb: Any) -> bool:
    """Whether credentials are at hand, wherever the client looks for them, without asking the network or the user."""
    wandb.setup(wandb.Settings(silent=True, mode="online"))  # offline it would not look; loud it asks the server
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError:  # a key that cannot be one: its user is told so
        return True


@cache
def bound_exit() -> None:
    """At its end Python waits for W&B's own process, which has been seen to stay for ever (0.31, no server): end that.

    What did not get through is in the record, and is sent the next time.
    """

    def watch() -> None:
        threading.main_thread().join()
        time.sleep(EXIT_S)
        for child in psutil.Process().children():
            if child.name().startswith("wandb"):
                child.kill()

    threading.Thread(target=watch, name="bound-exit", daemon=True).start()


def _plain(name: str | None) -> str:
    """A name for identifiers and links, at most 80 characters; two names never become one."""
    assert name, "only a resolved configuration has a name"
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:73]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def run_id(config: Config, sig: str, seed: int) -> str:
    """The same for ever, so that a continued seed continues its run."""
    return f"{_plain(config.log.name)}-{sig}-{seed}"


def group(config: Config, sig: str) -> str:
    """One experiment: W&B draws mean and spread over a group, which must be over its seeds alone."""
    what = f"{config.arch.name}-{config.data.name}"
    name = "" if config.log.name == what else f"{_plain(config.log.name)}-"
    return f"{name}{what}-{sig[:6]}"


def init_arguments(config: Config, sig: str, seed: int) -> dict[str, Any]:
    """What W&B is told of a seed when its run begins."""
    facts = {
        "arch": config.arch.name,
        "net": config.arch.net,
        "dataset": config.data.name,
        "lr": config.optim.lr,
        "seed": seed,
        "sig": sig,
        "name": config.log.name,
    }
    tags = [config.arch.name, config.data.name, (config.log.name or "?")[:64]]  # W&B takes no longer ones
    return {
        "project": config.log.wandb_project,
        "group": group(config, sig),
        "id": run_id(config, sig, seed),
        "name": f"{config.arch.name}-{config.data.name}-s{seed}",
        "tags": list(dict.fromkeys(tags)),
        "config": facts | {"config": config.model_dump(mode="json")},
    }


def position(row: Row) -> int:
    """Where a row stands in a seed's history: rises from row to row, whatever the intervals of logging."""
    return len(KINDS) * row["step"] + KINDS.index(row["kind"])


def values(row: Row) -> Row:
    """A row as W&B draws it."""
    prefix = "train/" if row["kind"] == "train" else ""
    numbers = {f"{prefix}{k}": v for k, v in row.items() if isinstance(v, float) and k != "epoch"}
    return numbers | {"global_step": row["step"], "epoch": row["epoch"]}


def summary(result: Row) -> Row:
    return {key: value for key, value in result.items() if isinstance(value, int | float | str)}


class SeedRun:
    """An open run. What the server has of it already is not sent again."""

    def __init__(
        self, wandb: Any, config: Config, sig: str, seed: int, mode: str, folder: str, **settings: Any
    ) -> None:
        about = init_arguments(config, sig, seed)
        tags = about.pop("tags")
        bound_exit()
        self.run = wandb.init(
            **about,
            dir=folder,
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**{**QUIET, **settings}),
        )
        self.run.define_metric("*", step_metric="global_step")
        own = tuple(self.run.tags or ())  # of a continued run: also those that people gave it
        if set(tags) - set(own):
            self.run.tags = tuple(dict.fromkeys((*own, *tags)))
        self.next = self.run.starting_step
        """The first position that the server does not have. It is W&B's own step, of the last row of
        the history: the summary is sent beside the history, and may be ahead of it or behind."""

    def send(self, rows: list[Row]) -> int:
        """Send what is new; how many that were."""
        new = [row for row in rows if row["kind"] in KINDS and position(row) >= self.next]
        for row in new:
            self.run.log(values(row), step=position(row), commit=True)
            self.next = position(row) + 1
        return len(new)

    def finish(self, result: Row | None) -> None:
        for key, value in summary(result or {}).items():
            self.run.summary[key] = value
        self.run.finish(exit_code=1 if result and result["status"] == "failed" else 0)
