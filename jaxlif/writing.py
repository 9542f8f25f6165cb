"""Files that are there whole or not at all, in the folder that was named and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to ``folder`` in the end, or none of them; ``folder`` is made only then.

    A place where nothing can be written is refused before anything long begins.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        temporary = TemporaryDirectory(prefix=".jaxlif-", dir=place)
    except OSError as error:
        raise ValueError(f"out = {folder}: nothing can be written there ({error.strerror})") from error
    with temporary as name:
        yield Path(name)
        for path in sorted(Path(name).iterdir()):
            folder.mkdir(parents=True, exist_ok=True)
            path.replace(folder / path.name)
