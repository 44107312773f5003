"""What was measured of a tokenizer: scores, use of codes, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm.files import write_atomically
from neurofm.sensors import Sensors

MEASURES = ("mae", "pearson", "spectral", "explained")


@dataclass(frozen=True)
class Picture:
    """One window of one recording.

    Attributes
    ----------
    recording_id, kind : str
        Which, and what kind of sensor is shown.
    ch_names : tuple of str
        The channels.
    seen : ndarray of bool, shape (n,)
        Which of them the encoder was shown.
    target, signal : ndarray, shape (n, T)
        Standardised by patch, and reconstructed.
    sensors : Sensors
        All channels of the kind.
    looks : ndarray, shape (S, channels of the kind), optional
        How much each site looks at each channel, where sites are not channels.
    """

    recording_id: str
    kind: str
    ch_names: tuple[str, ...]
    seen: np.ndarray
    target: np.ndarray
    signal: np.ndarray
    sensors: Sensors
    looks: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Quality:
    """What was measured.

    Attributes
    ----------
    scores : DataFrame
        A row for each recording, kind, ``channels`` (seen or withheld) and ``method``
        (tokenizer or spline): `MEASURES`, and ``n`` channels. Methods of one row's ``on``
        ("electrodes of both") are about the same channels and windows.
    counts : ndarray of int, shape (levels, K)
        How often each code was used.
    pictures : list of Picture
        One for each kind.
    skipped : list of str
        Recordings without a good window.
    """

    scores: pd.DataFrame
    counts: np.ndarray
    pictures: list[Picture] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def by_kind(self) -> pd.DataFrame:
        """Return the mean over recordings, of each kind, seen and withheld."""
        rows = self.scores[self.scores["on"] == "all"]
        return _mean_over_recordings(rows, ["kind", "channels"])

    def against_spline(self) -> pd.DataFrame:
        """Return tokenizer and spline on the same withheld electrodes."""
        return _mean_over_recordings(self.scores[self.scores["on"] == "both"], ["method"])

    def codes(self) -> pd.DataFrame:
        """Return the share of codes in use, and their perplexity, by level."""
        share = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1)
        return pd.DataFrame(
            {
                "level": np.arange(1, len(share) + 1),
                "codes": self.counts.shape[1],
                "used": (self.counts > 0).mean(1),
                "perplexity": np.exp(entropy),
            }
        )

    def summary(self) -> str:
        """Return a few lines."""
        lines = [
            f"{row.kind}, {row.channels}: Pearson {row.pearson:.3f}, MAE {row.mae:.3f}, "
            f"variance explained {row.explained:.1%}"
            for row in self.by_kind().itertuples()
        ]
        both = self.against_spline().set_index("method")
        if len(both):
            ours, theirs = both["pearson"].astype(float)[["tokenizer", "spline"]]
            lines.append(
                f"withheld electrodes: Pearson {ours:.3f}, spherical splines {theirs:.3f} "
                f"({ours - theirs:+.3f})"
            )
        used = self.codes()
        lines.append(
            f"codes used: {', '.join(f'{share:.0%}' for share in used['used'])}; perplexity "
            f"{', '.join(f'{p:.0f}' for p in used['perplexity'])} of {self.counts.shape[1]}"
        )
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write the tables as CSV."""
        write_atomically(folder / "quality.csv", self.scores.to_csv(index=False))
        write_atomically(folder / "codes.csv", self.codes().to_csv(index=False))


def _mean_over_recordings(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    found = rows.groupby(keys, sort=True)
    table = found[list(MEASURES)].mean()
    table.insert(0, "recordings", found["recording_id"].nunique())
    return table.reset_index()
