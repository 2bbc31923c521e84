"""An import contract of our own: what lies inside a package is imported by that package alone."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class PublicNamesContract(Contract):
    """Modules outside `ds_flow.PACKAGE` import from it, never from a module in it.

    mypy's `no_implicit_reexport` holds the other half: such a name stands in its `__all__`.
    """

    type_name = "public_names"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001, ARG002 - import-linter's own signature
        """Find every import that reaches past a package's `__init__`."""
        found = [
            (importer, imported)
            for importer in sorted(graph.modules)
            if importer.startswith("ds_flow")
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported.startswith("ds_flow.") and _reaches_into(importer, imported)
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each."""
        for importer, imported in check.metadata["found"]:
            output.print_error(f"{importer} imports {imported}; take it from its package")


def _reaches_into(importer: str, imported: str) -> bool:
    """Whether an import goes below the first package that the two do not share."""
    ours, theirs = importer.split("."), imported.split(".")
    shared = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    return len(theirs) > shared + 1
