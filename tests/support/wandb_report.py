"""Build and publish a comparison on W&B, and find parts of its spec."""

import json
from pathlib import Path
from typing import Any

from launch.report.analysis.cells import Cell, Comparison, load
from launch.report.analysis.sections import build_sections
from launch.report.output import wandb_report, wandb_spec
from stn.runs.directory import RunDir
from tests.support.sweeps import TWO_CELLS, add_result, save_plan
from tests.support.wandb_server import WandbServer


def cells_of(tmp_path: Path, grid: dict[str, Any]) -> list[Cell]:
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": grid, "seeds": "0-7"})
    for i, job in enumerate(plan.jobs):
        for seed in range(8):
            add_result(plan, job, seed, 0.9 + 0.01 * i + 0.001 * seed)
        RunDir(plan.experiment / job.sig / job.block).config.write_text(plan.cell_file(job).read_text())
    return load([str(plan.experiment)]).cells


def publish(cells: list[Cell], out: Path) -> str:
    published, message = wandb_report.publish(build_sections(Comparison("two", cells, []), out), out)
    assert published == (not message.startswith("no W&B report"))
    return message


def build(cells: list[Cell]) -> dict[str, Any]:
    return wandb_spec.build_spec(build_sections(Comparison("two", cells, []), Path("report")))


def renamed(cells: list[Cell], section: str, **fields: str) -> list[Cell]:
    for cell in cells:
        part = getattr(cell.config, section).model_copy(update=fields)
        cell.config = cell.config.model_copy(update={section: part})
    return cells


def blocks(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in spec["blocks"] if block["type"] == kind]


def grids(spec: dict[str, Any]) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return the run sets and panels of each grid."""
    grid_blocks = [block["metadata"] for block in blocks(spec, "panel-grid")]
    return [(metadata["runSets"], metadata["panelBankSectionConfig"]["panels"]) for metadata in grid_blocks]


def conditions(runs: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{condition['key']['section']}:{condition['key']['name']}": condition["value"]
        for condition in runs["filters"]["filters"]
    }


def spec_on(server: WandbServer) -> dict[str, Any]:
    (view,) = server.views.values()
    return json.loads(view["spec"])
