"""Writing so that nothing is ever half there: files and folders under another name until they are whole."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_name(words: str) -> str:
    """Make a file name of words from anywhere (a layer, a species, a file): no separators, nothing hidden, not long."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", words).strip(" .")
    return plain[:100] or "untitled"


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved to `path` when the block succeeds and removed when not.

    Raises
    ------
    OSError
        In one sentence, if the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with one_sentence(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
            temporary.touch(exist_ok=False)
            yield temporary
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder, whose content is moved into `folder` when the block succeeds.

    What is in the way is replaced, the rest of `folder` stays; errors are those of `writing`.
    """
    folder = Path(folder)
    with one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
            yield Path(name)
            for part in sorted(Path(name).iterdir()):
                if (folder / part.name).is_dir():
                    shutil.rmtree(folder / part.name)
                os.replace(part, folder / part.name)


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Say of what cannot be written in the block which, why, and what to do."""
    try:
        yield
    except OSError as error:
        if "cannot be written" in str(error):
            raise
        reason = error.strerror or str(error)
        raise type(error)(f"{path} cannot be written: {reason}; choose another place or make room.") from error
