"""Trainings, and commands of launch, forked from a process that has imported what they import.

This file is also that process: for each line of JSON on its input, a command (of several ranks, if it has several
environments), it writes a line with the exit code.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]


class ForkServer:
    """Runs a script or -m launch in a process of its own, two seconds faster than a fresh Python does."""

    def __init__(self, environment: dict[str, str], *python: str) -> None:
        """``python``: the words that start a Python, if not this one."""
        self.words, self.environment = [*(python or [sys.executable]), __file__], environment
        self.start()

    def start(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(self.words, cwd=ROOT, env=self.environment, **pipes)

    def run(
        self, arguments: list[str], *environments: dict[str, str], cwd: Path | str = ROOT
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, a process in each of these environments."""
        if self.process.poll() is not None:
            self.start()
        assert self.process.stdin
        assert self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            told = [str(Path(folder) / name) for name in ("out", "err")]
            print(json.dumps([arguments, environments, str(cwd), *told]), file=self.process.stdin, flush=True)
            try:
                code = int(self.process.stdout.readline())
            except BaseException:  # a test that timed out: the next one must not read its answer
                self.process.kill()
                self.process.wait()
                raise
            return subprocess.CompletedProcess(arguments, code, *(Path(path).read_text() for path in told))

    def end(self) -> None:
        self.process.communicate()


IMPORTED = {
    "train": ("stn.config.command_line", "stn.training.runtime"),
    "launch": ("launch.export.command", "launch.report.build", "launch.report.output.wandb_report",
               "launch.sweep.commands", "launch.train", "launch.wandb.sync"),
}  # fmt: skip


def _serve() -> None:
    for line in sys.stdin:
        arguments, environments, cwd, *told = json.loads(line)
        for name in IMPORTED["launch" if arguments[0] == "-m" else "train"]:
            import_module(name)
        children = set()
        for environment in environments:
            if child := os.fork():
                children.add(child)
                continue
            for number, path in enumerate([os.devnull, *told]):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(cwd)
            sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
            return
        print(_wait(children), flush=True)


def _wait(children: set[int]) -> int:
    """Return the first exit code that is not 0, if any; a rank that fails takes the others along."""
    first = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if (code := os.waitstatus_to_exitcode(status)) and not first:
            first = code
            for other in children:
                os.kill(other, signal.SIGKILL)
    return first


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    _serve()
