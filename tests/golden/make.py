"""python -m tests.golden.make: write losses.json anew; see losses.py for when that is right."""

import json

import torch

from tests.golden.losses import FILE, losses


def main() -> None:
    torch.set_num_threads(1)
    kept = json.loads(FILE.read_text())["losses"] if FILE.exists() else {}  # of data sets that are not on this machine
    about = "see losses.py for what these are and when to write them anew: python -m tests.golden.make"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in (kept | losses()).items())
    FILE.write_text(f'{{\n "about": {json.dumps(about)},\n "losses": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
