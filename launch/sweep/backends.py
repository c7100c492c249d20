"""The back ends that run a sweep's jobs: their interface, and the registry behind ``--on``.

A new scheduler is one file with a class of these methods, and one line in BACKENDS (see README.md).
"""

from typing import Protocol

from launch.sweep.local import Local
from launch.sweep.plan import Job, Plan
from launch.sweep.slurm import Slurm
from stn.config.registry import nearest


class Backend(Protocol):
    """What a sweep needs of a scheduler."""

    runs_here: bool
    """Whether submit runs the jobs itself and returns after they have ended."""

    def active_jobs(self, plan: Plan, release_held: bool) -> set[str]:
        """Return the ids of jobs that an earlier submission has queued or running."""
        ...

    def preview(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> str:
        """Return the text of --dry-run: what submit would do."""
        ...

    def check(self, plan: Plan) -> None:
        """Raise ValueError if submit would refuse; called first, since a submission clears failure records."""
        ...

    def submit(self, plan: Plan, jobs: list[Job], max_parallel: int | None) -> int:
        """Submit or run jobs, at most max_parallel at a time; return the exit code."""
        ...

    def requeue(self) -> None:
        """Put the job of this process back into the queue; called at the end of ``python -m launch task``."""
        ...


BACKENDS: dict[str, Backend] = {"local": Local(), "slurm": Slurm()}


def find_backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise ValueError(f"no back end '{name}' for --on; {nearest(name, BACKENDS)}")
    return BACKENDS[name]
