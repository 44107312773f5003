"""`neurofm inspect`: what a store or a checkpoint holds, as text."""

from __future__ import annotations

import json
from pathlib import Path

from neurofm.errors import NeurofmError, StoreError


def inspect(path: str | Path, *, verify: bool = False) -> str:
    """Describe a store or a checkpoint.

    Parameters
    ----------
    path : str or Path
        Folder of either.
    verify : bool
        Read every sample of a store, or every weight of a checkpoint, and check it.

    Returns
    -------
    str
        Text for a terminal.

    Raises
    ------
    NeurofmError
        If it is neither, or `verify` finds a fault.
    """
    folder = Path(path)
    if (folder / "model.safetensors").exists() or (folder / "config.json").exists():
        return _checkpoint(folder, verify)
    if (folder / "zarr.json").exists():
        return _store(folder, verify)
    raise NeurofmError(
        f"{folder} is neither a store (no zarr.json) nor a checkpoint (no config.json)",
        hint="give the folder that `neurofm preprocess` or `neurofm pretrain` wrote",
    )


def _store(folder: Path, verify: bool) -> str:
    from neurofm.store.reader import open_store

    store = open_store(folder)
    index = store.index
    hours = index["duration_s"].sum() / 3600
    lines = [
        f"store {folder}: {len(index)} recordings, {hours:.2f} h",
        "contract: " + json.dumps(store.contract.to_dict()),
    ]
    if len(index):
        totals = index.groupby(["dataset", "kinds"], as_index=False).agg(
            subjects=("subject", "nunique"),
            recordings=("recording_id", "size"),
            hours=("duration_s", lambda s: round(s.sum() / 3600, 3)),
            channels=("n_channels", lambda n: "-".join(str(v) for v in sorted({n.min(), n.max()}))),
            events=("n_events", "sum"),
        )
        lines.append(totals.to_string(index=False))
    if verify:
        problems = store.verify()
        if problems:
            raise StoreError(
                f"{folder}: {len(problems)} fault(s):\n" + "\n".join(problems),
                hint="delete the recordings named and run `neurofm preprocess` again",
            )
        lines.append(f"verified: every sample of {len(index)} recordings reads")
    return "\n".join(lines)


def _checkpoint(folder: Path, verify: bool) -> str:
    from neurofm.checkpoint import load

    if verify:
        load(folder)  # checks names, shapes, digest, and that the code still computes the same
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    checked = "\nverified: all weights load, and give the recorded output" if verify else ""
    return f"checkpoint {folder}\n{json.dumps(values, indent=2)}{checked}"
