"""Publishes a comparison as a W&B report, and updates the same report each time.

Owns wandb_report.json in the report's folder, which identifies the report on the server and may be deleted, and
wandb_report_spec.json, the content of a report that could not be published.
"""

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launch.report.analysis.sections import Section
from launch.report.output import wandb_spec
from launch.report.overview import NOTHING, PROFILES, Overview
from launch.wandb.client import UPLOAD, Server, scratch
from stn.runs.files import read_json, write_atomic
from stn.tracking.wandb_run import QUIET, run_id

MEMORY, SPEC = "wandb_report.json", "wandb_report_spec.json"
SYNC = "python -m launch wandb-sync"


class ReportServer(Server):
    """The reports of W&B's server."""

    def _graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        from wandb_workspaces._graphql import execute_graphql

        with self.one_line_errors():
            return execute_graphql(self.api, query, variables)

    def project_id(self, name: str) -> Any:
        from wandb_workspaces.reports.v2 import gql

        variables = {"entityName": self.entity, "projectName": name}
        project = self._graphql(gql.projectInternalId, variables).get("project")
        if not project:
            raise FileNotFoundError(f"W&B has no project {self.entity}/{name}; upload its runs first: {SYNC}")
        return project["internalId"]

    def find(self, project: str, known: str | None, title: str) -> Any:
        """Return the report with this id, or else one with this title, or None."""
        with self.one_line_errors():
            reports = list(self.api.reports(f"{self.entity}/{project}"))
        matches = [report for report in reports if report.id == known]
        matches += [report for report in reports if report.display_name == title]
        return next(iter(matches), None)

    def save(self, old: Any, project: str, title: str, spec: dict[str, Any]) -> dict[str, str]:
        """Create a report, or overwrite the old one; return what identifies it."""
        from wandb_workspaces._graphql import get_app_url
        from wandb_workspaces.reports.v2 import gql

        view = {"id": old.id if old else None, "name": old.name if old else uuid.uuid4().hex[:12], "type": "runs"}
        view |= {"entityName": self.entity, "projectName": project, "displayName": title, "description": ""}
        saved = self._graphql(gql.upsert_view, view | {"spec": json.dumps(spec)})["upsertView"]["view"]["id"]
        words = re.sub(r"\W+", "-", title).strip("-")
        path = quote(f"{self.entity}/{project}/reports/{words}--{saved.rstrip('=')}")
        return {"id": saved, "project": project, "url": f"{get_app_url(self.api).rstrip('/')}/{path}"}

    def send_figures(self, project: str, run: str, figures: dict[str, Path]) -> None:
        identity = {"project": project, "entity": self.entity, "id": run, "name": run, "job_type": "report"}
        options = {"mode": "online", "resume": "allow", "reinit": "create_new", "dir": self.folder}
        images = {key: self.wandb.Image(str(path)) for key, path in figures.items()}  # names a damaged file itself
        with self.one_line_errors():
            opened = self.wandb.init(**identity, **options, settings=self.wandb.Settings(**{**QUIET, **UPLOAD}))
            opened.log(images)
            opened.finish()


def _publish(
    server: ReportServer,
    sections: list[Section],
    figures: dict[str, Path],
    memory: dict[str, Any],
    overview: Overview,
) -> tuple[dict, str]:
    """Return what to remember of the report, and the message to the user."""
    cells = wandb_spec.cells_of(sections)
    entities = {cell.config.log.wandb_entity for cell in cells}
    if len(entities) > 1:
        raise FileNotFoundError("the runs are of several W&B entities, and a report is of one; report on each alone")
    server.entity = entities.pop() or server.entity
    title = wandb_spec.report_title(cells)
    run = wandb_spec.figure_run(title)
    ids = {project: server.project_id(project) for project in wandb_spec.projects(cells)}
    home = memory["project"] if memory.get("project") in ids else next(iter(ids))
    stamp = wandb_spec.digest(b"".join(key.encode() + path.read_bytes() for key, path in figures.items()))
    if figures and (memory.get("pictures") != stamp or not server.runs(home, [run])):
        server.send_figures(home, run, figures)
    first_runs = {run_id(cell.config, cell.sig, min(cell.rows)): cell for cell in cells if cell.rows}
    uploaded = {known for project in ids for known in server.runs(project, list(first_runs))}
    absent = [f"{cell.label} ({cell.dataset})" for known, cell in first_runs.items() if known not in uploaded]
    old = server.find(home, memory.get("id"), title)
    spec = wandb_spec.build_spec(sections, figures, home, str(server.entity), ids, overview)
    saved = server.save(old, home, title, spec)
    lines = [f"W&B report {'updated' if old else 'created'}: {saved['url']}"]
    lines += [f"W&B lacks the runs of {', '.join(absent)}; upload: {SYNC}"] if absent else []
    return saved | {"pictures": stamp}, "\n".join(lines)


def publish(sections: list[Section], out: Path, overview: Overview = NOTHING) -> tuple[bool, str]:
    """Create or update the W&B report, or write its spec if W&B cannot be reached.

    Return whether it was published, and a message to the user.
    """
    if not sections:
        return False, "no W&B report: no run directories were found"
    wandb_spec.load_library()
    paths = [out / "figures" / name for section in sections for name in section.figures.values()]
    paths += [out / "figures" / PROFILES] if overview.across and overview.across.profiles else []
    figures = {f"figures/{path.stem}": path for path in paths if path.is_file()}
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
            raise ConnectionError(f"WANDB_MODE is {mode}")
        with scratch() as folder:
            saved, message = _publish(ReportServer(folder), sections, figures, read_json(out / MEMORY), overview)
    except OSError as error:
        cells, spec = wandb_spec.cells_of(sections), wandb_spec.build_spec(sections, figures, overview=overview)
        kept = {"title": wandb_spec.report_title(cells), "project": wandb_spec.projects(cells)[0], "spec": spec}
        write_atomic(out / SPEC, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        return False, f"no W&B report: {error}; its content is in {out / SPEC}, rerun this command to publish it"
    (out / SPEC).unlink(missing_ok=True)
    write_atomic(out / MEMORY, json.dumps(saved) + "\n")
    return True, message
