"""Whether two commits train the same networks: fp64, 20 or 60 steps, one thread, by the hash of the final weights.

    python benchmarks/weights.py 883d5f3 HEAD [--only mnist_r]

Both commits run on this machine, since hashes differ between kinds of CPU. Exit code 1 if a hash differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHS = ("cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx")
DATASETS = ("mnist", "mnist_r", "mnist_t", "mnist_s")
RECIPES = ("s0_conv", "s0_coord", "s1_conv", "s1_coord", "s2_conv", "s2_coord", "s2_best_coord", "s3", "s4")
SHORT = ("--steps", "20", "--precision", "fp64", "--seeds", "0", "--train.threads", "1", "--limit-test", "50")
QUIET = ("--log.wandb", "disabled", "--log.no-pictures", "--optim.warmup", "0 steps")


def cases(only: str) -> dict[str, list[str]]:
    words_by_case = {f"{arch} {data}": ["--arch", arch, "--dataset", data] for data in DATASETS for arch in ARCHS}
    words_by_case |= {name: ["--config", f"configs/{name}.yaml"] for name in RECIPES}
    words_by_case |= {f"{arch} mnist, 60 steps": ["--arch", arch, "--steps", "60"] for arch in ARCHS}
    return {name: words for name, words in words_by_case.items() if only in name}


def weights(tree: Path, words: list[str]) -> str:
    """Return the hash of seed 0's final weights, or the last line of what went wrong."""
    with tempfile.TemporaryDirectory() as runs:
        line = [sys.executable, str(tree / "train.py"), *SHORT, *QUIET, *words, "--runs", runs]
        env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=tree, env=env, capture_output=True, text=True, check=False)
        rows = list(Path(runs).glob("*/*/*/results.jsonl"))
        return json.loads(rows[0].read_text())["weights_sha256"] if rows else done.stderr.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--at-once", type=int, default=2, help="trainings at a time")
    arguments = parser.parse_args()
    chosen, differ = cases(arguments.only), 0
    for commit in arguments.commits:
        words = ["git", "rev-parse", "--quiet", "--verify", commit + "^{commit}"]
        if subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode:
            parser.error(f"there is no commit '{commit}' here")
    if not chosen:
        parser.error(f"no case contains '{arguments.only}'; the cases are {', '.join(cases(''))}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.at_once) as pool:
        trees = [Path(folder) / str(i) for i in range(2)]
        for tree, commit in zip(trees, arguments.commits, strict=True):
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            pairs = [(name, [pool.submit(weights, tree, words) for tree in trees]) for name, words in chosen.items()]
            for name, (old, new) in pairs:
                same = old.result() == new.result() and len(old.result()) == 64
                differ += not same
                print(
                    f"{name:22s} {'same' if same else 'DIFFERENT'}  {old.result()[:60]}  {new.result()[:60]}",
                    flush=True,
                )
        finally:
            for tree in trees:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
    print(f"{len(chosen) - differ} of {len(chosen)} the same")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
