"""How a recording comes into a store: built aside, and there all at once."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from neurofm.errors import StoreError, StoreUnwritable
from neurofm.files import sync_folder
from neurofm.store.layout import TEMPORARY, locked, recording_path
from neurofm.store.remote import Location, RemotePath

LOCK = ".lock"


@contextmanager
def staged(store: Location, recording_id: str) -> Iterator[Path]:
    """Give a local folder to build a recording in, which is in the store when the block ends.

    In a folder the recording is renamed into place. Behind a URL its objects are uploaded, the
    group's ``zarr.json`` last: without it there is no recording. Either way it is part of the
    store once its row is in the index.

    Parameters
    ----------
    store : Path or RemotePath
        The store.
    recording_id : str
        Name of the recording.

    Raises
    ------
    StoreError
        If the store has the recording already.
    StoreUnwritable
        If it cannot be written.
    """
    final = recording_path(store, recording_id)
    try:
        if exists(final):
            raise duplicate(recording_id, store)
        with _aside(store if isinstance(store, Path) else Path(tempfile.gettempdir())) as folder:
            yield folder
            folder.chmod(0o755)  # it was private
            if isinstance(final, RemotePath):
                _upload(folder, final)
            else:
                folder.rename(final)
                sync_folder(final.parent)
    except OSError as error:
        if _now_there(final):
            raise duplicate(recording_id, store) from None
        raise StoreUnwritable(
            f"{recording_id} cannot be written to {store}: {error}",
            hint="free space or choose another path; what is complete there is untouched",
        ) from None


@contextmanager
def staged_array(store: Location, recording_id: str, name: str) -> Iterator[Path]:
    """Give a local folder to build an array in, which is in a recording when the block ends.

    One that is there already is replaced.

    Parameters
    ----------
    store : Path or RemotePath
        The store.
    recording_id : str
        A recording in it.
    name : str
        Name of the array.

    Raises
    ------
    StoreError
        If there is no such recording.
    StoreUnwritable
        If it cannot be written.
    """
    group = recording_path(store, recording_id)
    final = group / name
    try:
        if not exists(group):
            raise StoreError(f"no recording {recording_id!r} in {store}, to put {name} beside")
        with _aside(store if isinstance(store, Path) else Path(tempfile.gettempdir())) as folder:
            yield folder
            folder.chmod(0o755)
            if isinstance(final, RemotePath):
                _upload(folder, final)
            else:
                shutil.rmtree(final, ignore_errors=True)
                folder.rename(final)
                sync_folder(final.parent)
    except OSError as error:
        raise StoreUnwritable(
            f"{name} of {recording_id} cannot be written to {store}: {error}",
            hint="free space or choose another path; what is complete there is untouched",
        ) from None


@contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """Make a folder that is gone when the block ends, unless it has another name by then.

    Its lock lies beside it: it must be held until the folder has its final name, or somebody
    who tidies up deletes what is in it while it moves.
    """
    folder = place / f"{TEMPORARY}{secrets.token_hex(8)}"
    with locked(lock_of(folder)):
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock_of(folder).unlink(missing_ok=True)


def lock_of(folder: Path) -> Path:
    """Return the file that is locked as long as a folder is being built."""
    return folder.with_name(f"{folder.name}{LOCK}")


def remove_abandoned(store: Path) -> None:
    """Remove recordings that nobody is building any more."""
    found = [p.name.removesuffix(LOCK) for p in store.glob(f"{TEMPORARY}*{LOCK}")]
    found += [p.name for p in store.glob(f"{TEMPORARY}*/")]
    for folder in {store / name for name in found}:
        with locked(lock_of(folder), wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)
                lock_of(folder).unlink(missing_ok=True)


def exists(recording: Location) -> bool:
    """Tell whether a recording is in a store, in its index or not."""
    if isinstance(recording, RemotePath):
        return (recording / "zarr.json").is_file()
    return recording.exists()


def recordings_in(store: Location) -> set[str]:
    """Return the recordings that lie in a store, whether its index has them or not."""
    place = store / "recordings"
    if isinstance(place, Path):
        return {p.name for p in place.iterdir() if p.is_dir()}
    files = [PurePosixPath(name).parts for name in place.files()]
    return {parts[0] for parts in files if parts[1:] == ("zarr.json",)}


@contextmanager
def index_lock(store: Location) -> Iterator[None]:
    """Keep other processes from changing the index meanwhile, where a lock can."""
    if isinstance(store, Path):
        with locked(store / "zarr.json"):
            yield
    else:
        yield


def duplicate(recording_id: str, store: Location) -> StoreError:
    """Return the error of a recording that is there already."""
    return StoreError(
        f"recording {recording_id!r} is in {store} already",
        hint="two files have the same dataset, subject, session, task and run: tell them apart "
        "by a `pattern`; or `neurofm remove` the recording to replace it",
    )


def _now_there(final: Location) -> bool:
    return isinstance(final, Path) and final.exists()


def _upload(folder: Path, final: RemotePath) -> None:
    final.remove(final.files())  # what an upload that died has left
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files.sort(key=lambda file: file == folder / "zarr.json")  # stable: that one goes last
    for file in files:
        (final / file.relative_to(folder).as_posix()).put(file)
