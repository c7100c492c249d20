"""The comparison as a report on W&B: there is one of it, however often it is published.

Owns wandb_report.json beside the report, which knows the one on the server and may be deleted, and
wandb_report_spec.json, what could not be published. Must not know what the report says, nor how seeds are sent.
"""

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launch.report.analysis.sections import Section
from launch.report.output.wandb_spec import build, cells_of, digest, library, picture_run, projects, title
from launch.wandb.client import UPLOAD, Server, scratch
from stn.runs.files import read_json, write_atomic
from stn.tracking.wandb_run import QUIET, run_id

MEMORY, SPEC = "wandb_report.json", "wandb_report_spec.json"


class Site(Server):
    """W&B's server, as far as reports are concerned."""

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        from wandb_workspaces._graphql import execute_graphql

        with self._or_one_line():
            return execute_graphql(self.api, query, variables)

    def project_id(self, name: str) -> Any:
        from wandb_workspaces.reports.v2 import gql

        found = self.graphql(gql.projectInternalId, {"entityName": self.entity, "projectName": name}).get("project")
        if not found:
            raise FileNotFoundError(f"W&B has no project {self.entity}/{name}: upload its runs first (wandb-sync)")
        return found["internalId"]

    def find(self, project: str, known: str | None, name: str) -> Any:
        """The report that has this id, else one of this title."""
        with self._or_one_line():
            reports = sorted(self.api.reports(f"{self.entity}/{project}"), key=lambda one: one.id != known)
        return next((one for one in reports if known == one.id or name == one.display_name), None)

    def save(self, old: Any, project: str, name: str, spec: dict[str, Any]) -> dict[str, str]:
        """Make it, or make the old one anew; what to remember of it."""
        from wandb_workspaces._graphql import get_app_url
        from wandb_workspaces.reports.v2 import gql

        about = {"id": old.id if old else None, "name": old.name if old else uuid.uuid4().hex[:12], "type": "runs"}
        about |= {"entityName": self.entity, "projectName": project, "displayName": name, "description": ""}
        known = self.graphql(gql.upsert_view, about | {"spec": json.dumps(spec)})["upsertView"]["view"]["id"]
        words = re.sub(r"\W+", "-", name).strip("-")
        path = quote(f"{self.entity}/{project}/reports/{words}--{known.rstrip('=')}")
        return {"id": known, "project": project, "url": f"{get_app_url(self.api).rstrip('/')}/{path}"}

    def send_pictures(self, project: str, run: str, pictures: dict[str, Path]) -> None:
        about = {"project": project, "entity": self.entity, "id": run, "name": run, "job_type": "report"}
        how = {"mode": "online", "resume": "allow", "reinit": "create_new", "dir": self.folder}
        images = {key: self.wandb.Image(str(path)) for key, path in pictures.items()}  # says itself which is damaged
        with self._or_one_line():
            opened = self.wandb.init(**about, **how, settings=self.wandb.Settings(**{**QUIET, **UPLOAD}))
            opened.log(images)
            opened.finish()


def _pictures(out: Path) -> dict[str, Path]:
    """Those of the local report, by what W&B is to call them."""
    return {f"figures/{re.sub('[^A-Za-z0-9_.-]', '-', one.stem)}": one for one in sorted(out.glob("figures/*.png"))}


def _publish(
    site: Site, sections: list[Section], pictures: dict[str, Path], memory: dict[str, Any]
) -> tuple[dict, str]:
    """What to remember of it, and what to say."""
    cells = cells_of(sections)
    ids = {project: site.project_id(project) for project in projects(cells)}
    home = memory["project"] if memory.get("project") in ids else next(iter(ids))
    run, stamp = picture_run(cells), digest(b"".join(key.encode() + one.read_bytes() for key, one in pictures.items()))
    if pictures and (memory.get("pictures") != stamp or not site.ask(home, [run])):
        site.send_pictures(home, run, pictures)
    first = {run_id(cell.config, cell.sig, min(cell.rows)): cell for cell in cells if cell.rows}
    there = {known for project in ids for known in site.ask(project, list(first))}
    absent = [f"{cell.label} ({cell.dataset})" for known, cell in first.items() if known not in there]
    old = site.find(home, memory.get("id"), title(cells))
    made = site.save(old, home, title(cells), build(sections, pictures, home, str(site.entity), ids))
    lines = [f"W&B report {'updated' if old else 'made'}: {made['url']}"]
    lines += [f"W&B does not have the runs of {', '.join(absent)}: python -m launch wandb-sync"] if absent else []
    return made | {"pictures": stamp}, "\n".join(lines)


def publish(sections: list[Section], out: Path) -> str:
    """Make or update the report, or write its spec where W&B cannot be reached; what to tell the user."""
    cells = cells_of(sections)
    if not cells:
        return "no W&B report: there are no run directories"
    library()
    pictures = _pictures(out)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
            raise ConnectionError(f"WANDB_MODE is {mode}")
        with scratch() as folder:
            known, said = _publish(Site(folder), sections, pictures, read_json(out / MEMORY))
    except OSError as error:
        about = {"title": title(cells), "project": projects(cells)[0], "spec": build(sections, pictures)}
        write_atomic(out / SPEC, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        return f"no W&B report: {error}; the same command publishes it then. What it would say: {out / SPEC}"
    (out / SPEC).unlink(missing_ok=True)
    write_atomic(out / MEMORY, json.dumps(known) + "\n")
    return said
