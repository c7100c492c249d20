"""Schemas of a run directory's JSON files: readers get only records that pass.

Unknown fields are kept: older and newer versions read each other's files.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stn.config.fields import Seeds

Row = dict[str, Any]
Count = Annotated[int, Field(ge=0, lt=10**15)]
Share = Annotated[float, Field(ge=0, le=1.001)] | None
"""A mean over a batch in float32 may exceed 1 by rounding."""
Amount = Annotated[float, Field(ge=0)] | None
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def hash_of(row: Row) -> str:
    """Return the hash of the fields of a result row, or of a checkpoint's header, but for a row's own hash."""
    fields = {key: value for key, value in row.items() if key != "row_sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Predictions(Record):
    """What a result row says of its file in predictions/."""

    file: Annotated[str, Field(pattern=r"^predictions/seed-\d{1,10}\.safetensors$")]
    bytes: Count
    sha256: Sha256
    labels_sha256: Sha256
    """Of the labels of the test images, in their order."""


class Result(Record):
    """A line of results.jsonl, and .rows/<seed>."""

    seed: Seed
    status: Literal["finished", "failed"]
    sig: str | None = None
    reason: str | None = None
    params: Count | None = None
    steps: Count | None = None
    epochs: Amount = None
    test_acc: Share = None
    val_acc: Share = None
    best_test_acc: Share = None
    best_val_acc: Share = None
    test_loss: Amount = None
    val_loss: Amount = None
    macro_f1: Share = None
    wall_s: Amount = None
    images_per_s: Amount = None
    world_size: Count | None = None
    confusion: list[list[Count]] | None = None
    per_class_acc: list[float] | None = None
    weights_sha256: Sha256 | None = None
    fingerprint: dict[str, Any] | None = None
    predictions: Predictions | None = None
    """Older rows, and those of failed seeds, have none."""
    row_sha256: Sha256 | None = None
    """Older rows have none."""

    @model_validator(mode="before")
    @classmethod
    def _is_as_published(cls, row: Row) -> Row:
        if row.get("row_sha256") not in (None, hash_of(row)):
            raise ValueError("a field was changed: row_sha256 differs")
        return row


class Metric(Record):
    """A line of metrics.jsonl."""

    kind: Literal["train", "eval", "warp", "pose"]
    seed: Seed
    step: Count
    epoch: Annotated[float, Field(ge=0)]
    loss: float | None = None
    acc: Share = None
    images_per_s: Amount = None
    test_acc: Share = None
    val_acc: Share = None


class Status(Record):
    """status.json."""

    state: Literal["running", "stopped", "finished", "failed"]
    time: float = 0.0
    seeds: Seeds = "0"
    step: Count = 0
    steps: Annotated[int, Field(gt=0, lt=10**15)] = 1
    reason: str | None = None


class Holder(Record):
    """A file of .claim: who holds a lease."""

    place: Annotated[list[str], Field(min_length=1)]
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    since: float
    job: str | None
    restart: int
    released: bool
    beat: int


def valid(rows: Iterable[Row], schema: type[BaseModel]) -> list[Row]:
    """Return the rows that pass a schema, as they are."""
    passed = []
    for row in rows:
        try:
            schema.model_validate(row)
        except (ValidationError, RecursionError):
            continue
        passed.append(row)
    return passed
