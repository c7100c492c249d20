"""Commands of Slurm that note how they were called."""

import os
import sys
from pathlib import Path

FAKE = """#!{python}
import os, pathlib, shlex, sys
log = pathlib.Path(os.environ["FAKE"])
with (log / "calls").open("a") as file:
    print(shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]), file=file)
name = pathlib.Path(sys.argv[0]).name
if name == "scontrol":
    print("MaxArraySize            = 3")
elif name == "sbatch":
    refused = log / "refused"
    if refused.exists() and any(refused.read_text() in word for word in sys.argv):
        sys.exit("sbatch: error: refused")
    count = len((log / "calls").read_text().splitlines())
    print(100 + count)
elif name == "squeue":
    array = sys.argv[sys.argv.index("--job") + 1].split(",")[-1]
    reason = "launch failed requeued held" if (log / "held").exists() else "Resources"
    print(array, "0" if (log / "queued").exists() else "-", array + "_0", reason, sep="|")
"""


def fake_slurm(tmp_path: Path) -> dict[str, str]:
    """Return an environment with these commands; they write a line a call to ``calls`` in this folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "scontrol", "squeue"):
        (folder / name).write_text(FAKE.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE": str(tmp_path)}
