"""Seed lists such as 0,3,8-15, and how they are shared out."""

import re

MOST_SEEDS = 1_000_000


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of a list such as '0,3,8-10': [0, 3, 8, 9, 10]."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r" *([0-9]{1,99})(?: *- *([0-9]{1,99}))? *", part)
        if not match:
            how = "write numbers and ranges with commas between: 0,1 or 0,8-15"
            raise ValueError(f"cannot read {part.strip()!r:.80}; {how}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**31 or len(seeds) + last - first >= MOST_SEEDS:
            raise ValueError(f"'{part}' goes beyond seed 2^31 - 1, or {MOST_SEEDS:,} seeds")
        if last < first:
            raise ValueError(f"the range '{part}' ends before it begins")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice")
    return seeds


def format_seeds(seeds: list[int]) -> str:
    """Return the list, as parse_seeds reads it, of seeds in rising order: '0,3,8-10'."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def share(n: int, rank: int, world: int) -> range:
    """Return a rank's contiguous share of n indices, of seeds or rows; shares differ in size by at most one."""
    return range(rank * n // world, (rank + 1) * n // world)
