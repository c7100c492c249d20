"""The claims that README and manual make, each a folder with the rows from which it follows.

    python benchmarks/claims.py list                      # how old, whether their code has changed, what no commit has
    python benchmarks/claims.py collect FOLDER RUNS...    # copy the rows of finished run directories; write the claim
    python benchmarks/claims.py write [FOLDER...]         # README.md and figure anew
    python benchmarks/claims.py check [FOLDER...]         # exit 1 where something does not follow from the rows

`make claims` runs check, then list.

benchmarks/claims/<date>-<name>/ holds claim.yaml, written by hand; runs/ (configurations, environments, result rows and
evaluations, without paths and names of machines) or record.json, of a benchmark; README.md and figure.png, which are
written from these. In claim.yaml `holds` lists what must follow: `a > b` (a beats b), `a = b`, `a ? b` (unknown),
`a ~ published`; `numbers` names quotients of a record's entries (of a list, its mean); `table`, of record_tables.py, is
to be found line by line in the page `table_in`; `quoted` lists sentences of README and manual with {names} of means in
per cent (architectures), of these numbers, or of the table's. `uncommitted` says what is known of changes that no
commit has, where a run was trained with any. `rows` is the hash of runs/ or record.json.
"""

import argparse
import subprocess
import sys
from datetime import date
from pathlib import Path

import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from claim_page import Claim, numbers, table, write
from claim_rows import collect, digest, environments, uncommitted

from launch.report.analysis.cells import load
from launch.report.analysis.published import replications
from launch.report.analysis.sections import Section, build_sections
from launch.report.analysis.verdicts import compare_pairs
from stn.config.source import SOURCE as ROOT
from stn.runs.files import write_atomic

CLAIMS = ROOT / "benchmarks" / "claims"


def _followed(section: Section) -> set[str]:
    """Return the statements, as `holds` writes them, that follow from the rows of a data set."""
    found = set()
    for pair in compare_pairs(section.cells, section.panels[0].metric):
        first, second, mean = pair.first.label, pair.second.label, pair.test.mean or 0.0
        if pair.verdict.outcome == "better":
            found.add(f"{second} > {first}" if mean > 0 else f"{first} > {second}")
        else:
            sign = {"equal": "=", "unknown": "?"}[pair.verdict.outcome]
            found |= {f"{first} {sign} {second}", f"{second} {sign} {first}"}
    return found | {f"{cell.label} ~ published" for cell in section.cells if any(r.agrees for r in replications(cell))}


def faults(folder: Path, claim: Claim) -> list[str]:
    """Return what in a claim, and in the pages that quote it, does not follow from its rows."""
    found = [] if claim.get("rows") == digest(folder) else ["its rows are not those that were collected"]
    if (folder / "runs").is_dir():
        follows = set().union(*map(_followed, build_sections(load([str(folder / "runs")]), folder)))
        found += [f"'{text}' does not hold" for text in claim.get("holds", []) if text not in follows]
    if "uncommitted" not in claim:
        lacking = "and claim.yaml does not say under `uncommitted` what is known of them"
        found += [f"{run} was trained with uncommitted changes, {lacking}" for run in uncommitted(folder)]
    known = numbers(claim, folder)
    for page, texts in claim.get("quoted", {}).items():
        content = " ".join((ROOT / page).read_text().split())
        found += [f"{page} does not say: {said}" for text in texts if (said := text.format(**known)) not in content]
    if lines := table(claim, folder).lines:
        page = (ROOT / claim["table_in"]).read_text().splitlines()
        found += [f"{claim['table_in']} lacks the line: {line}" for line in lines if line not in page]
    return found


def _damaged(folder: Path, claim: Claim) -> list[str]:
    """Return which written files do not match a claim's rows; a figure carries the hash of its rows."""
    found = []
    for name, content in write(folder, claim).items():
        file = folder / name
        if not file.is_file():
            found.append(f"{name} is missing")
        elif name.endswith(".md"):
            found += [f"{name} was edited"] * (file.read_bytes() != content)
        else:
            with Image.open(file) as picture:
                found += [f"{name} is of other rows"] * (picture.info.get("Description") != digest(folder))
    return found


def check(folder: Path, claim: Claim) -> int:
    """Print what does not follow from a claim's rows, and return the exit code."""
    found = faults(folder, claim) + _damaged(folder, claim)
    for text in found:
        print(f"{folder.name}: {text}")
    return int(bool(found))


def _commits(folder: Path, claim: Claim) -> list[str]:
    """Return the commits that a claim's runs, or its record, were made at."""
    return sorted({str(env["commit"]) for _, env in environments(folder)} or {claim["commit"]})


def _history(folder: Path, claim: Claim) -> list[str]:
    """Return how many files of a claim's code have changed since, and what of its code no commit here has."""
    files: set[str] = set()
    found, missing = [], []
    for commit in _commits(folder, claim):
        words = ["git", "diff", "--name-only", commit, "HEAD", "--", *claim["code"]]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        files |= set(done.stdout.split())
        (missing if done.returncode else found).append(commit)
    changed = f"{len(files)} files of its code have changed" if files else "its code has not changed"
    lines = [changed] if found else []
    lines += [f"commit {commit[:12]} is not in this clone" for commit in missing]
    return lines + [f"{run} was trained with uncommitted changes" for run in uncommitted(folder)]


def show(folder: Path, claim: Claim) -> None:
    age = (date.today() - date.fromisoformat(folder.name[:10])).days
    first, *others = _history(folder, claim)
    print("\n    ".join([f"{folder.name}: {claim['claim']}", f"{age} days old; {first}", *others]))


def read(folder: Path) -> Claim:
    try:
        claim = yaml.safe_load((folder / "claim.yaml").read_text())
        needed = {"claim", "hardware", "command", "code"}
        if lacking := needed - (claim.keys() if isinstance(claim, dict) else set()):
            raise ValueError(f"lacks {', '.join(sorted(lacking))}")
        date.fromisoformat(folder.name[:10])
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{folder / 'claim.yaml'}: {error}") from None
    return claim


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("folders", nargs=1, type=Path, metavar="FOLDER")
    collecting.add_argument("runs", nargs="*")
    for name in ("list", "write", "check"):
        commands.add_parser(name).add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    code = 0
    try:
        for folder in arguments.folders or sorted(path.parent for path in CLAIMS.glob("*/claim.yaml")):
            claim = read(folder)
            if arguments.command == "collect":
                collect(folder, arguments.runs)
                claim = read(folder)
            if arguments.command in ("collect", "write"):
                for name, content in write(folder, claim).items():
                    write_atomic(folder / name, content)
            if arguments.command == "list":
                show(folder, claim)
            else:
                code |= check(folder, claim)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
