"""Folders that appear under their final name only when whole, as `pygolf.files` does it for single files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pygolf.errors import DataError, IoError
from pygolf.files import sync


@contextmanager
def replacing_folder(folder: Path, *, marker: str, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside `folder` that takes its name when the block ends well.

    A folder that holds anything is replaced only with `overwrite`, and only if it holds a file named `marker`: a
    mistyped path must not cost the user's files. On any failure the new folder goes and the old one stays.

    Raises DataError if `folder` may not be replaced, IoError if it cannot be written.
    """
    folder = folder.resolve()
    _check_replaceable(folder, marker, overwrite)
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        staging.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        yield staging
        _sync_files(staging)
        _take_name(staging, folder, overwrite)
    except OSError as error:
        reason = error.strerror or error
        raise IoError(f"cannot write {folder}: {reason}; free space or choose another folder") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(folder: Path, marker: str, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder to write; choose another place")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{folder} is not empty; choose another folder, or allow it to be overwritten")
    if not (folder / marker).is_file():
        raise DataError(
            f"{folder} has no {marker}, so pygolf did not make it and will not overwrite it; "
            "choose another folder or remove this one yourself"
        )


def _sync_files(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        sync(path)


def _take_name(staging: Path, folder: Path, overwrite: bool) -> None:
    """Renames `staging` to `folder`; an old folder is moved aside first and removed last.

    Without `overwrite` a folder that another process has filled meanwhile makes the system refuse.
    """
    old = staging.with_suffix(".old")
    if overwrite and folder.is_dir() and any(folder.iterdir()):
        folder.rename(old)
    staging.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
