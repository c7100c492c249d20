"""The manual's tables of reproductions: published results beside ours, and the poses after transformers."""

from typing import Any

from reproduction_rows import finished_rows, length, precisions, rows_of

from launch.report.analysis.published import PublishedResult, published_results
from launch.report.analysis.stats import summary


def line(result: PublishedResult) -> str:
    rows = rows_of(result)
    cells: list[Any] = [result.system, result.unit, result]
    if not rows:
        return _row([*cells, "not run", "", "", "", ""])
    key = {"last": "test_acc", "best": "best_test_acc"}.get(str(result.at))
    accuracies = [row[key] if key else row["evaluations"][str(result.at)] for row in rows]
    ours = result.compare(accuracies)
    share = length(rows, result.recipe)
    schedule = [f"{share:.3g}" if share < 1 else "whole", *precisions(rows)]
    cells.append(f"{ours.mean:.2f}" if ours.sd is None else f"{ours.mean:.2f} ({ours.sd:.2f})")
    cells += [ours.n, ", ".join(schedule), f"{ours.difference:+.2f}"]
    if ours.half_width is None:
        return _row([*cells, "one run says nothing" if ours.n == 1 else "so few runs say nothing"])
    agrees = "yes" if ours.agrees else "**no**"
    return _row([*cells, f"{agrees if share == 1 else 'shorter schedule'} (± {ours.half_width:.2f})"])


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


TOGETHER = {
    "Finnveden et al., T, cnn / c0 / cx / dlx / slx": {"finnveden_t"},
    "Finnveden et al., S, cnn / c0 / cx / dlx / slx": {"finnveden_s"},
    "Jaderberg et al., R, FCN / CNN / ST-FCN / ST-CNN (affine)": {"jaderberg_r"},
    "Jaderberg et al., RTS": {"jaderberg_rts"},
    "Jaderberg et al., P": {"jaderberg_p"},
    "Jaderberg et al., E": {"jaderberg_e"},
    "Jaderberg et al., TC": {"jaderberg_tc"},
    "Lin and Lucey, CNN / STN / IC-STN-2 / IC-STN-4": {"icstn", "icstn_cnn"},
}
"""Recipes whose systems share a line as long as none of them has been run."""


HEADLINES = (
    "uam-biometrics, CoordConv",
    "vicsesi, CoordConv, 50 epochs",
    "manuelrames, convolution, best of 30 evaluations",
    "manuelrames, CoordConv, best of 30 evaluations",
    "manuelrames, best model, best of 45 evaluations",
    "lavanyanemani96, CIFAR-10, best of 50 evaluations",
    *(f"Finnveden et al., R, {arch}" for arch in ("cnn", "stn_c0", "stn_cx", "stn_dlx", "stn_slx")),
)
"""Systems of the README's table."""


def headlines() -> str:
    """Return the README's table, a few lines of the whole one."""
    return "\n".join(
        line for i, line in enumerate(table().splitlines()) if i < 2 or line.split(" | ")[0][2:] in HEADLINES
    )


def table() -> str:
    head = "| system | % | published | ours, mean (SD) | n | schedule | difference | within the interval |"
    lines, listed = [head, "|---" * 8 + "|"], [result for result in published_results() if result.listed]
    lines += [line(result) for result in listed if not any(result.recipe in together for together in TOGETHER.values())]
    for title, recipes in TOGETHER.items():
        group = [result for result in listed if result.recipe in recipes]
        if any(map(rows_of, group)):
            lines += map(line, group)
        else:
            shown = group[-1]._replace(value=" / ".join(result.value for result in group))
            lines.append(_row([title, shown.unit, shown, "not run", "", "", "", ""]))
    return "\n".join(lines)


SPREADS = {
    "r": ("degrees", {"stn_c0": "23.2", "stn_cx": "47.2", "stn_dlx": "26.8", "stn_slx": "18.7"}),
    "t": ("pixels", {"stn_c0": "1.16", "stn_cx": "1.15", "stn_dlx": "1.08", "stn_slx": "1.32"}),
    "s": ("log2 of the area", {"stn_c0": ".319", "stn_cx": ".508", "stn_dlx": ".291", "stn_slx": ".330"}),
}
"""Published spread of the final pose (Finnveden et al.) on rotated, translated and scaled MNIST."""
_POSE = ("pose_spread", "pose_slope", "pose_intercept", "pose_determinant", "feature_agreement", "bypass_acc")


def poses() -> str:
    """Return a table of the poses after the transformers of Finnveden et al., mean (SD) over seeds."""
    heads = ["data", "network", "n", "steps (of 70 000)", "spread published", "spread"]
    heads += [key.removeprefix("pose_").replace("_", " ") for key in _POSE[1:]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for letter, (unit, spreads) in SPREADS.items():
        known = finished_rows(f"finnveden_{letter}")
        for arch, spread in spreads.items():
            rows = [row for row in known if row["arch"] == arch]
            columns = [[row[key] for row in rows if row[key] is not None] for key in _POSE]
            cells = [_spread(column) for column in columns]
            steps = f"{rows[0]['steps']:,}" if rows else ""
            name = f"{letter.upper()} ({unit})"
            lines.append(_row([name, arch, len(rows) or "not run", steps, spread, *cells]))
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    stats = summary(values)
    return f"{stats.mean:.3g}" if stats.sd is None else f"{stats.mean:.3g} ({stats.sd:.2g})"
