"""python -m tests.chaos.fuzz: give every parser damaged and hostile input; only one short line may come out of it."""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tests.chaos.mutations import mutated

SECONDS = 1.0
"""Of processor time that an input may take."""
BYTES = 2**30
"""More memory than before that an input may take."""
LINES, CHARACTERS = 12, 400
"""Of a message: a configuration has a line for each of its faults."""


def _too_long(number: int, frame: object) -> NoReturn:
    raise TimeoutError(f"takes more than {10 * SECONDS:.0f} s")


def _place(error: Exception) -> str:
    """Return where in this project an exception comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parts[-3:-2] in (("stn",), ("sweep",), ("launch",))]
    frame = (ours or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.name}"


def _fault_of_message(error: Exception) -> str | None:
    lines = str(error).split("\n")
    if len(lines) > LINES or max(map(len, lines)) > CHARACTERS:
        return f"a message that is too long, of {_place(error)}"
    if not all(lines) or not all(map(str.isprintable, lines)):
        return f"a message that is empty or cannot be printed, of {_place(error)}"
    return None


def fault_of(parse: Callable[[bytes], object], content: bytes) -> str | None:
    """Return what is wrong with how a parser takes an input; None for a result, or a message as it should be."""
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    try:
        parse(content)
    except TimeoutError as error:
        return str(error)
    except (ValueError, OSError) as error:
        return _fault_of_message(error)
    except MemoryError:
        return f"takes more than {BYTES >> 20} MiB"
    except Exception as error:
        return f"{type(error).__name__} in {_place(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - start
    return f"takes {seconds:.0f} s" if seconds > SECONDS else None


def _try_all(parser: Any, name: str, inputs: int, seed: int, record: Path, examples: Path) -> None:
    """Give a parser so many inputs, and append what is wrong to a file, with the number of the input."""
    signal.signal(signal.SIGALRM, _too_long)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    with record.open("w", buffering=1) as file:
        for number in range(inputs):
            rng = random.Random(f"{seed} {name} {number}")
            content = mutated(rng.choice(parser.examples), rng, parser.form)
            print(json.dumps({"number": number}), file=file)
            if fault := fault_of(parser.parse, content):
                (examples / f"{name.replace('/', '-')}-{number}").write_bytes(content)
                print(json.dumps({"number": number, "fault": fault}), file=file)


def fuzz(parser: Any, name: str, inputs: int, seed: int, folder: Path) -> dict[str, list[int]]:
    """Return the numbers of the inputs by what was wrong with them; each parser has a process of its own."""
    record, pid = folder / "record", os.fork()
    if not pid:
        code = 1
        try:
            _try_all(parser, name, inputs, seed, record, folder)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    if os.waitstatus_to_exitcode(status):
        lines.append(lines[-1] | {"fault": f"the process died: {os.waitstatus_to_exitcode(status)}"})
    found: dict[str, list[int]] = {}
    for line in lines:
        if "fault" in line:
            found.setdefault(line["fault"], []).append(line["number"])
    return found


def _finished_run(folder: Path) -> Path:
    from tests.chaos.victim import end_of, start

    assert end_of(start(folder / "finished")) == 0
    (finished,) = (folder / "finished").glob("*/*/*")
    return finished


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=200, help="inputs for each parser (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    parser.add_argument("--only", default="", help="parsers whose name contains this")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder, failed = Path(tempfile.mkdtemp(prefix="stn-fuzz-")), 0
    finished = _finished_run(folder)
    from stn.tracking.console import console
    from tests.chaos.parsers import parsers

    console.quiet = True  # of warnings, for each damaged checkpoint
    for name, entry in parsers(folder / "parsers", finished).items():
        if options.only in name:
            start, inputs = time.monotonic(), max(1, round(options.inputs * entry.share))
            found = fuzz(entry, name, inputs, options.seed, folder)
            bad = sum(map(len, found.values()))
            failed += bad
            print(f"{name:28s} {inputs:6d} inputs  {bad:5d} faults  {time.monotonic() - start:4.0f} s", flush=True)
            for fault, numbers in sorted(found.items(), key=lambda item: -len(item[1])):
                print(f"    {len(numbers):5d} x {fault}  (input {numbers[0]})")
    print(f"failing inputs are in {folder}" if failed else "no faults")
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
