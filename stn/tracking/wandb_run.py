"""One seed as a W&B run: its name, the values that are sent, and the step from which it continues.

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
"""Kinds of rows that are sent, in the order in which a step logs them; "warp" and "pose" stay in metrics.jsonl."""
QUIET = {"silent": True, "console": "off", "init_timeout": 20, "finish_timeout": 60}
EXIT_S = 60.0


def logged_in(wandb: Any) -> bool:
    """Whether the client finds credentials, without asking the network or the user."""
    wandb.setup(wandb.Settings(silent=True, mode="online"))  # offline it would not look; loud it asks the server
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError:  # a malformed key: wandb.init tells the user
        return True


@cache
def bound_exit() -> None:
    """Kill W&B's own process some time after Python's end, which waits for it: it may hang forever (0.31, no server).

    What did not get through is in metrics.jsonl, and is sent the next time.
    """

    def watch() -> None:
        threading.main_thread().join()
        time.sleep(EXIT_S)
        for child in psutil.Process().children():
            if child.name().startswith("wandb"):
                child.kill()

    threading.Thread(target=watch, name="bound-exit", daemon=True).start()


def _plain(name: str | None) -> str:
    """Return a name for identifiers and links, at most 80 characters; two names never become one."""
    assert name, "only a resolved configuration has a name"
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:73]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def run_id(config: Config, sig: str, seed: int) -> str:
    """Return the id of a seed's run, stable so that a resumed seed continues its run."""
    return f"{_plain(config.log.name)}-{sig}-{seed}"


def group(config: Config, sig: str) -> str:
    """Return the group of an experiment: W&B draws mean and spread over it, hence it has the seeds alone."""
    task = f"{config.arch.name}-{config.data.label}"
    name = "" if config.log.name == task else f"{_plain(config.log.name)}-"
    return f"{name}{task}-{sig[:6]}"


def init_arguments(config: Config, sig: str, seed: int) -> dict[str, Any]:
    """Return the arguments of wandb.init that describe a seed."""
    arch, dataset, name = config.arch.name, config.data.label, config.log.name
    facts = {"arch": arch, "net": config.arch.net, "dataset": dataset, "lr": config.optim.lr, "seed": seed}
    return {
        "project": config.log.wandb_project,
        "group": group(config, sig),
        "id": run_id(config, sig, seed),
        "name": f"{arch}-{dataset}-s{seed}",
        "tags": list(dict.fromkeys([arch, dataset, (name or "?")[:64]])),  # W&B takes no longer ones
        "config": facts | {"sig": sig, "name": name, "config": config.model_dump(mode="json")},
    }


def position(row: Row) -> int:
    """Return W&B's step of a row: it rises from row to row of a seed, whatever the intervals of logging."""
    return len(KINDS) * row["step"] + KINDS.index(row["kind"])


def values(row: Row) -> Row:
    """Return the values of a row as W&B draws them."""
    prefix = "train/" if row["kind"] == "train" else ""
    numbers = {f"{prefix}{k}": v for k, v in row.items() if isinstance(v, float) and k != "epoch"}
    return numbers | {"global_step": row["step"], "epoch": row["epoch"]}


class SeedRun:
    """An open run. What the server has of it already is not sent again."""

    def __init__(
        self, wandb: Any, config: Config, sig: str, seed: int, mode: str, folder: str, **settings: Any
    ) -> None:
        arguments = init_arguments(config, sig, seed)
        tags = arguments.pop("tags")
        bound_exit()
        arguments |= {"dir": folder, "mode": mode, "resume": "allow", "reinit": "create_new"}
        self.run = wandb.init(**arguments, settings=wandb.Settings(**{**QUIET, **settings}))
        self.run.define_metric("*", step_metric="global_step")
        present = tuple(self.run.tags or ())  # of a resumed run: also those that people gave it
        if set(tags) - set(present):
            self.run.tags = tuple(dict.fromkeys((*present, *tags)))
        self.next = self.run.starting_step
        """The first position that the server does not have: W&B's own step, that of the history's last row. The
        summary would not do: it is sent separately and may be ahead of the history or behind."""

    def send(self, rows: list[Row]) -> int:
        """Send the rows that the server lacks; return their number."""
        new = [row for row in rows if row["kind"] in KINDS and position(row) >= self.next]
        for row in new:
            self.run.log(values(row), step=position(row), commit=True)
            self.next = position(row) + 1
        return len(new)

    def finish(self, result: Row | None) -> None:
        """Write a result's values into the summary and close the run."""
        for key, value in (result or {}).items():
            if isinstance(value, int | float | str) and key != "row_sha256":  # which is of the row's file alone
                self.run.summary[key] = value
        self.run.finish(exit_code=1 if result and result["status"] == "failed" else 0)
