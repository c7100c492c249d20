"""Compare the training of one and several seeds with the programs that people would use instead, in turns on one CPU.

    python benchmarks/peers.py [--quick] [--rounds N] [--networks stn_slx] [--peers timm,jax] [--json FILE]

The same network, data, batches of 64, SGD 0.01 and number of steps, each in fresh processes:

    accelerate   the loop of Accelerate's examples
    lightning    Lightning's Trainer
    timm         timm's loop, with its factories of loader, optimiser and scheduler
    vmap         torch.func.stack_module_state and vmap over seeds
    jax          Flax, jitted, vmap over seeds
    ours         what train.py trains, alone or several seeds as one network

Two numbers come from each. *Steady*: images/s summed over seeds, the median of turns of fixed time within the running
loop, without the first one; the forms of a network wait for each other's turns, so that the machine is the same for
all. *To the result*: seconds from the start of the process to the accuracy on 2,000 test images after --steps steps;
of ours until `train.py` has written its result row and, in a column of its own, until it has drawn its pictures and
exited, which no peer does. A ratio is of two measurements of one round, its row the median over rounds; the range is
over rounds, or over turns where there is one round. Two processes have one thread each and are added up. Measurements
that other processes disturbed are repeated up to twice (not with --quick), and the output says so. On a machine that
others use all the time, compare images per second of CPU time with --threads 1: threads of one process wait for the
slowest one.

`pip install '.[peers]'` installs the peers; one that is missing is skipped. Choices in the peers' favour are listed in
benchmarks/peer_torch.py and peer_jax.py.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import measured
from measure import CORES, DISTURBED, ROOT, Parser, console, machine, names_from, others_s, positive, save, unpack
from measured import SIX, Form, Row
from peer_forms import TESTED
from peer_rows import PEERS, describe, draw, label
from rounds import measure_round
from running import Running

NETWORKS = {**{name: measured.NETWORKS[name] for name in SIX}, "mnist": ("stn_slx", "finnveden_r", "mnist")}
QUICK_JAX = ("cnn",)
"""Networks that JAX trains with --quick: it takes longest to compile, and has not been the fastest peer of any."""
PACKAGES = sorted({package for packages in PEERS.values() for package in packages})
FLAGS = "--batch-size 64 --optim.name sgd --lr 0.01 --optim.momentum 0 --optim.schedule constant --log.wandb disabled"


def missing(peer: str) -> str | None:
    """Return why a peer cannot be measured here, or None."""
    absent = [package for package in PEERS[peer] if not find_spec(package)]
    return f"{', '.join(absent)} not installed; pip install '.[peers]'" if absent else None


def plan(network: str, peers: list[str], quick: bool) -> list[Form]:
    """Return the forms of a network in the order in which a round measures them."""
    forms = []
    for peer in peers:
        if peer in ("vmap", "jax"):
            counts = (4, 8) if peer == "vmap" else (1, 4) if quick else (1, 4, 8)
            if peer == "vmap" or not quick or network in QUICK_JAX:
                forms += [Form(peer, seeds=n, script="peer_forms.py") for n in counts]
        else:
            twice = (1, 2) if peer == "accelerate" or not quick else (1,)
            forms += [Form(peer, processes=n, script="peer_forms.py") for n in twice]
    if "vmap" in peers and not quick:
        forms.append(Form("vmap", processes=2, seeds=4, script="peer_forms.py"))
    ours = [Form("fused", seeds=n) for n in (1, 4, 8)]
    return [*forms, *ours, *[Form("fused", processes=2, seeds=n) for n in ((4,) if quick else (1, 4, 8))]]


def reaches_result(form: Form, job: dict[str, Any]) -> bool:
    """Whether a form is measured to its result, too: with --quick only one seed in one process."""
    return not job["quick"] or form.seeds * form.processes == 1


def start_is_timed(form: Form, job: dict[str, Any]) -> bool:
    return form.kind != "fused" and reaches_result(form, job)  # ours is train.py's, at the end


def train_py(form: Form, job: dict[str, Any]) -> dict[str, Any]:
    """Run train.py (in two processes: launch); return when it had its result and when it had exited."""
    arch, net, dataset = job["network"]
    with tempfile.TemporaryDirectory() as runs:
        words = ["train.py"] if form.processes == 1 else ["-m", "launch", "train"]
        words += ["--arch", arch, "--net", net, "--dataset", dataset, *FLAGS.split(), "--steps", str(job["steps"])]
        words += ["--seeds", f"0-{form.seeds * form.processes - 1}", "--fuse", str(form.seeds)]
        words += ["--limit-test", str(TESTED), "--runs", runs]
        words += ["--train.threads", str(job["threads"])] * (form.processes == 1)
        start, before, cpu = time.time(), others_s(), sum(os.times()[2:4])
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.time() - start
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        files = list(Path(runs).rglob("results.jsonl"))
        ready_s = max(file.stat().st_mtime for file in files) - start
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    others = round(max(0.0, others_s() - before) / seconds, 3)
    found = {
        "ready_s": round(ready_s, 3),
        "exit_s": round(seconds, 3),
        "result_cpu_s": round(sum(os.times()[2:4]) - cpu, 3),
    }
    return found | {"others_cores": others, "accuracy": [row["test_acc"] for row in rows]}


def begin(form: Form, job: dict[str, Any]) -> Running:
    """Start a form's processes; peers are ready when they have their result."""
    tested = reaches_result(form, job)
    return Running(form, job | {"tested": tested, "steps": job["steps"] if tested else 3})


def finish(running: Running) -> dict[str, Any]:
    """End a form's processes and return images/s, and perhaps seconds to the result and accuracies."""
    found, form, job = running.end(), running.form, running.job
    ready_s, parts = found.pop("ready_s"), found["processes"]
    if not reaches_result(form, job):
        return found
    result = {
        "ready_s": ready_s,
        "result_cpu_s": sum(p.get("result_cpu_s", 0.0) for p in parts),
        "accuracy": [a for p in parts for a in p.get("accuracy", [])],
        "others_cores": running.others_at_start,
    }
    result = train_py(form, job) if form.kind == "fused" else result
    return found | result | {"others_cores": max(found["others_cores"], result["others_cores"])}


def summary(rows: list[Row]) -> dict[str, float | None]:
    """Return our ratios to the best peers, by form."""
    values = {}
    for row in rows:
        if row.form.kind == "fused":
            found = describe(row, rows)
            name = f"{label(row.form)}, {row.form.processes} process{'es' * (row.form.processes > 1)}"
            values[name] = found["x best peer"]
            values[f"{name}, per CPU s"] = found["x best per CPU s"]
            if found["x soonest"]:
                values[f"{name}, to the result"] = found["x soonest"]
                values[f"{name}, to exit"] = found["x exited"]
                values[f"{name}, CPU s to the result"] = found["x least CPU s"]
    return values


def show(name: str, rows: list[Row], job: dict[str, Any]) -> None:
    draw(f"{name}: processes, images/s (n = {len(rows[-1].rounds)}), and {job['steps']} steps to the result", rows)
    ratios = ", ".join(f"{measured.text(value)} {key}" for key, value in summary(rows).items())
    console.print(f"{name}, times the best peer: {ratios}")


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of fewer forms: under 10 minutes")
    parser.add_argument("--rounds", type=positive, help="default 3; with --quick 1")
    parser.add_argument("--steps", type=positive, help="steps to the result: default 300; with --quick 100")
    parser.add_argument("--threads", type=positive, default=CORES, help="of one process; default: a thread per core")
    parser.add_argument("--networks", type=names_from(NETWORKS), help=f"{', '.join(NETWORKS)}; --quick: not mnist")
    parser.add_argument("--peers", type=names_from(PEERS), default=list(PEERS), help=", ".join(PEERS))
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, arguments.rounds or (1 if arguments.quick else 3)
    names = arguments.networks or (SIX if quick else list(NETWORKS))
    os.environ["ACCELERATE_USE_CPU"] = "true"

    skipped = {peer: reason for peer in arguments.peers if (reason := missing(peer))}
    for peer, reason in skipped.items():
        console.print(f"{peer} skipped: {reason}")
    peers = [peer for peer in arguments.peers if peer not in skipped]
    record = machine(None, PACKAGES)
    turned = {"seconds": 0.3, "turns": 4, "again": 0} if quick else {"seconds": 1.0, "turns": 8, "again": 2}
    job: dict[str, Any] = {"cuda": False, "quick": quick, "threads": arguments.threads} | turned
    job["steps"] = arguments.steps or (100 if quick else 300)
    tables = {name: [Row(form) for form in plan(name, peers, quick)] for name in names}
    console.print(f"{rounds * sum(map(len, tables.values()))} measurements; load before: {record['load_before']}")

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        unpack(folder)
        for i in range(rounds):
            for name, rows in tables.items():
                here = job | {"root": folder, "network": NETWORKS[name]}
                measure_round(name, rows, here, begin, finish, lambda form: start_is_timed(form, job))
                console.print(f"round {i + 1} of {rounds}: {name} done after {time.perf_counter() - start:.0f} s")
                record[name] = [asdict(row) | describe(row, rows) for row in rows]
                record.setdefault("summary", {})[name] = summary(rows)
                if i == rounds - 1:
                    show(name, rows, job)

    disturbed = sum(row.most("others_cores") > DISTURBED for rows in tables.values() for row in rows)
    if disturbed:
        console.print(f"Unreliable: other processes used the machine during {disturbed} rows (last column, in cores).")
    record |= {"rounds": rounds, "skipped": skipped, "wall_s": round(time.perf_counter() - start, 1)} | job
    save(arguments.json, record)
    needed = [row for rows in tables.values() for row in rows if row.form.kind not in measured.MAY_FAIL]
    return int(any("error" in r for row in needed for r in row.rounds))


if __name__ == "__main__":
    sys.exit(main())
