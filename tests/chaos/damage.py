"""Files of a stopped, killed or finished run that are cut, emptied, changed by a bit, given other values or swapped."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from stn.runs import predictions
from stn.runs.directory import RunDir
from stn.training.checkpoints import digest, load_final
from tests.chaos.copies import short_lease
from tests.chaos.operations import watch
from tests.chaos.outcome import CLOCK, read_log
from tests.chaos.victim import Injected, Setting, end_of, faults_after, judged, start

TEXT = (".json", ".jsonl", ".yaml")


def _stop_after_a_checkpoint(runs: Path) -> None:
    def act(name: str, path: Path, _: object) -> None:
        if name == "replace" and "step-00000006" in path.name and path.parent.name == "seed-1":
            os.kill(os.getpid(), signal.SIGTERM)

    watch(runs, act)


def _die_while_publishing(runs: Path) -> None:
    published = 0

    def act(name: str, path: Path, _: object) -> None:
        nonlocal published
        published += name == "link" and path.parent.name == ".rows"
        if published == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(runs, act)


BASES: dict[str, Callable[[Path], None]] = {
    "stopped": _stop_after_a_checkpoint,
    "publishing": _die_while_publishing,
    "finished": lambda runs: None,
}


def _other_type(value: object) -> object:
    return 7 if isinstance(value, str) else {} if isinstance(value, list) else [value] if value is None else "seven"


def _wrong_values(path: Path) -> bytes:
    """Return a file of the same format whose values are of other types, or weights of another network."""
    if path.suffix == ".safetensors":
        other = {"model/weight": torch.zeros(2), "optim/weight//exp_avg": torch.zeros(2)}
        temporary = path.with_suffix(".other")
        save_file(other, temporary, metadata={"stn": json.dumps({"step": "seven", "sha256": digest(other)})})
        content = temporary.read_bytes()
        temporary.unlink()
        return content
    if path.suffix == ".yaml":
        sections = yaml.safe_load(path.read_text())
        return yaml.safe_dump(
            {s: {k: _other_type(v) for k, v in keys.items()} for s, keys in sections.items()}
        ).encode()
    text = path.read_text()
    rows: list[dict[str, Any]] = (
        [json.loads(text)] if path.suffix == ".json" else list(map(json.loads, text.splitlines()))
    )
    return "".join(json.dumps({k: _other_type(v) for k, v in row.items()}) + "\n" for row in rows).encode()


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _of_other_seed(file: str) -> str:
    """Return where the other seed's file of this kind would be; of a file of no seed, itself."""
    other = {"seed-0": "seed-1", "seed-1": "seed-0", "0": "1", "1": "0"}
    other |= {f"{a}.safetensors": f"{b}.safetensors" for a, b in other.items()}
    return str(Path(*(other.get(part, part) for part in Path(file).parts)))


DAMAGES: dict[str, Callable[[Path, random.Random], bytes]] = {
    "half": lambda path, rng: path.read_bytes()[: path.stat().st_size // 2],
    "empty": lambda path, rng: b"",
    "flipped": lambda path, rng: _flipped(path.read_bytes(), rng),
    "values": lambda path, rng: _wrong_values(path),
    "list": lambda path, rng: b"[1, 2]\n",
}
SWAPPED = "of the other seed"


def _run_of(runs: Path) -> Path:
    (run,) = [path for path in runs.glob("*/*/*") if path.is_dir()]
    return run


def _files(base: Path) -> Iterator[str]:
    run = _run_of(base)
    yield from sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.suffix != ".tmp")


def cases(setting: Setting, every: int) -> list[tuple[str, str, str]]:
    """Prepare the runs that are damaged; return a kind of run, a file and a damage for each case."""
    for base, before in BASES.items():
        runs = setting.folder / base
        end_of(start(runs, before=lambda before=before, runs=runs: before(runs)))
    files = [(base, file) for base in BASES for file in _files(setting.folder / base)]
    swapped = [(b, file, SWAPPED) for b, file in files if file != (o := _of_other_seed(file)) and (b, o) in files]
    return [(base, file, damage) for base, file in files for damage in DAMAGES][::every] + swapped


def inject(setting: Setting, case: tuple[str, str, str]) -> Injected:
    """Damage one file of a copy of a run, and run its command again."""
    base, file, damage = case
    runs = setting.folder / "-".join([base, *Path(file).parts, *damage.split()])
    shutil.copytree(setting.folder / base, runs)
    run = _run_of(runs)
    if damage == SWAPPED:
        shutil.copy(run / _of_other_seed(file), run / file)
    else:
        (run / file).write_bytes(DAMAGES[damage](run / file, random.Random(f"{setting.seed} {case}")))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    pid = start(runs, before=short_lease)  # whose holder is not known is waited for
    code = end_of(pid)
    log, found = read_log(runs), []
    if code:  # it says which file, and without this file it goes on
        found += ["a traceback"] * ("Traceback" in log)
        errors = [line for line in log.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or Path(file).name not in errors[0]:
            found.append(f"exit code {code}, and no line that names the file: {log.strip().splitlines()[-1:]}")
        (run / file).unlink()
        runs.with_name(f"{runs.name}.log").unlink()
        code = end_of(start(runs, before=short_lease))
    if base == "finished":
        found += _unexplained(case, run, before, log, _lost_or_altered(setting, run, file, before, log))
        found += ["a traceback"] * ("Traceback" in log) + [f"exit code {code}"] * (code != 0)
    else:
        found += _unexplained(case, run, before, log, faults_after(runs, setting.expected, code, pid))
    return judged(runs, found)


def _unexplained(
    case: tuple[str, str, str], run: Path, before: dict[Path, bytes], log: str, faults: list[str]
) -> list[str]:
    """Return the faults without those that nobody can notice or mend.

    Metrics and answers that were lost stay lost. A row whose hash has lost its name passes for an older one. Weights
    have a hash of their own, which damage does not fit and whole weights of another network do.
    """
    _, file, damage = case
    excused: tuple[str, ...] = ()
    if file.startswith("predictions/") and Path(file).name in log:
        excused = ("predictions/",)
    elif file == "metrics.jsonl":
        excused = ("rows of metrics", "metrics differ")
    elif damage == "flipped" and not all(b'"row_sha256"' in line for line in before[run / file].splitlines()):
        excused = ("rows differ", "weights are not")
    elif "pending" in file:
        excused = ("rows differ", "metrics differ")  # the seed whose row was lost is trained again, alone
    elif file.endswith("final.safetensors") and (damage == "values" or any(file in t for t in _damaged_weights(run))):
        excused = ("weights are not",)
    return [fault for fault in faults if not any(text in fault for text in excused)]


def _damaged_weights(run: Path) -> list[str]:
    """Return what the reader of the final weights says of those that it refuses."""
    told = []
    for seed in (0, 1):
        try:
            load_final(RunDir(run), {"seed": seed})
        except ValueError as error:
            told.append(str(error))
    return told


def _lost_or_altered(setting: Setting, run: Path, file: str, before: dict[Path, bytes], log: str) -> list[str]:
    """Return what a rerun has done to a finished run beside the damaged file."""
    found = []
    for path, content in before.items():
        expendable = path == run / file or path.name == "status.json" or path.parent.name == ".claim"
        if not expendable and (not path.exists() or path.read_bytes() != content):
            found.append(f"altered: {path.relative_to(run)}")
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for _, row in sorted(RunDir(run).rows().items())]
    if rows != setting.expected.results:
        found.append("rows differ, and nobody says so")
    found += [told for told in predictions.faults(run, RunDir(run).rows()) if Path(file).name not in log]
    return found + [told for told in _damaged_weights(run) if file not in told]
