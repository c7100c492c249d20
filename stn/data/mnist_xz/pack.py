"""Make the packed MNIST that ships with the code: python stn/data/mnist_xz/pack.py FOLDER

FOLDER holds the four unpacked idx files. Standard library only.
"""

import lzma
import sys
from pathlib import Path

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name in FILES:
        packed = lzma.compress((Path(sys.argv[1]) / name).read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        (Path(__file__).parent / f"{name}.xz").write_bytes(packed)
        print(f"{name}: {len(packed):,} bytes")
