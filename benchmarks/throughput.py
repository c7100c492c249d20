"""Training images per second beside a plain DataLoader loop, in turns on the same machine.

    python benchmarks/throughput.py [--rounds 3] [--steps 600] [--json FILE]

Both sides train the PyTorch tutorial's spatial-transformer network (27,360 parameters) on
MNIST with SGD 0.01 and batches of 64, each time in a fresh process. Ours is the real
command line with its logging; the plain loop is the tutorial's, with torchvision's
transforms and 0, 2 and 4 loader workers. Images/s of a round are the median over the
stretches of 100 steps, without the first; the figure of a side is the median over rounds.
"""

import argparse
import json
import lzma
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH, STRETCH = 64, 100


def plain(root: str, workers: int, steps: int) -> None:
    """The plain loop, in its own process: prints images/s of each stretch."""
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torchvision import datasets, transforms

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
            self.drop, self.fc1, self.fc2 = nn.Dropout2d(), nn.Linear(320, 50), nn.Linear(50, 10)
            pool = nn.MaxPool2d(2, 2)
            self.see = nn.Sequential(nn.Conv2d(1, 8, 7), pool, nn.ReLU(), nn.Conv2d(8, 10, 5), pool, nn.ReLU())
            self.place = nn.Sequential(nn.Linear(90, 32), nn.ReLU(), nn.Linear(32, 6))
            nn.init.zeros_(self.place[2].weight)
            self.place[2].bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            theta = self.place(self.see(x).flatten(1)).view(-1, 2, 3)
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, align_corners=False)
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
            x = F.dropout(F.relu(self.fc1(x.flatten(1))), training=self.training)
            return F.log_softmax(self.fc2(x), dim=1)

    warnings.simplefilter("ignore")  # more workers than cores are part of the question
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    data = datasets.MNIST(root, train=True, transform=transform)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers)
    model = Net()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    done, start = 0, time.perf_counter()
    while done < steps:
        for x, y in loader:
            optimiser.zero_grad()
            F.nll_loss(model(x), y).backward()
            optimiser.step()
            done += 1
            if done % STRETCH == 0:
                print(BATCH * STRETCH / (time.perf_counter() - start))
                start = time.perf_counter()
            if done == steps:
                break


def run_plain(root: str, workers: int, steps: int) -> float:
    words = [sys.executable, __file__, "--plain", root, "--workers", str(workers), "--steps", str(steps)]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return statistics.median(float(line) for line in out.split()[1:])


def run_ours(runs: str, steps: int) -> float:
    words = (
        f"--arch stn_c0 --net tutorial --arch.padding zeros --arch.align-corners False --batch-size {BATCH} "
        f"--optim.name sgd --lr 0.01 --optim.momentum 0 --optim.schedule constant --steps {steps} --limit-test 100 "
        f"--log.every {STRETCH}steps --log.wandb disabled --log.no-pictures --runs {runs}"
    )
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words.split()], capture_output=True, check=True)
    (metrics,) = Path(runs).glob("*/*/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return statistics.median([row["images_per_s"] for row in rows if row["kind"] == "train"][1:])


def main(rounds: int, steps: int, file: str | None) -> None:
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in (ROOT / "stn" / "data" / "mnist_xz").glob("*.xz"):
            (raw / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
        for i in range(rounds):
            for workers in (0, 2, 4):
                name = f"DataLoader loop, {workers} workers"
                speeds.setdefault(name, []).append(run_plain(folder, workers, steps))
            speeds.setdefault("train.py", []).append(run_ours(f"{folder}/runs{i}", steps))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    best = max((name for name in medians if name != "train.py"), key=medians.__getitem__)
    ratios = [a / b for a, b in zip(speeds["train.py"], speeds[best], strict=True)]
    for name, values in speeds.items():
        print(f"{name:30s} {medians[name]:8,.0f} images/s   {min(values):8,.0f} to {max(values):8,.0f}   n = {rounds}")
    print(f"train.py over the best loop ({best}): {statistics.median(ratios):.2f} times (median of {rounds} pairs)")
    if file:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        record = {
            "date": str(date.today()),
            "commit": commit.stdout.strip(),
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "torch": version("torch"),
            "command": " ".join(["python", *sys.argv]),
            "images_per_s": speeds,
            "best_loop": best,
            "ratio": statistics.median(ratios),
        }
        Path(file).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--json")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(arguments.plain, arguments.workers, arguments.steps)
    else:
        main(arguments.rounds, arguments.steps, arguments.json)
