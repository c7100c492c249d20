"""The files and artifacts that a loopback server of W&B keeps: as much of its protocol as the real client needs."""

from typing import Any


class Files:
    """``contents`` by path: <run>/<name> of a run's file, artifact/<id>/<name> of an artifact's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.contents: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        """What was created, with the key ``committed`` once it is complete."""

    def of_run(self, run: str) -> dict[str, bytes]:
        """Return the files of a run."""
        return {
            path.removeprefix(f"{run}/"): content
            for path, content in self.contents.items()
            if path.startswith(f"{run}/")
        }

    def of_artifact(self, name: str) -> dict[str, bytes]:
        """Return the files of the newest artifact of this name that is complete."""
        ids = [i for i, a in enumerate(self.artifacts) if a["artifactCollectionName"] == name and a.get("committed")]
        prefix = f"artifact/{ids[-1]}/" if ids else "/"
        return {p.removeprefix(prefix): content for p, content in self.contents.items() if p.startswith(prefix)}

    def _slot(self, path: str) -> dict[str, Any]:
        return {"uploadUrl": f"{self.url}/storage/{path}", "uploadHeaders": [], "uploadMultipartUrls": None}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to an operation, None if it is not about files."""
        if operation == "CreateRunFiles":
            files = [{"name": f} | self._slot(f"{variables['run']}/{f}") for f in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        if operation == "RunFiles":
            return {"project": {"internalId": "1", "run": self._listing(variables)}}
        if operation == "ArtifactType":  # of which type an artifact is that has the name already
            names = [a["artifactTypeName"] for a in self.artifacts if variables["name"].startswith(_name(a))]
            return {"project": {"artifact": {"artifactType": {"name": names[0]}} if names else None}}
        if operation == "CreateArtifact":
            self.artifacts.append(dict(variables["input"]))
            known = {"id": str(len(self.artifacts) - 1), "state": "PENDING"}
            return {"createArtifact": {"artifact": known | {"artifactSequence": {"id": "S", "latestArtifact": None}}}}
        if operation == "CreateArtifactManifest":
            file = {"id": "F", "name": "m", "displayName": "m"}
            file |= self._slot(f"artifact/{variables['artifactID']}/{variables['name']}")
            return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [self._artifact_file(file) for file in variables["input"]["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            self.artifacts[int(variables["artifactID"])]["committed"] = True
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}
        if operation == "ArtifactByID":
            return {"artifact": self._artifact(variables["id"])}
        return None

    def _artifact(self, known: str) -> dict[str, Any]:
        made = self.artifacts[int(known)]
        project = {"id": "p", "internalId": "i", "name": made["projectName"], "entity": {"id": "e", "name": "me"}}
        facts = {"__typename": "Artifact", "id": known, "versionIndex": 0, "description": None, "historyStep": None}
        facts |= {"artifactSequence": {"name": made["artifactCollectionName"], "project": project}, "tags": []}
        facts |= {"artifactType": {"name": made["artifactTypeName"]}, "metadata": made["metadata"], "commitHash": None}
        facts |= {"ttlDurationSeconds": -2, "ttlIsInherited": False, "state": "COMMITTED", "size": 0, "fileCount": 1}
        return facts | {"digest": made["digest"], "createdAt": "2026-01-01T00:00:00", "updatedAt": None, "aliases": []}

    def _artifact_file(self, file: dict[str, Any]) -> dict[str, Any]:
        slot = self._slot(f"artifact/{file['artifactID']}/{file['name']}")
        return slot | {"storagePath": file["name"], "artifact": {"id": file["artifactID"]}}

    def _listing(self, variables: dict[str, Any]) -> dict[str, Any]:
        files, wanted = self.of_run(variables["name"]), variables.get("fileNames")
        nodes = []
        for i, (name, content) in enumerate(files.items()):
            if not wanted or name in wanted:
                url = f"{self.url}/storage/{variables['name']}/{name}"
                facts = {"id": str(i), "name": name, "url": url, "directUrl": url, "sizeBytes": len(content)}
                nodes.append({"node": facts | {"mimetype": "", "updatedAt": None, "md5": None}, "cursor": str(i)})
        page = {"endCursor": None, "hasNextPage": False}
        return {"fileCount": len(files), "files": {"edges": nodes, "pageInfo": page}}


def _name(artifact: dict[str, Any]) -> str:
    return f"{artifact['artifactCollectionName']}:"
