"""Tables for LaTeX: well formed whatever the names are, and their numbers are those of the rows."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.report import build
from launch.report.analysis.cells import load
from launch.report.analysis.sections import build_sections
from launch.report.output.latex import escape, render_latex
from launch.report.overview import build_overview
from launch.sweep.plan import Plan
from tests.support.across import cells_of, sweep
from tests.support.paths import ROOT
from tests.support.properties import few
from tests.support.sweeps import launch

COMMANDS = {
    *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "par", "smallskip"),
    *("parbox", "linewidth", "raggedright", "ttfamily", "tiny", "allowbreak", "pm", "mathbf", "textbf", "textit"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "symbol", "times"),
    *("addlinespace", "scriptsize", "footnotesize", "setlength", "tabcolsep", "shortstack"),
}


def check_syntax(text: str) -> None:
    """Assert what TeX would stop at: groups, math, environments, columns, unknown commands, special characters."""
    text = re.sub(r"(?m)^%.*$", "", text)
    stack, math, opened, word = [], False, 0, re.compile(r"\\([A-Za-z]+)|\\(.)|(.)", re.DOTALL)
    for command, escaped, char in word.findall(text):
        assert not command or command in COMMANDS, command
        assert not escaped or escaped in "{}$&#_%\\", escaped
        if char == "{":
            stack.append(char)
        elif char == "}":
            assert stack.pop() == "{"
        elif char == "$":
            assert not math or len(stack) == opened, "math ends within a group that it began outside of"
            math, opened = not math, len(stack)
        assert char not in "#%~" or not char, char
        assert char not in "_^" or math or not char, char
    assert (stack, math) == ([], False)
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or open_.pop() == name
        open_ += [name] if kind == "begin" else []
    assert not open_
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in re.findall(r"(?m)^(.*) \\\\$", body):
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) == text.count(r"\begin{table}")


def test_numbers_and_marks_are_those_of_the_rows(tmp_path: Path) -> None:
    values = sweep(3)
    values["stn_c0"]["mnist"] = {s: v + 1e-5 * (s % 3) for s, v in values["stn_slx"]["mnist"].items()}
    sections = build_sections(build.Comparison("x", cells_of(values), []), tmp_path)
    text = render_latex(sections, build_overview(sections))
    check_syntax(text)
    table = text.partition(r"\label{tab:mnist-test-acc}")[2].partition(r"\end{table}")[0]
    best = max(values, key=lambda arch: np.mean(list(values[arch]["mnist"].values())))
    assert best == "stn_c0"
    for arch, mark in (("cnn", ""), ("stn_c0", ""), ("stn_slx", "")):
        x = 100 * np.array(list(values[arch]["mnist"].values()))
        mean = rf"\mathbf{{{x.mean():.2f}}}" if arch == best else f"{x.mean():.2f}"
        assert rf"{escape(arch)} & ${mean} \pm {x.std(ddof=1):.2f}{mark}$ & 10 \\" in table
    d = np.array([values["stn_slx"]["mnist_r"][s] - values["cnn"]["mnist_r"][s] for s in range(10)])
    pairs = text.partition(r"\label{tab:mnist-r-test-acc-pairs}")[2].partition(r"\end{table}")[0]
    assert rf"stn\_slx - cnn & \textbf{{better}} & 10 & {100 * d.mean():+.2f}" in pairs
    assert text.count(r"\ttfamily\tiny data:") == text.count(r"\begin{table}"), "a signature under every table"


def test_what_may_be_as_good_as_the_best_is_marked(plan: Plan, tmp_path: Path) -> None:
    comparison = load([str(plan.experiment)])
    first, second = comparison.cells
    for seed, row in second.rows.items():
        row["test_acc"] = first.rows[seed]["test_acc"] - 0.0002 - 0.0001 * (-1) ** seed
    first.rows = {seed: first.rows[seed] for seed in second.rows}
    for margin, mark, why in ((0.5, "^{=}", "equal to the best"), (None, "", "")):
        text = render_latex(build_sections(comparison, tmp_path, margin))
        assert (f"{mark}$ & 6" in text, why in text) == (True, True)
        assert ("$^{" in text) == bool(mark)
    for seed, row in second.rows.items():
        row["test_acc"] = first.rows[seed]["test_acc"] - 0.0001 - 0.001 * (-1) ** seed
    text = render_latex(build_sections(comparison, tmp_path))
    assert "^{?}$ & 6" in text
    assert "$^{?}$: not told apart from the best." in text


@pytest.mark.parametrize("key", ["test_acc", "test_loss"])
def test_what_a_verdict_places_below_another_is_not_the_best(key: str, tmp_path: Path) -> None:
    """The first has more seeds, easier ones among them; on the shared ones the second is better."""
    hard = {seed: 0.9 + 0.001 * (seed % 3) for seed in range(4)}
    first = hard | dict.fromkeys(range(4, 9), 0.95)
    second = {seed: value + 0.01 + 1e-4 * seed for seed, value in hard.items()}
    cells = cells_of({"cnn": {"mnist": first}, "stn_slx": {"mnist": second}})
    for cell in cells:
        cell.rows = {s: {key: v["test_acc"] if key == "test_acc" else 1 - v["test_acc"]} for s, v in cell.rows.items()}
    text = render_latex(build_sections(build.Comparison("x", cells, []), tmp_path))
    assert (r"\mathbf" in text, "Bold" in text) == (False, False)
    assert r"No mean is bold: stn\_slx beats the best one on shared seeds." in text
    cells[0].rows = {seed: cells[0].rows[seed] for seed in hard}
    text = render_latex(build_sections(build.Comparison("x", cells, []), tmp_path))
    assert (r"\mathbf" in text, "No mean is bold" in text) == (True, False)


def test_without_a_comparison_of_pairs_nothing_is_called_best(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.report.analysis.tables.MOST_PAIRS", 0)
    text = render_latex(build_sections(load([str(plan.experiment)]), tmp_path))
    first, _, second = text.split(r"\begin{table}")[1:]
    assert (r"\mathbf" in first, "Bold: best mean." in first, "first metric only" in first) == (True, True, False)
    assert (r"\mathbf" in second, "Bold" in second) == (False, False)
    assert "$n$. With this many architectures, pairs are compared under the first metric only." in second


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, with booktabs")
def test_latex_compiles_it_and_a_table_of_pairs_fits_the_page(tmp_path: Path) -> None:
    sections = build_sections(build.Comparison("x", cells_of(sweep(3)), []), tmp_path)
    tables = render_latex(sections, build_overview(sections))
    assert r" \times 10^{-" in tables
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "paper.tex").write_text(document)
    done = subprocess.run(["pdflatex", "-halt-on-error", "paper"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert max(map(float, re.findall(r"Overfull .hbox \(([\d.]+)pt", done.stdout)), default=0.0) < 15


def test_powers_of_ten_stay_in_one_formula() -> None:
    assert escape("9.999e-05") == r"$1.0 \times 10^{-4}$"
    assert escape("-3.14e+07") == r"-$3.1 \times 10^{7}$"
    with pytest.raises(AssertionError, match="within a group"):
        check_syntax(r"$1 \times 10^{$-$19}$")


@few(200)
@given(st.text())
def test_any_name_is_text(name: str) -> None:
    check_syntax(escape(name))


def test_hostile_names_and_empty_cells_make_a_table(plan: Plan, tmp_path: Path) -> None:
    comparison = load([str(plan.experiment)])
    comparison.cells[0].setting = r"\input{/etc/passwd} $ & % # _ ^ ~ { } < > | ` "
    comparison.cells[1].rows = {}
    text = render_latex(build_sections(comparison, tmp_path))
    check_syntax(text)
    assert r"stn\_slx & -- & 0 \\" in text
    check_syntax(render_latex([]))


def test_it_is_written_on_request_and_kept_current(plan: Plan) -> None:
    out = plan.experiment / "report"
    done = launch("report", plan.experiment, "--format", "latex", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"LaTeX     {out / 'tables.tex'}" in done.stdout
    check_syntax((out / "tables.tex").read_text())
    pdfs = sorted((out / "figures").glob("*.pdf"))
    assert [path.stem for path in pdfs] == sorted(path.stem for path in (out / "figures").glob("*.png"))
    assert all(path.read_bytes().startswith(b"%PDF") and b"/Type3" not in path.read_bytes() for path in pdfs)
    before = (out / "tables.tex").read_text()
    comparison = load([str(plan.experiment)])
    comparison.cells[0].rows[0]["test_acc"] = 0.1
    build.write_report(comparison, out)
    assert (out / "tables.tex").read_text() != before, "no table of other numbers stays beside a new report"


@pytest.mark.parametrize(("word", "hint"), [("latx", "did you mean 'latex'?"), ("pdf2", "known: latex")])
def test_an_unknown_format_is_refused(word: str, hint: str, plan: Plan) -> None:
    done = launch("report", plan.experiment, "--format", word, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no format '{word}'; {hint}\n"
    assert not (plan.experiment / "report").exists()
