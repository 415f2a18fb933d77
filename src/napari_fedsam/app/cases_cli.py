"""`napari-fedsam cases`: look after the local training set."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from napari_fedsam.app.console import console
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.settings import home

cases_app = typer.Typer(no_args_is_help=True, help="The local training set.")

Folder = Annotated[
    Path | None, typer.Option("--folder", help="The cases folder; this user's site by default.")
]


def _store(folder: Path | None) -> CaseStore:
    return CaseStore(folder or home() / "cases")


@cases_app.command("list")
def list_cases(folder: Folder = None) -> None:
    """List the cases."""
    store = _store(folder)
    table = Table("id", "structure", "split", "patient", "date", "by")
    for record in store.records():
        name = f"{record.structure.name} (absent)" if record.absent else record.structure.name
        date = f"{record.created_at:%Y-%m-%d %H:%M}"
        table.add_row(record.id, name, record.split, record.patient, date, record.annotator)
    console.print(table)
    console.print(f"{table.row_count} cases in {store.folder}", markup=False)


@cases_app.command()
def verify(folder: Folder = None) -> None:
    """Check every case; a broken one is set aside with its reason."""
    store = _store(folder)
    broken = store.verify()
    for case in broken:
        console.print(f"{case.id}: {case.reason}", markup=False)
    console.print(f"{len(store.records())} cases are sound, {len(broken)} were set aside.")
    if broken:
        raise typer.Exit(1)


@cases_app.command()
def export(
    destination: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    folder: Folder = None,
    site: Annotated[str, typer.Option(help="The site's name in the manifest.")] = "local",
) -> None:
    """Copy the cases and a manifest to a folder."""
    count = _store(folder).export(destination, site=site)
    console.print(f"{count} cases exported to {destination}", markup=False)


@cases_app.command()
def delete(
    case_id: Annotated[str | None, typer.Argument(help="The case's id.")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Delete every case of this patient's pseudonym.")
    ] = None,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a case, or all cases of a patient."""
    if (case_id is None) == (patient is None):
        raise typer.BadParameter("give a case's id or --patient")
    if not yes:
        typer.confirm(f"Delete {case_id or f'every case of {patient}'}?", abort=True)
    store = _store(folder)
    report = store.delete(case_id) if case_id else store.delete_patient(str(patient))
    console.print(report.remains, markup=False)
