"""The fields of a configuration for checkpoints and logging; none of them changes a result."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field

from stn.config import fields
from stn.config.fields import Duration, FolderName, OneLine, Section, short


def _of_client(variable: str, otherwise: str | tuple[()] | None = None) -> Any:
    """Take a default from one of the variables of W&B's client; in a config.yaml it holds for later uploads too."""
    return Field(default_factory=lambda: os.environ.get(f"WANDB_{variable}") or otherwise, validate_default=True)


class Checkpoint(Section):
    """When to save."""

    every: Duration = "1 epochs"
    """Time between checkpoints."""
    keep: Annotated[int, Field(ge=2, le=1_000_000_000)] = 2
    """Checkpoints kept of each seed; a damaged newest one falls back to the one before."""
    retrain: Annotated[bool, short("retrain")] = False
    """Train anew what other code has trained under this signature, after moving it to .replaced; else it is refused."""
    keep_best: bool = False
    """Keep the weights of each seed's best evaluation; without data.validation that is chosen on the test set."""


class Log(Section):
    """Where run directories are, and which trackers show them."""

    runs: Annotated[OneLine, short("runs")] = "runs"
    """Folder for run directories."""
    name: Annotated[FolderName | None, short("name")] = None
    """Experiment: the folder under runs, the W&B groups' first word and tag; None: architecture-dataset."""
    every: Duration = "50 steps"
    """Time between rows of training metrics."""
    grad_norm: bool = False
    """Log grad_norm, the norm of each seed's gradient before clipping: the mean over the steps since the last row."""
    wandb: Literal["auto", "disabled", "offline", "online"] = "auto"
    """Weights & Biases; auto: online when logged in, else offline."""
    wandb_project: fields.WandbProject = _of_client("PROJECT", "stn")
    """Project there; by default $WANDB_PROJECT, else stn."""
    wandb_entity: fields.WandbEntity | None = _of_client("ENTITY")
    """User or team there; by default $WANDB_ENTITY, else the one that you are logged in as."""
    wandb_group: fields.WandbGroup | None = _of_client("RUN_GROUP")
    """Group of the seeds' runs; by default $WANDB_RUN_GROUP, else one an experiment: W&B draws means over it."""
    wandb_tags: fields.WandbTags = _of_client("TAGS", ())
    """Tags of the runs, beside architecture, data set and name; by default $WANDB_TAGS."""
    wandb_notes: fields.WandbNotes | None = _of_client("NOTES")
    """Notes of the runs; by default $WANDB_NOTES."""
    wandb_artifact: bool = False
    """Send the final weights of every seed as an artifact."""
    tensorboard: bool = False
    """Write TensorBoard events as well (needs the tensorboard package)."""
    pictures: bool = True
    """Draw curves, confusion matrix and what the transformers do at the end; for W&B and TensorBoard also warps."""
    gif: bool = False
    """Draw warp.gif as well: the warps of test images, a frame per evaluation."""
