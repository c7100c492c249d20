"""What W&B's report of a comparison says, as W&B keeps it: our tables, panels over run sets, pictures.

Must not know the network, nor which reports there are.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from launch.report.analysis.cells import Cell
from launch.report.analysis.sections import Section
from launch.report.output import markdown
from stn.tracking.wandb_run import group

LONGEST = 128
"""W&B takes no longer titles."""
LINES = 10
"""In a panel, unless it is told otherwise."""
ABOUT = (
    "Written by `python -m launch report --wandb`, which replaces all of it the next time. Intervals in the tables are "
    "over seeds (Student t, 95 %); panels show the mean over seeds and one standard deviation around it, because W&B "
    "cannot draw such intervals."
)


class Runs(NamedTuple):
    """A run set: those of which all of these conditions hold."""

    name: str
    project: str
    where: list[Any]


def library() -> Any:
    """W&B's classes for reports, which are an extra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it declares its models as in pydantic 1
            from wandb_workspaces.expr import filters_tree_to_v2  # noqa: F401 (older ones keep filters otherwise)
            from wandb_workspaces.reports import v2
    except ImportError:
        raise ValueError("--wandb needs one more package: pip install 'wandb-workspaces>=0.4.13'") from None
    return v2


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def title(cells: list[Cell]) -> str:
    """By the experiments' names, so that the same paths have the same one."""
    names = sorted({cell.config.log.name or cell.folder.parent.name for cell in cells})
    text = " ".join(f"Comparison: {', '.join(names)}".split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 9]} {digest(text.encode())}"


def projects(cells: Iterable[Cell]) -> list[str]:
    return sorted({cell.config.log.wandb_project for cell in cells})


def picture_run(cells: list[Cell]) -> str:
    """W&B shows no picture but that of a run, or of an address that everybody reaches: this run has only them."""
    return f"pictures-{digest(title(cells).encode())}"


def _tables(section: Section) -> str:
    """What the local report says of a data set, by what it is judged by."""
    panel, cells = section.panels[0], section.cells
    parts = [f"{panel.metric.title}, over seeds:", markdown.render_table(panel.architectures, links=False)]
    parts += [f"**Warning:** {markdown.escape(text)}." for text in section.warnings]
    missing, failed = sum(len(cell.missing) for cell in cells), sum(len(cell.failed) for cell in cells)
    parts += [f"Seeds that are missing: {missing}; that have failed: {failed}."] if missing or failed else []
    parts += ["Pairs of seeds:", markdown.render_table(panel.pairs)] if panel.pairs else []
    return "\n\n".join(parts)


def _run_sets(dataset: str, cells: list[Cell]) -> list[Runs]:
    """The runs of these cells; a set of them for each project."""
    from wandb_workspaces import expr

    several, sets = len(projects(cells)) > 1, []
    for project in projects(cells):
        own = [group(cell.config, cell.sig) for cell in cells if cell.config.log.wandb_project == project]
        where = [expr.Config("dataset.value") == dataset, expr.Metric("group").isin(sorted(own))]
        sets.append(Runs(f"{dataset}, {project}" if several else dataset, project, where))
    return sets


def _grid(wr: Any, cells: list[Cell], sets: list[Runs]) -> Any:
    """A line or bar for each architecture, or for each setting of one where it has several."""
    several = len({cell.arch for cell in cells}) < len(cells)
    keys = ["config.arch", "run.group"] if several else ["config.arch"]
    common = {"groupby": wr.Metric("Group") if several else wr.Config("arch"), "groupby_aggfunc": "mean"}
    common |= {"groupby_rangefunc": "stddev", "max_runs_to_show": max(LINES, len(cells))}
    splits = sorted({"val" if cell.config.data.validation else "test" for cell in cells})
    accuracy, loss = [f"{split}_acc" for split in splits], [f"{split}_loss" for split in splits]
    curves = {"Accuracy": accuracy, "Loss": loss, "Training loss": ["train/loss"]}
    panels = [wr.LinePlot(title=text, x="global_step", y=y, **common) for text, y in curves.items()]
    panels.append(wr.BarPlot(title="Accuracy after the last epoch", metrics=accuracy, **common))
    return wr.PanelGrid(runsets=[wr.Runset(groupby=keys) for _ in sets], panels=panels)


def cells_of(sections: Iterable[Section]) -> list[Cell]:
    return [cell for section in sections for cell in section.cells]


def build(
    sections: list[Section],
    pictures: Iterable[str] = (),
    home: str = "",
    entity: str = "",
    ids: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The spec, with W&B's ids of projects if they are known; pictures are keys in the run of pictures."""
    wr = library()
    from wandb_workspaces import expr

    blocks, sets, cells = [wr.MarkdownBlock(ABOUT)], [], cells_of(sections)
    for section in sections:
        runs = _run_sets(section.name, section.cells)
        blocks += [wr.H1(section.name), wr.MarkdownBlock(_tables(section)), _grid(wr, section.cells, runs)]
        sets += runs
    home = home or projects(cells)[0]
    if pictures:
        panels = [wr.MediaBrowser(media_keys=[key], layout=wr.Layout(w=24, h=16)) for key in pictures]
        blocks += [wr.H1("Pictures"), wr.PanelGrid(runsets=[wr.Runset()], panels=panels)]
        sets.append(Runs("Pictures", home, [expr.Metric("name") == picture_run(cells)]))
    model = wr.Report(project=home, entity=entity, title=title(cells), blocks=blocks, width="fluid")._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    found = [one for block in spec["blocks"] if block["type"] == "panel-grid" for one in block["metadata"]["runSets"]]
    for one, runs in zip(found, sets, strict=True):
        project = {"name": runs.project, "entityName": entity} | ({"id": ids[runs.project]} if ids else {})
        # Not by its Runset, which takes text, in which = becomes == in a value and a quote ends it.
        filters = expr.filters_tree_to_v2(expr.And(*runs.where).to_model())
        one |= {"name": runs.name, "project": project, "filters": filters}
    return spec
