"""The seed axis: networks are ordinary modules that see one seed; here many of them run as one."""

from stn.seeds.model import Seeds, with_penalty
from stn.seeds.stacked import SeedOps, Stacked

__all__ = ["SeedOps", "Seeds", "Stacked", "with_penalty"]
