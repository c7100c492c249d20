"""The spec of a comparison's W&B report: our tables, panels over run sets, and figures. Needs no network."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from launch.report.analysis.cells import Cell
from launch.report.analysis.sections import Section
from launch.report.output.markdown import escape, render_blocks, render_overview, render_table, signed
from launch.report.overview import NOTHING, Overview
from stn.tracking.wandb_run import group

MOST_CHARACTERS = 128
"""W&B's limit for titles."""
DEFAULT_LINES = 10
"""Lines in a panel unless max_runs_to_show asks for more."""
ABOUT = (
    "Written by `python -m launch report --wandb`, which overwrites the whole report. Intervals in the tables are 95 % "
    "Student-t intervals over seeds. Panels show the mean over seeds and one standard deviation around it, because W&B "
    "cannot draw such intervals."
)


def load_library() -> Any:
    """Return W&B's package for reports, which is an optional dependency."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it declares its models as in pydantic 1
            from wandb_workspaces.expr import filters_tree_to_v2  # noqa: F401 (older versions write other filters)
            from wandb_workspaces.reports import v2
    except ImportError:
        raise ValueError("--wandb needs one more package: pip install 'wandb-workspaces>=0.4.13,<0.5'") from None
    return v2


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def report_title(cells: list[Cell]) -> str:
    """Return a title made of the experiments' names, which finds the same report again."""
    names = sorted({cell.config.log.name or cell.folder.parent.name for cell in cells})
    text = " ".join(f"Comparison: {', '.join(names)}".split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 9]} {digest(text.encode())}"


def figure_run(title: str) -> str:
    """Return the id of the run that holds the figures: a report can show images of runs and of public URLs only."""
    return f"pictures-{digest(title.encode())}"


def cells_of(sections: Iterable[Section]) -> list[Cell]:
    return [cell for section in sections for cell in section.cells]


def projects(cells: Iterable[Cell]) -> list[str]:
    return sorted({cell.config.log.wandb_project for cell in cells})


def _tables(section: Section) -> str:
    """Return the tables of a data set under its first metric, and what is said image by image, as Markdown."""
    panel, cells = section.panels[0], section.cells
    parts = ["\n".join(f"- {escape(line)}" for line in panel.verdicts)] if panel.verdicts else []
    parts += [f"{panel.metric.title}, over seeds:", render_table(panel.architectures, links=False)]
    parts += [f"`{panel.signature}`"]
    parts += [f"**Warning:** {escape(text)}." for text in section.warnings]
    missing, failed = sum(len(cell.missing) for cell in cells), sum(len(cell.failed) for cell in cells)
    parts += [f"Missing seeds: {missing}; failed seeds: {failed}."] if missing or failed else []
    pairs = "Pairs of architectures on shared seeds:"
    parts += [pairs, *signed(panel.matrix, panel.pair_signature)] if panel.matrix else [pairs] * bool(panel.pairs)
    parts += [*signed(panel.pairs, panel.pair_signature), f"{escape(panel.rule)}."] if panel.pairs else []
    parts += render_blocks(section.images.blocks)
    return "\n\n".join(parts)


def _run_set(name: str, project: str, *conditions: Any) -> dict[str, Any]:
    """Return the runs of a project that meet all conditions, as W&B stores them.

    Not as wr.Runset, which takes filters as text: it turns = within a value into ==, and a quote ends the value.
    """
    from wandb_workspaces import expr

    filters = expr.filters_tree_to_v2(expr.And(*conditions).to_model())
    return {"name": name, "project": {"name": project}, "filters": filters}


def _run_sets(section: Section) -> list[dict[str, Any]]:
    """Return the runs of a data set, one run set for each project."""
    from wandb_workspaces import expr

    names, run_sets = projects(section.cells), []
    for project in names:
        cells = [cell for cell in section.cells if cell.config.log.wandb_project == project]
        groups = sorted(group(cell.config, cell.sig) for cell in cells)
        name = f"{section.name}, {project}" if len(names) > 1 else section.name
        conditions = expr.Config("dataset.value") == section.name, expr.Metric("group").isin(groups)
        run_sets.append(_run_set(name, project, *conditions))
    return run_sets


def _grid(wr: Any, cells: list[Cell], run_sets: int) -> Any:
    """Return panels with a line or bar for each architecture, or for each setting if an architecture has several."""
    several = len({cell.arch for cell in cells}) < len(cells)
    keys = ["config.arch", "run.group"] if several else ["config.arch"]
    common = {"groupby": wr.Metric("Group") if several else wr.Config("arch"), "groupby_aggfunc": "mean"}
    common |= {"groupby_rangefunc": "stddev", "max_runs_to_show": max(DEFAULT_LINES, len(cells))}
    splits = sorted({cell.config.data.split for cell in cells})
    accuracy, loss = [f"{split}_acc" for split in splits], [f"{split}_loss" for split in splits]
    curves = {"Accuracy": accuracy, "Loss": loss, "Training loss": ["train/loss"]}
    panels = [wr.LinePlot(title=text, x="global_step", y=y, **common) for text, y in curves.items()]
    panels.append(wr.BarPlot(title="Accuracy after the last epoch", metrics=accuracy, **common))
    return wr.PanelGrid(runsets=[wr.Runset(groupby=keys) for _ in range(run_sets)], panels=panels)


def build_spec(
    sections: list[Section],
    figure_keys: Iterable[str] = (),
    home: str = "",
    entity: str = "",
    project_ids: Mapping[str, Any] | None = None,
    overview: Overview = NOTHING,
) -> dict[str, Any]:
    """Return the spec of a report in project ``home``; figures are keys of the run ``figure_run``.

    Run sets need W&B's ids of their projects to be shown; a spec that is only kept does without.
    """
    wr = load_library()
    from wandb_workspaces import expr

    cells = cells_of(sections)
    title, home = report_title(cells), home or projects(cells)[0]
    blocks, run_sets = [wr.MarkdownBlock(ABOUT)], []
    if top := render_overview(overview):
        blocks.append(wr.MarkdownBlock("\n\n".join(top)))
    for section in sections:
        section_sets = _run_sets(section)
        blocks += [wr.H1(section.name), wr.MarkdownBlock(_tables(section)), _grid(wr, section.cells, len(section_sets))]
        run_sets += section_sets
    if figure_keys:
        panels = [wr.MediaBrowser(media_keys=[key], layout=wr.Layout(w=24, h=16)) for key in figure_keys]
        blocks += [wr.H1("Figures"), wr.PanelGrid(runsets=[wr.Runset()], panels=panels)]
        run_sets.append(_run_set("Figures", home, expr.Metric("name") == figure_run(title)))
    model = wr.Report(project=home, entity=entity, title=title, blocks=blocks, width="fluid")._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    grids = [block["metadata"]["runSets"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    for saved, run_set in zip([saved for grid in grids for saved in grid], run_sets, strict=True):
        saved |= run_set
        saved["project"] |= {"entityName": entity}
        saved["project"] |= {"id": project_ids[saved["project"]["name"]]} if project_ids else {}
    return spec
