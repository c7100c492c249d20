"""The manual's tables of the records of fused.py and peers.py, and the numbers in them that sentences may quote."""

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from compare import read_rows
from measured import NETWORKS, SIX
from peer_rows import PEERS


class RecordTable(NamedTuple):
    """Lines of Markdown, and numbers by name."""

    lines: list[str]
    numbers: dict[str, float]


TITLES = {"tutorial": "the PyTorch tutorial's, `mnist`", "cnn": "`cnn`, `mnist_r`"}
OVER_LOOPS = (
    *("network, data", "DataLoader's loop, 1 process", "the same, 2 processes", "data in memory, 1 process"),
    *("`torch.vmap`, 4 seeds", "4 seeds as one, 1 process", "4 seeds as one, 2 processes"),
    *("times the loop, both in 1 process", "both in 2", "times data in memory, both in 1 process"),
)
PROGRAMS = {
    "accelerate 1": "Accelerate's loop",
    "lightning 1": "Lightning's Trainer",
    "timm 1": "timm's loop",
    "vmap 4": "`torch.func`, vmap",
    "jax 1": "JAX (Flax), jitted",
    "jax 4": "JAX, vmap",
    "fused 1": "ours",
    "fused 4": "ours, as one network",
}
"""Titles of the first rows of a program and a number of seeds; those below share them."""
EXTREMES: dict[str, Callable[[list[float]], float]] = {"least": min, "most": max}


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _speeds(record: dict[str, Any], network: str) -> dict[tuple[str, int, int], float]:
    """Return images/s by kind, processes and seeds; of forms that differ in their loader's workers the best."""
    found: dict[tuple[str, int, int], float] = {}
    for (name, _), row in read_rows(record).items():
        form, speeds = row["form"], [r["images_per_s"] for r in row["rounds"] if "error" not in r]
        key = form["kind"], form.get("processes", 1), form.get("seeds", 1)
        if name == network and speeds:
            found[key] = max(found.get(key, 0.0), median(speeds))
    return found


def over_loops(record: dict[str, Any]) -> RecordTable:
    """Return the table of a record of fused.py: four seeds as one network over the loop that tutorials teach."""
    lines, ratios, in_memory = [_line(list(OVER_LOOPS)), "|---" * len(OVER_LOOPS) + "|"], [], []
    in_two: list[tuple[float, float]] = []
    over_vmap: list[float] = []
    for network in (name for name in NETWORKS if name in record):
        speed = _speeds(record, network)
        loops, ours = [speed["loader", n, 1] for n in (1, 2)], [speed["fused", n, 4] for n in (1, 2)]
        memory = speed["resident", 1, 1]
        over_vmap.append(ours[0] / speed["vmap", 1, 4])
        ratios.append(ours[0] / loops[0])
        in_memory.append(ours[0] / memory)
        in_two.append((ours[1] / loops[0], ours[1] / loops[1]))
        cells = [f"**{value:,.0f}**" if value == max(ours) else f"{value:,.0f}" for value in ours]
        cells = [f"{value:,.0f}" for value in (*loops, memory, speed["vmap", 1, 4])] + cells
        cells += [f"{ratios[-1]:.1f}", f"{in_two[-1][1]:.1f}", f"{in_memory[-1]:.1f}"]
        lines.append(_line([TITLES.get(network, f"`{network}`"), *cells]))
    found = {"least": min(ratios), "most": max(ratios)}
    found |= {"least in memory": min(in_memory), "most in memory": max(in_memory)}
    found |= {"least over vmap": min(over_vmap), "most over vmap": max(over_vmap)}
    shares = [share for name, share in record["summary"].items() if name.endswith(", share")]
    for name, key in {"operations": "of the operations/s", "bytes": "of the bytes/s"}.items():
        of_all = [100 * share[key] for share in shares]
        found |= {f"least {name}": min(of_all), f"most {name}": max(of_all)}
    for name, values in zip(("two over one", "two over two"), zip(*in_two, strict=True), strict=True):
        found |= {f"least {name}": min(values), f"most {name}": max(values)}
    return RecordTable(lines, found)


def beside_programs(record: dict[str, Any]) -> RecordTable:
    """Return the table of a record of peers.py; of ours with the ratio to the best peer in as many processes.

    Of the numbers "many" is several seeds as one network over the best peer in any number of processes."""
    networks = {name: _speeds(record, name) for name in SIX if name in record}
    lines = [_line(["program", "processes", "seeds at once", *(f"`{name}`" for name in networks)])]
    lines.append("|---" * (3 + len(networks)) + "|")
    ratios: dict[str, list[float]] = {"one": [], "many": [], "many in one": []}
    before = ""
    forms = dict.fromkeys(key for speed in networks.values() for key in speed)
    for kind, processes, seeds in sorted(forms, key=lambda key: _place(*key)):
        cells = []
        for speed in networks.values():
            value = speed.get((kind, processes, seeds))
            cells.append(f"{value:,.0f}" if value else "")
            if value and kind not in PEERS:
                peers = {key: speed[key] for key in speed if key[0] in PEERS}
                ratio = value / max(v for (_, p, _), v in peers.items() if p == processes)
                cells[-1] += f" ({ratio:.2f})"
                if seeds > 1:
                    ratios["many"].append(value / max(peers.values()))
                if processes == 1:
                    ratios["many in one" if seeds > 1 else "one"].append(ratio)
        title = PROGRAMS.get(f"{kind} {seeds}", before)
        lines.append(_line(["" if title == before else title, str(processes), str(seeds), *cells]))
        before = title
    alone = [row for (name, _), row in read_rows(record).items() if name in networks and row["form"]["kind"] == "fused"]
    for name, key in {"to the result": "x soonest", "to the exit": "x exited"}.items():
        ratios[name] = [
            row[key] for row in alone if row["form"]["seeds"] * row["form"]["processes"] == 1 and row.get(key)
        ]
    spans = {
        f"{word} {name}": pick(found) for name, found in ratios.items() for word, pick in EXTREMES.items() if found
    }
    spread = max(row["high"] / row["low"] for row in read_rows(record).values() if row.get("low"))
    return RecordTable(lines, spans | {"spread": spread})


def _place(kind: str, processes: int, seeds: int) -> tuple[int, bool, int, int]:
    """Return where a form stands: programs in PROGRAMS' order, one seed apart from several, one process first."""
    kinds = [title.split()[0] for title in PROGRAMS]
    return kinds.index(kind), kind in ("jax", "fused") and seeds > 1, processes, seeds
