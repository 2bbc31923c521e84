"""Lineage as one document: the files, and which was made from which."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ds_flow.core import Document, RequestError
from ds_flow.ledger import Ledger, Made
from ds_flow.settings import Settings
from ds_flow.views.documents import output_folder
from ds_flow.views.lookup import find_place

PLAIN = frozenset(" -./,:=_+@()")  # what Mermaid shows as it is, beside letters and digits


def lineage_document(settings: Settings, ledger: Ledger, typed: str, cwd: str) -> Document:
    """Tell what an output was made from, or what was made of an input.

    `nodes` are files, each with an id of its own here. An edge leads from what was read to what
    was made. Raises RequestError if the file is neither an input nor an output.
    """
    name = Path(typed).name.encode(errors="replace").decode()
    run_id = ledger.lineage.run_of(name) if _may_be_output(settings, typed, cwd) else None
    if run_id is not None:
        made = ledger.lineage.outputs_of(run_id)
        combined = [one for one in made if one.path is None]
        is_combined = name in {one.name for one in combined}
        own = [one for one in made if one.path is not None and (is_combined or one.name == name)]
        graph = _Graph(settings, own, [one for one in combined if one.name == name])
        return {"asked": typed, "kind": "output", "start": [name], **graph.document()}
    path = find_place(settings, ledger, typed, cwd).path
    made = [*ledger.lineage.made_of(path)]
    if not made and not ledger.read.versions(path):
        raise RequestError(f"{path}: no input and no output of ds-flow; see `ds-flow files`")
    own = [one for one in made if one.path is not None]
    graph = _Graph(settings, own, [one for one in made if one.path is None])
    for row in ledger.read.versions(path):
        graph.add_input(row.path, row.version, row.sha256, row.size_bytes)
    starts = [node["id"] for node in graph.nodes.values() if node["kind"] == "input"]
    return {"asked": typed, "kind": "input", "start": sorted(starts), **graph.document()}


def _may_be_output(settings: Settings, typed: str, cwd: str) -> bool:
    """Whether a path has no folder, or is in the output folder."""
    output_dir = settings.output_dir.resolve()
    folders = (Path(start, typed).parent for start in (cwd, settings.root))
    return "/" not in typed or any(folder.resolve() == output_dir for folder in folders)


class _Graph:
    """Nodes by id, and edges. The id of an output is its name, that of an input PATH@VERSION."""

    def __init__(self, settings: Settings, own: Sequence[Made], combined: Sequence[Made]) -> None:
        self.nodes: dict[str, Document] = {}
        self.edges: list[Document] = []
        self._folder = output_folder(settings)
        whole: dict[str, list[Made]] = {}
        for one in combined:
            whole.setdefault(one.run_id, []).append(one)
        for one in own:
            source = self.add_input(
                str(one.path), one.version or 0, one.input_sha256, one.input_bytes or 0
            )
            self._add_output("processed", one)
            self._join(source, one.name)
            for joined in whole.get(one.run_id, ()):
                self._join(one.name, joined.name)
        for one in combined:
            self._add_output("combined", one)

    def document(self) -> Document:
        """Both as lists."""
        return {"nodes": list(self.nodes.values()), "edges": self.edges}

    def add_input(self, path: str, version: int, sha256: str | None, size_bytes: int) -> str:
        """Add a version of a file. Returns its id."""
        key = f"{path}@{version}"
        facts = {"version": version, "sha256": sha256, "bytes": size_bytes}
        self.nodes.setdefault(key, {"id": key, "kind": "input", "path": path, **facts})
        return key

    def _add_output(self, kind: str, made: Made) -> None:
        self.nodes[made.name] = {
            "id": made.name,
            "kind": kind,
            "path": self._folder + made.name,
            "sha256": made.sha256,
            "bytes": made.size_bytes,
            "rows": made.rows,
            "run_id": made.run_id,
            "trigger": made.trigger,
            "published_at": made.published_at,
            "removed": made.is_removed,
        }

    def _join(self, source: str, target: str) -> None:
        self.edges.append({"source": source, "target": target})


# --------------------------------------------------------------------------- for people


def lineage_tree(document: Document) -> Iterator[tuple[int, Document]]:
    """Walk from what was asked for to all that is behind it: how deep, and the node."""
    ends = ("target", "source") if document["kind"] == "output" else ("source", "target")
    nodes = {node["id"]: node for node in document["nodes"]}
    next_ones: dict[str, list[str]] = {}
    for edge in document["edges"]:
        next_ones.setdefault(edge[ends[0]], []).append(edge[ends[1]])
    for start in document["start"]:
        yield from _walk(start, 0, nodes, next_ones)


def _walk(
    key: str, depth: int, nodes: Mapping[str, Document], next_ones: Mapping[str, Sequence[str]]
) -> Iterator[tuple[int, Document]]:
    yield depth, nodes[key]
    for other in next_ones.get(key, ()):
        yield from _walk(other, depth + 1, nodes, next_ones)


def lineage_mermaid(document: Document) -> str:
    """Draw it for Mermaid. A name cannot end its label, whatever is in it."""
    numbers = {node["id"]: f"n{number}" for number, node in enumerate(document["nodes"])}
    lines = ["flowchart LR"]
    for node in document["nodes"]:
        version = f" version {node['version']}" if node["kind"] == "input" else ""
        lines.append(f'    {numbers[node["id"]]}["{_plain(node["path"] + version)}"]')
    lines += (
        f"    {numbers[edge['source']]} --> {numbers[edge['target']]}" for edge in document["edges"]
    )
    return "\n".join(lines) + "\n"


def _plain(words: str) -> str:
    return "".join(
        one if one in PLAIN or (one.isascii() and one.isalnum()) else f"#{ord(one)};"
        for one in words
    )
