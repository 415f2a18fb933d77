"""What the command line shares: where it prints, how it fails, how it shows progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

STRUCTURE_HELP = "Value or name of the structure; a personalised model's only one by default."


def fail(message: str) -> None:
    """Print one sentence to standard error, without markup."""
    errors.print(f"napari-fedsam: {message}", markup=False)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error while a terminal looks on; yield its setter (0..1)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)
