"""Forms of training, and the rows of what was measured of them."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

SIX = ("cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx")
NETWORKS = {"tutorial": ("stn_c0", "tutorial", "mnist"), **{arch: (arch, "finnveden_r", "mnist_r") for arch in SIX}}
MAY_FAIL = ("vmap",)
"""Forms that some versions of torch cannot run: grid_sample under vmap, with torch 2.11."""


@dataclass(frozen=True)
class Form:
    kind: str
    processes: int = 1
    seeds: int = 1
    workers: int = 0
    precision: str = "fp32"
    graph: bool = False
    script: str = "one_form.py"

    def __str__(self) -> str:
        seeds = f" {self.seeds} seed{'s' * (self.seeds > 1)}"
        more = {"loader": f" {self.workers} workers", "vmap": seeds, "fused": seeds, "jax": seeds}.get(self.kind, "")
        return self.kind + more + f" {self.precision}" * (self.precision != "fp32") + " graph" * self.graph


@dataclass
class Row:
    form: Form
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """The measurements of one form, a value per round, or its error."""

    @property
    def speeds(self) -> list[float]:
        return [r["images_per_s"] for r in self.rounds if "error" not in r]

    @property
    def median(self) -> float:
        return statistics.median(self.speeds or [0.0])

    def most(self, key: str) -> float:
        return max((r[key] for r in self.rounds if "error" not in r), default=0.0)

    def over(self, other: "Row | None") -> float | None:
        """Return the median ratio of images/s, from the rounds that have both."""
        pairs = [
            p for p in zip(self.rounds, other.rounds if other else [], strict=False) if not any("error" in r for r in p)
        ]
        return statistics.median(a["images_per_s"] / b["images_per_s"] for a, b in pairs) if pairs else None


def best(rows: list[Row], kind: str | None = None, **like: Any) -> Row | None:
    """Return the fastest row whose form has these fields."""
    like |= {"kind": kind} if kind else {}
    fits = [row for row in rows if row.speeds and like.items() <= asdict(row.form).items()]
    return max(fits, key=lambda row: row.median, default=None)


def text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
