"""Finds the cases that limit the comparison of a data set's cells."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from launch.report.analysis.cells import Cell
from launch.report.analysis.metrics import Metric
from launch.report.analysis.stats import FEWEST_PAIRS
from launch.report.analysis.verdicts import failures
from launch.report.provenance import cases
from launch.report.provenance.cases import Case, Groups
from launch.report.provenance.environments import Environment
from stn.runs.same_code import difference

MOST_PAIRS = 5
"""Pairs with too few shared seeds that are named."""
DEVICE = "the last digits differ between devices: for a close call train all on one"
TORCH = "train all in one environment"
PRECISION = "a difference may be the precision's: train all with one --precision"
PROCESSES = "batches may have been divided otherwise: use one number of processes, or --parallel seeds"
LENGTH = "say so beside the result, or train all for one length with --retrain and --steps"
BATCH = "say so beside the result, or train all with one batch size"
CONTENT = "the data set's files have changed: train all on the same"
LIMIT_TRAIN = "they trained on different images: train all with one --limit-train"
LIMIT_TEST = "they were scored on different images: train all with one --limit-test"
BLOCKS = "accuracies compare, since a seed's does not depend on it; for times and images/s give all one --fuse"
MIRROR = "some are scored with mirror images as well: train all with one --eval.mirror"
EVERY = "the best of more evaluations is better: compare the last epoch, or train all with one --eval.every"
FAILED = "means and verdicts are of the seeds that finished, perhaps the easier ones: say so beside the result"
VALIDATION = "they trained, and are measured, on different images: train all with one --data.validation"


def _groups(pairs: Iterable[tuple[object, str]]) -> Groups:
    """Return labels by value, each once, both sorted."""
    groups: dict[str, set[str]] = {}
    for value, label in pairs:
        groups.setdefault(str(value), set()).add(label)
    return {value: sorted(groups[value]) for value in sorted(groups)}


def _seeds(cells: Sequence[Cell], metric: Metric) -> list[Case]:
    """Return cells without an interval, pairs without a test, and seeds that failed beside others."""
    seeds = [(cell, list(cell.values(metric.key))) for cell in cells]
    pairs = [
        cases.few_seeds(a, b, of_a, of_b)
        for (a, of_a), (b, of_b) in itertools.combinations(seeds, 2)
        if len(set(of_a) & set(of_b)) < FEWEST_PAIRS and min(len(of_a), len(of_b)) > 1
    ]
    found = [cases.no_interval(cell, *of) for cell, of in seeds if len(of) == 1] + pairs[:MOST_PAIRS]
    failed = failures(cells) if len(cells) > 1 else []
    return found + [Case(", ".join(failed), FAILED)] * bool(failed)


def _code(cells: Sequence[Cell], runs: Sequence[Environment]) -> list[Case]:
    """Return what differs in the code that trained these cells."""
    found: list[Case] = []
    commits = _groups((env.commit, env.cell.label) for env in runs)
    if len(commits) > 1:
        everywhere = all(len(labels) == len(cells) for labels in commits.values())
        known = all(isinstance(row.get("fingerprint"), dict) for cell in cells for row in cell.rows.values())
        found.append(cases.other_commits(commits, everywhere and known))
    for a, b in itertools.combinations(cells, 2):
        if a.sig == b.sig and a.rows and b.rows:
            first, second = (next(iter(cell.rows.values())).get("fingerprint") for cell in (a, b))
            if why := difference(first, second):
                found.append(cases.other_fingerprints(a, b, why))
    if dirty := sorted({env.cell.label for env in runs if env.dirty}):
        advice = f"no commit says what trained {', '.join(dirty)}: commit, and train again before it is cited"
        found.append(Case("some runs were started with uncommitted changes", advice))
    return found


def _repeated(cell: Cell) -> list[Case]:
    """Return seeds that have rows in two run directories."""
    found: list[Case] = []
    for first, second in itertools.combinations(cell.runs, 2):
        if first.seeds is not None and second.seeds is not None and not first.seeds & second.seeds:
            continue
        a, b = first.rows(), second.rows()
        if seeds := sorted(a.keys() & b.keys()):
            agree = all(
                a[s].get(key) == b[s].get(key) for s in seeds for key in ("test_acc", "val_acc", "weights_sha256")
            )
            more = sorted(b.keys() - a.keys())
            found.append(cases.repeated_seeds(cell, seeds, first.path.name, second.path.name, agree, more))
    return found


def _chosen_every(cell: Cell) -> list[str]:
    """Return how often a cell was evaluated, if its best epoch is reported."""
    return [cell.config.eval.every] * bool(cell.values("best_test_acc") or cell.values("best_val_acc"))


def find_cases(cells: Sequence[Cell], metric: Metric, runs: Sequence[Environment]) -> list[Case]:
    """Return what limits the comparison of these cells; ``runs`` are theirs. A run without a result has no say."""
    runs = [env for env in runs if env.run in env.cell.sources.values()]
    found = _seeds(cells, metric) + _code(cells, runs) + [case for cell in cells for case in _repeated(cell)]
    of_cells: list[tuple[str, str, Callable[[Cell], Iterable[object]]]] = [
        ("precisions", PRECISION, lambda cell: [cell.config.train.precision]),
        ("numbers of processes", PROCESSES, lambda cell: {row.get("world_size") for row in cell.rows.values()}),
        ("lengths of training (steps)", LENGTH, lambda cell: {row.get("steps") for row in cell.rows.values()}),
        ("batch sizes", BATCH, lambda cell: [cell.config.data.batch_size]),
        ("numbers of validation images", VALIDATION, lambda cell: [cell.config.data.validation]),
        ("numbers of training images (limit)", LIMIT_TRAIN, lambda cell: [cell.config.data.limit_train or "all"]),
        ("numbers of test images (limit)", LIMIT_TEST, lambda cell: [cell.config.data.limit_test or "all"]),
        ("intervals between evaluations (best epoch)", EVERY, _chosen_every),
        ("settings of eval.mirror", MIRROR, lambda cell: ["yes" if cell.config.eval.mirror else "no"]),
    ]
    of_runs: list[tuple[str, str, Callable[[Environment], object]]] = [
        ("devices", DEVICE, lambda env: env.device),
        ("versions of torch", TORCH, lambda env: env.version("torch")),
        ("contents of the files (hash)", CONTENT, lambda env: env.content),
    ]
    facts = [(name, then, _groups((get(env), env.cell.label) for env in runs)) for name, then, get in of_runs]
    facts += [
        (name, then, _groups((v, cell.label) for cell in cells for v in get(cell))) for name, then, get in of_cells
    ]
    found += [cases.differs(name, groups, then) for name, then, groups in facts if len(groups) > 1]
    sizes = [(median(fused), cell.label) for cell in cells if (fused := cell.values("fused").values())]
    if len(groups := _groups((f"{size:g}", label) for size, label in sizes)) > 1:
        found.append(cases.differs("numbers of seeds at once", groups, BLOCKS))
    return found
