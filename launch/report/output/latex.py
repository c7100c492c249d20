r"""The tables of a report as LaTeX, for a paper that loads booktabs; \input the file, or copy a table from it."""

import re
from collections.abc import Sequence

from launch.report.analysis.sections import Panel, Section, file_stem
from launch.report.analysis.stats import summary
from launch.report.analysis.tables import Entry, Table
from launch.report.analysis.verdicts import failures
from launch.report.overview import NOTHING, Overview

FILE = "tables.tex"
HEAD = r"""% Written by `python -m launch report --format latex`; rewritten with each later report in this folder.
% Needs \usepackage{booktabs}. Names in other scripts than Latin need lualatex or xelatex.
"""
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\symbol{34}", "`": r"\symbol{96}", "±": r"$\pm$",
}  # fmt: skip
MARKS = {"equal": "=", "unknown": "?"}


def _power(match: re.Match[str]) -> str:
    digits, exponent = f"{float(match[0]):.1e}".split("e")
    return rf"${digits} \times 10^{{{int(exponent)}}}$"


def escape(raw: object) -> str:
    """Return any text as LaTeX on one line, with minus signs before numbers and powers of ten."""
    text = "".join(SPECIAL.get(c, c) for c in " ".join(str(raw).split()))
    text = re.sub(r"(?<![\w.])\d+(?:\.\d+)?e[+-]\d+", _power, text)
    return re.sub(r"(?<![\w.{-])-(?=\d)", "$-$", text)  # not the minus of a power, which is in math mode already


def _signature(text: str) -> str:
    breakable = escape(text).replace(r"\textbar{}", r"\textbar{}\allowbreak ").replace(",", r",\allowbreak ")
    return rf"\par\smallskip\parbox{{\linewidth}}{{\raggedright\ttfamily\tiny {breakable}}}"


def _heading(raw: str) -> str:
    """Return a heading, a long one on two lines, so that a table of pairs fits a page's width."""
    words = raw.split()
    if len(raw) <= 14 or len(words) < 2:
        return escape(raw)
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    above, below = min(cuts, key=lambda cut: max(map(len, cut)))
    return rf"\shortstack{{{escape(above)}\\{escape(below)}}}"


def _compact(columns: int) -> list[str]:
    """Return what makes a table of many columns fit the width of a page."""
    if columns < 4:
        return []
    return [r"\scriptsize" if columns > 8 else r"\footnotesize", r"\setlength{\tabcolsep}{2pt}"]


def _environment(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, sign: str) -> str:
    """Return a floating table; headings, rows and caption are LaTeX already."""
    body = [" & ".join(row) + r" \\" for row in rows]
    if any(r"\shortstack" in row for row in body):
        body = [line for row in body for line in (row, r"\addlinespace")][:-1]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label)}}}",
        *_compact(len(headings)),
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
    ]
    lines += [r"\toprule", " & ".join(headings) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, _signature(sign), r"\end{table}", ""])


def _entry(entry: Entry) -> str:
    """Return a value, what has several parts on lines of their own."""
    around = {"better": r"\textbf{%s}", "worse": r"\textit{%s}"}.get(entry.mark, "%s")
    parts = [around % escape(part) for part in re.split(r", | (?=\()", entry.text)]
    lines = r"\\".join(parts)
    return rf"\shortstack[r]{{{lines}}}" if len(parts) > 1 else lines


def _whole(table: Table, caption: str, label: str, sign: str) -> str:
    """Return a table of the report as it is."""
    rows = [[_entry(entry) for entry in row] for row in table.rows]
    return _environment([_heading(text) for text in table.headings], rows, caption, label, sign)


def _beats(panel: Panel, best: int) -> str:
    """Return the label of an architecture that beats the one with the best mean, on seeds that both have, or ''.

    Means are over all seeds of each, of which one may have some that are hard and that the other lacks.
    """
    for pair in panel.compared:
        winner, loser = (pair.second, pair.first) if pair.test.mean > 0 else (pair.first, pair.second)
        if panel.metric.higher_is_better is False:
            winner, loser = loser, winner
        if pair.verdict.outcome == "better" and id(loser) == best:
            return winner.label
    return ""


def _marks(panel: Panel, means: dict[int, float], best: int) -> dict[int, str]:
    """Return the marks of architectures that the verdicts do not place below the best one, by id of the cell."""
    marks = {}
    for pair in panel.compared:
        other = {id(pair.first): id(pair.second), id(pair.second): id(pair.first)}.get(best)
        if other in means:
            marks[other] = MARKS.get(pair.verdict.outcome, "")
    return marks


def _failed(section: Section) -> str:
    """Return what a caption says of failed seeds: nothing if there are none."""
    return "".join(f" {escape(text)}." for text in failures(section.cells))


def _architectures(section: Section, panel: Panel) -> str:
    """Return mean ± SD and n of every architecture, the best in bold, what may be as good as the best marked."""
    metric = panel.metric
    summaries = {id(cell): summary(values) for cell in section.cells if (values := cell.values(metric.key).values())}
    means, marks, best, beats = {key: s.mean for key, s in summaries.items()}, dict[int, str](), None, ""
    if (
        means and metric.higher_is_better is not None and not panel.uncompared
    ):  # bold would read as: it beats the others
        best = (max if metric.higher_is_better else min)(means, key=lambda key: means[key])
        beats = _beats(panel, best)
        best, marks = (None, marks) if beats else (best, _marks(panel, means, best))
    rows = []
    for cell in section.cells:
        s = summaries.get(id(cell))
        value = "--" if s is None else metric.format(s.mean)
        value = rf"\mathbf{{{value}}}" if s and best is not None and s.mean == means[best] else value
        value += "" if s is None or s.sd is None else rf" \pm {metric.format(s.sd)}"
        value += f"^{{{marks[id(cell)]}}}" if marks.get(id(cell)) else ""
        rows.append([escape(cell.label), "--" if s is None else f"${value}$", str(s.n if s else 0)])
    unit = rf" ({escape(metric.unit)})" if metric.unit else ""
    caption = f"{escape(metric.title)}, on {escape(section.name)}: mean, standard deviation and number of seeds $n$."
    caption += "" if best is None else " Bold: best mean."
    caption += f" No mean is bold: {escape(beats)} beats the best one on shared seeds." if beats else ""
    caption += f" {panel.uncompared}." if panel.uncompared else ""
    said = {"=": "equal to the best, by the margin stated", "?": "not told apart from the best"}
    caption += "".join(f" $^{{{mark}}}$: {text}." for mark, text in said.items() if mark in marks.values()) + _failed(
        section
    )
    headings = ["architecture", rf"mean $\pm$ SD{unit}", "$n$"]
    return _environment(headings, rows, caption, f"{file_stem(section.name)}-{metric.key}", panel.signature)


def _panel(section: Section, panel: Panel) -> list[str]:
    tables = [_architectures(section, panel)]
    if panel.pairs:
        caption = f"{escape(panel.metric.title)}, on {escape(section.name)}: pairs of architectures."
        caption += f" {escape(panel.rule)}.{_failed(section)}"
        tables.append(
            _whole(panel.pairs, caption, f"{file_stem(section.name)}-{panel.metric.key}-pairs", panel.pair_signature)
        )
    return tables


def _against(overview: Overview) -> list[str]:
    if not (against := overview.against):
        return []
    caption = f"Now minus before, on shared seeds, against {escape(against.source)}."
    return [_whole(against.table, caption, "against", against.signature)]


def _over_all(overview: Overview) -> list[str]:
    if not (across := overview.across):
        return []
    about = f"{escape(across.metric.title)}, over {escape(', '.join(across.datasets))}"
    shown = {"matrix": across.matrix, "pairs": across.pair_table, "profiles": across.profile_table}
    rule = f"{escape(across.rule)}."
    said = {
        "matrix": f"{about}: row minus column{across.metric.difference_unit}, wins/ties/losses, $p$. {rule}",
        "pairs": f"{about}: pairs of architectures. {rule}",
        "profiles": f"{about}: errors within which shares of the results are, each data set with the same weight.",
    }
    return [_whole(table, said[kind], f"across-{kind}", across.signature) for kind, table in shown.items() if table]


def render_latex(sections: Sequence[Section], overview: Overview = NOTHING) -> str:
    """Return all tables, each one that a paper may take by itself."""
    tables = [table for section in sections for panel in section.panels for table in _panel(section, panel)]
    return "\n".join([HEAD, *_against(overview), *_over_all(overview), *tables])
