"""The fields of a configuration for checkpoints and logging; none of them changes a result."""

from typing import Annotated, Literal

from pydantic import Field

from stn.config import fields
from stn.config.fields import Duration, FolderName, OneLine, Section, short


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
    wandb_project: fields.WandbProject = "stn"
    """Project there."""
    wandb_entity: fields.WandbEntity | None = None
    """User or team there; None: the one that you are logged in as."""
    wandb_group: fields.WandbGroup | None = None
    """Group of the seeds' runs; None: one for each experiment, over which W&B draws mean and spread."""
    wandb_tags: fields.WandbTags = ()
    """Tags of the runs, beside architecture, data set and name."""
    wandb_notes: fields.WandbNotes | None = None
    """Notes of the runs."""
    wandb_artifact: bool = False
    """Send the final weights of every seed as an artifact."""
    tensorboard: bool = False
    """Write TensorBoard events as well (needs the tensorboard package)."""
    pictures: bool = True
    """Draw curves, confusion matrix and what the transformers do at the end; for W&B and TensorBoard also warps."""
    gif: bool = False
    """Draw warp.gif as well: the warps of test images, a frame per evaluation."""
