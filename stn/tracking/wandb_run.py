"""One seed as a W&B run: its name, the values that are sent, and the step from which it continues.

The live sink and the later upload share it, so that a run looks the same whoever has sent it.
"""

import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import psutil

from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.tracking.pictures import COLUMNS, Ending, can_draw_confusion, confusion_image, warps_of

KINDS = ("train", "eval")
"""Kinds of rows that are sent, in the order in which a step logs them; "warp" and "pose" stay in metrics.jsonl."""
QUIET = {"silent": True, "console": "off", "init_timeout": 20, "finish_timeout": 60}
EXIT_S = 60.0
ARTIFACT_S = 120
"""Seconds that the server has to take a seed's weights."""


def logged_in(wandb: Any) -> bool:
    """Whether the client finds credentials, without asking the network or the user."""
    # Offline mode would not look for them; without silent it asks the server.
    wandb.setup(wandb.Settings(silent=True, mode="online"))
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
    if config.log.wandb_group:
        return config.log.wandb_group
    task = f"{config.arch.name}-{config.data.label}"
    name = "" if config.log.name == task else f"{_plain(config.log.name)}-"
    return f"{name}{task}-{sig[:6]}"


def init_arguments(config: Config, sig: str, seed: int) -> dict[str, Any]:
    """Return the arguments of wandb.init that describe a seed."""
    arch, dataset, name, log = config.arch.name, config.data.label, config.log.name, config.log
    facts = {"arch": arch, "net": config.arch.net, "dataset": dataset, "lr": config.optim.lr, "seed": seed}
    return {
        "project": log.wandb_project,
        "entity": log.wandb_entity,
        "notes": log.wandb_notes,
        "group": group(config, sig),
        "id": run_id(config, sig, seed),
        "name": f"{arch}-{dataset}-s{seed}",
        "tags": list(dict.fromkeys([arch, dataset, (name or "?")[:64], *log.wandb_tags])),  # W&B's limit is 64
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


def confusion_position(result: Row | None) -> int:
    """Return W&B's step of a seed's confusion matrix, which comes after its last row; -1 if it has none."""
    known = result and result.get("steps") and can_draw_confusion(result)
    return len(KINDS) * (result["steps"] + 1) if result and known else -1


def weights_hash(config: Config, run: RunDir, result: Row) -> str | None:
    """Return the hash of the weights that are to be an artifact, if there are any."""
    there = config.log.wandb_artifact and result["status"] == "finished" and run.final(result["seed"]).is_file()
    return result.get("weights_sha256") if there else None


def summary_marks(config: Config, run: RunDir, result: Row, end: Ending | None) -> dict[str, str]:
    """Return what a seed's summary says once everything has been sent."""
    sha = weights_hash(config, run, result)
    digest = end.digest if end and end.seed == result["seed"] else None
    marks = {"status": result["status"], "weights_artifact": sha, "ending": digest}
    return {key: mark for key, mark in marks.items() if mark}


class SeedRun:
    """An open run. What the server has of it already is not sent again."""

    def __init__(
        self, wandb: Any, config: Config, sig: str, seed: int, mode: str, run: RunDir, folder: str, **settings: Any
    ) -> None:
        self.wandb, self.config, self.directory, self.mode = wandb, config, run, mode
        arguments = init_arguments(config, sig, seed)
        self.id, tags = arguments["id"], arguments.pop("tags")
        self.training = settings.get("x_update_finish_state", True)  # otherwise an upload, of a run that stays open
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

    def _log(self, row: Row, at: int) -> None:
        self.run.log(row, step=at, commit=True)
        self.next = at + 1

    def send(self, rows: list[Row]) -> int:
        """Send the rows that the server lacks, evaluations with their picture; return their number."""
        new = [row for row in rows if row["kind"] in KINDS and position(row) >= self.next]
        for row in new:
            path = warps_of(self.directory, row)
            self._log(values(row) | ({"warps": self.wandb.Image(str(path))} if path else {}), position(row))
        return len(new)

    def finish(self, result: Row | None, end: Ending | None = None, extras: bool = True) -> None:
        """Close the run with a result, and with what belongs to it if ``extras``; without, as preempted or failed."""
        try:
            for key, value in (result or {}).items():
                if isinstance(value, int | float | str) and key != "row_sha256":  # which is of the row's file
                    self.run.summary[key] = value
            if result and extras:
                self._send_extras(result, end)
        finally:
            if self.training and result is None and sys.exception() is None:
                self.run.mark_preempting()
            self.run.finish(exit_code=0 if result and result["status"] == "finished" else 1)

    def _send_extras(self, result: Row, end: Ending | None) -> None:
        """Send the confusion matrix, the weights if asked for, and what the run directory ends with."""
        at = {"global_step": result.get("steps"), "epoch": result.get("epochs")}
        after = confusion_position(result)
        if after >= self.next:
            image = confusion_image(result["confusion"])
            caption = "true class from top to bottom, predicted class from left to right"
            self._log({"confusion": self.wandb.Image(image, caption=caption)} | at, after)
        marks = summary_marks(self.config, self.directory, result, end)
        if "weights_artifact" in marks:
            self._once("weights_artifact", marks, lambda: self._send_weights(result))
        if end and "ending" in marks:
            table = self.wandb.Table(columns=list(COLUMNS), data=end.lines, allow_mixed_types=True)
            pictures = {f"pictures/{name}": self.wandb.Image(str(path)) for name, path in end.pictures.items()}
            row = pictures | {"seeds": table} | at
            self._once("ending", marks, lambda: self._log(row, max(self.next, after + 1)))

    def _once(self, key: str, marks: dict[str, str], act: Callable[[], None]) -> None:
        """Run an act that the summary does not record as done, then record it there."""
        if self.run.summary.get(key) != marks[key]:
            act()
            self.run.summary[key] = marks[key]

    def _send_weights(self, result: Row) -> None:
        facts = {key: result.get(key) for key in ("sig", "seed", "arch", "dataset", "weights_sha256")}
        artifact = self.wandb.Artifact(f"{self.id}-weights", type="model", metadata=facts)
        artifact.add_file(str(self.directory.final(result["seed"])), name="final.safetensors")
        sent = self.run.log_artifact(artifact)
        if self.mode == "online":
            sent.wait(timeout=ARTIFACT_S)
