"""What a loopback server of W&B knows about one run.

History lines are kept by their offset, as W&B's server does: a line that is sent twice (its answer was lost) is one
line.
"""

import json
from typing import Any


class Kept:
    """What the server knows about one run."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}
        self.config: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self.summary = "{}"
        self.exit_code: int | None = None
        self.preempting = False

    def upsert(self, variables: dict[str, Any]) -> None:
        self.fields |= {key: value for key, value in variables.items() if value is not None}
        if variables.get("config"):
            self.config |= {k: v["value"] for k, v in json.loads(variables["config"]).items()}

    def stream(self, body: dict[str, Any]) -> None:
        for name, chunk in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                self.lines |= dict(enumerate(chunk["content"], chunk["offset"]))
            elif name == "wandb-summary.json":
                self.summary = chunk["content"][-1]
        self.preempting = body.get("preempting", self.preempting)
        if body.get("complete"):
            self.exit_code = body["exitcode"]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[i]) for i in sorted(self.lines)]

    def resume_status(self, name: str) -> dict[str, Any]:
        tail = [self.lines[max(self.lines)]] if self.lines else []
        return self.bucket(name) | {
            "summaryMetrics": self.summary,
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }

    @property
    def state(self) -> str:
        if self.preempting and self.exit_code:
            return "preempted"
        return {None: "running", 0: "finished"}.get(self.exit_code, "failed")

    def facts(self, name: str) -> dict[str, Any]:
        steps = [row["_step"] for row in self.rows]
        keys = {"lastStep": max(steps), "keys": {}, "sets": []} if steps else None
        more = {"summaryMetrics": self.summary, "systemMetrics": "{}", "historyKeys": keys}
        return self.bucket(name) | more | {"state": self.state, "projectId": "1", "user": {"name": "me"}}

    def bucket(self, name: str) -> dict[str, Any]:
        entity = {"id": "e", "name": self.fields.get("entity") or "me"}
        return {
            "id": name,
            "name": name,
            "displayName": self.fields.get("displayName"),
            "description": None,
            "config": json.dumps({key: {"value": value} for key, value in self.config.items()}),
            "sweepName": None,
            "historyLineCount": len(self.lines),
            "tags": self.fields.get("tags"),
            "project": {"id": "p", "name": self.fields.get("project"), "entity": entity},
        }
