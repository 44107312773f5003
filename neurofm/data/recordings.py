"""Which recordings a model was trained on: told with its weights, and compared when it goes on."""

from __future__ import annotations

from typing import Any

import pandas as pd

from neurofm.config import digest_of


def told_of(index: pd.DataFrame) -> dict[str, Any]:
    """Return what is saved with weights of the recordings they were trained on.

    Parameters
    ----------
    index : DataFrame
        The index of a store, or some of its rows.

    Returns
    -------
    dict
        ``subjects`` of each dataset and ``recordings``, sorted, and ``hours``.
    """
    by_dataset = index.groupby("dataset")
    return {
        "subjects": {str(name): sorted(rows["subject"].unique()) for name, rows in by_dataset},
        "recordings": sorted(index["recording_id"]),
        "hours": round(float(index["duration_s"].sum()) / 3600, 3),
    }


def digest_of_recordings(index: pd.DataFrame) -> str:
    """Return the digest of which recordings there are: a run must go on with the same."""
    columns = ["recording_id", "n_times", "n_channels", "source_hash"]
    rows = index[columns].astype(str).sort_values("recording_id")
    return digest_of(rows.values.tolist())
