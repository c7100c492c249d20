"""Compare training images/s of many seeds as one network with plain PyTorch loops, in turns on one machine.

    python benchmarks/fused.py [--quick] [--rounds N] [--networks tutorial,cnn] [--seeds-at-once 1,4,8] [--json FILE]

`tutorial` is the PyTorch tutorial's spatial-transformer network (27,360 parameters) on MNIST; the
others are the six architectures on rotated MNIST. Batches of 64 images, SGD 0.01. The forms:

    loader    torchvision, DataLoader, ordinary module, torch.optim.SGD
    resident  the same module and optimiser, with batches made in memory on the device
    vmap      the same batches, many seeds by torch.func.vmap
    fused     many seeds as train.py trains them, without its log and checkpoints

Each number comes from fresh processes. Those of a network wait side by side (as many as fit into memory; on
a GPU one at a time) and train in turns, so that a machine whose speed changes is the same for all. A round is
the median images/s over turns of fixed time, without the first. Two processes have one thread each, train at
the same time and are added up. A row is the median over rounds, a ratio the median of the rounds' ratios. Turns
that other processes disturbed are repeated up to twice (not with --quick), and the output says so.

The share of the machine's limits is operations and bytes per image of the ordinary network (counted
by traffic.Traffic) times images/s, over what a large matrix product (on a CPU: a convolution) and a copy
of 256 MiB reach in as many processes. It is no upper bound: caches hold some of the bytes, and fused
operations move fewer. On CUDA there is one process; plain forms keep PyTorch's default settings (TF32
in convolutions), fused ones are fp32 unless the row says otherwise.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from typing import Any

from measure import CORES, DISTURBED, Parser, console, machine, names_from, positive, save, unpack
from measured import MAY_FAIL, NETWORKS, Form, Row, best, text
from rich.table import Table
from rounds import measure_round
from running import command

START_S = 4
"""Approximate start-up time of a process, used in the time estimate only."""


def ratios(row: Row, rows: list[Row], cuda: bool) -> dict[str, float | None]:
    """Return the speed-up of a row over its reference."""
    speedups = {"x best loop": row.over(best(rows, "loader", processes=1))}
    if cuda:
        return speedups | {"x resident": row.over(best(rows, "resident"))}
    return speedups | {
        "x best in two": row.over(best(rows, "loader", processes=2)) if row.form.processes == 2 else None
    }


def plan(network: str, quick: bool, given: list[int] | None, cuda: bool) -> list[Form]:
    """Return the forms of a network in the order in which a round measures them."""
    if network == "machine":
        alone = [Form("product", precision=p) for p in (("fp32", "tf32", "bf16") if cuda else ("fp32",))]
        alone += [Form("copy")]
        return alone if cuda else alone + [replace(form, processes=2) for form in alone]
    if cuda:
        counts = given or ([4, 32] if quick else [1, 4, 8, 16, 32, 64, 128])
        many = [Form("fused", seeds=n, graph=graph) for n in counts for graph in (True, False)]
        return [Form("loader"), Form("loader", workers=4), Form("resident"), Form("vmap", seeds=32), *many]
    tutorial = network == "tutorial"
    counts = given or ([1, 4, 8] if quick and tutorial else [4] if quick else [1, 4, 8, 16, 32])
    loaders = [Form("loader", workers=n) for n in ((0, 2, 4) if CORES > 2 else (0, 2))]
    vmaps = [Form("vmap", seeds=n) for n in ((4,) if quick else (4, 8))]
    many = [Form("fused", seeds=n) for n in counts]
    large = (
        [Form("fused", seeds=n) for n in (16, 32)] if tutorial and quick and not given else []
    )  # to report their memory
    alone = [*loaders, Form("resident"), *many]
    return [*alone, *vmaps, *large, *(replace(form, processes=2) for form in alone)]


def shares(row: Row, counts: dict[str, float], roofs: list[Row]) -> dict[str, float | None]:
    """Return the share of the machine's limits that a row reaches."""
    product = best(roofs, "product", processes=row.form.processes, precision=row.form.precision)
    copy = best(roofs, "copy", processes=row.form.processes)
    return {
        "of the operations/s": row.median * counts["flop"] / product.median if product else None,
        "of the bytes/s": row.median * counts["bytes"] / copy.median if copy else None,
    }


def summarise(tables: dict[str, list[Row]], roofs: list[Row], counts: dict[str, Any], cuda: bool) -> dict[str, Any]:
    """Return speed-ups, shares of the machine's limits and memory per extra seed, by name."""
    values_by_name: dict[str, Any] = {}
    for network, rows in tables.items():
        for precision in ("fp32", "tf32", "bf16"):
            row = best(rows, "fused", processes=1 if cuda else 2, precision=precision)
            if row:
                values_by_name[f"{network}, {row.form} in {row.form.processes}"] = ratios(row, rows, cuda)
        if row := best(rows):
            values_by_name[f"{network}, {row.form} in {row.form.processes}, share"] = shares(
                row, counts[network], roofs
            )
    memory = [best(tables.get("tutorial", []), "fused", seeds=n, processes=1, precision="fp32") for n in (16, 32)]
    if memory[0] and memory[1]:
        values_by_name["tutorial, peak memory"] = {
            "MB per extra seed": (memory[1].most("peak_mb") - memory[0].most("peak_mb")) / 16
        }
    return values_by_name


def draw(title: str, rows: list[Row], cuda: bool, scale: float = 1.0) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("form", "processes", "median", "range", "n", *ratios(rows[0], rows, cuda), "peak MB", "others"):
        table.add_column(heading, justify="left" if heading == "form" else "right", no_wrap=True)
    for row in rows:
        speeds = [speed / scale for speed in row.speeds]
        span = f"{min(speeds):,.0f} to {max(speeds):,.0f}" if speeds else "failed"
        figures = [f"{row.median / scale:,.0f}", span, str(len(speeds)), *map(text, ratios(row, rows, cuda).values())]
        table.add_row(
            str(row.form),
            str(row.form.processes),
            *figures,
            f"{row.most('peak_mb'):,.0f}",
            f"{row.most('others_cores'):.2f}",
        )
    console.print(table)


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of fewer forms: 6 to 13 minutes")
    parser.add_argument("--rounds", type=positive, help="default 3; with --quick 1")
    parser.add_argument("--networks", type=names_from(NETWORKS), default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--seeds-at-once", type=lambda s: [positive(n) for n in s.split(",")], metavar="1,4,8")
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, arguments.rounds or (1 if arguments.quick else 3)
    networks = {name: NETWORKS[name] for name in arguments.networks}

    done = subprocess.run(command({"kind": "facts", "networks": networks}), stdout=subprocess.PIPE, check=True)
    facts = json.loads(done.stdout)
    cuda = facts["gpu"] is not None
    record = machine(facts["gpu"]) | {"per_image": facts["networks"]}
    job: dict[str, Any] = {"cuda": cuda, "seconds": 0.3, "turns": 5, "again": 0}
    if not quick:
        job |= {"seconds": 1.0, "turns": 8, "again": 2}
    tables = {
        name: [Row(form) for form in plan(name, quick, arguments.seeds_at_once, cuda)]
        for name in ("machine", *networks)
    }
    total = rounds * sum(map(len, tables.values()))
    minutes = total * (START_S + job["seconds"] * job["turns"]) / 60
    console.print(f"{total} measurements, about {minutes:.0f} minutes; load before: {record['load_before']}")

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        unpack(folder)
        for i in range(rounds):
            for name, rows in tables.items():
                measure_round(name, rows, job | {"root": folder, "network": networks.get(name)})
                console.print(f"round {i + 1} of {rounds}: {name} done after {time.perf_counter() - start:.0f} s")

    roofs = tables.pop("machine")
    draw("machine: G operations/s of a large product, GB/s of a copy", roofs, cuda, scale=1e9)
    for name, rows in tables.items():
        draw(f"{name}: images/s", rows, cuda)
    summary = summarise(tables, roofs, facts["networks"], cuda)
    shared = [row for rows in (roofs, *tables.values()) for row in rows if row.most("others_cores") > DISTURBED]
    if shared:
        console.print(
            f"Unreliable: other processes used the machine during {len(shared)} rows (last column, in cores)."
        )
    for name, values in summary.items():
        console.print(f"{name}: " + ", ".join(f"{text(value)} {key}" for key, value in values.items()))
    record |= {
        "wall_s": round(time.perf_counter() - start, 1),
        "rounds": rounds,
        "seconds": job["seconds"],
        "turns": job["turns"],
        "summary": summary,
    }
    for name, rows in {"machine": roofs, **tables}.items():
        record[name] = [asdict(row) | {"median": row.median} | ratios(row, rows, cuda) for row in rows]
    save(arguments.json, record)
    needed = [row for rows in (roofs, *tables.values()) for row in rows if row.form.kind not in MAY_FAIL]
    return int(any("error" in r for row in needed for r in row.rounds))


if __name__ == "__main__":
    sys.exit(main())
