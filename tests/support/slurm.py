"""Commands of Slurm that note how they were called, and a project whose scripts run with commands of a test's own."""

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


def _write_commands(folder: Path, commands: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def fake_slurm(tmp_path: Path) -> dict[str, str]:
    """Return an environment with these commands; they write a line a call to ``calls`` in this folder."""
    folder = tmp_path / "bin"
    _write_commands(folder, dict.fromkeys(("sbatch", "scontrol", "squeue"), FAKE.format(python=sys.executable)))
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE": str(tmp_path)}


def write_project(folder: Path, commands: dict[str, str]) -> None:
    """Write a project whose slurm/env.sh a test may change, and these commands, each a line of bash."""
    _write_commands(folder / "bin", {name: f"#!/bin/bash\n{text}\n" for name, text in commands.items()})
    (folder / "slurm").mkdir()
    (folder / "slurm" / "env.sh").write_text("STN_MAX_RESTARTS=20\n")


def script_environment(project: Path) -> dict[str, str]:
    """Return the environment of a script of such a project on a node."""
    path = f"{project}/bin:{os.environ['PATH']}"
    return {"PATH": path, "STN_ROOT": str(project), "SLURM_SUBMIT_DIR": str(project), "SLURM_JOB_ID": "7"}
