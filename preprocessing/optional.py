"""Optional cleaners, each through the library of those who made it.

They hold the whole recording in memory, in double precision, and take minutes where everything
else takes seconds. Chance is fixed by a seed: the same recording gives the same result.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import mne
import numpy as np
from pydantic import Field

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.preprocessing.artefacts import Span, mark
from neurofm.preprocessing.bad_channels import BadChannel
from neurofm.preprocessing.history import band_passed, marked_bad
from neurofm.preprocessing.spatial import Spatial, SpatialStep
from neurofm.preprocessing.to_mne import info_of, raw_of
from neurofm.sensors import MEG_KINDS, SensorKind
from neurofm.signals import Recording

# Fewer channels do not span what brain and artefact make together.
_LEAST_CHANNELS = 8
# and less time does not tell them apart: MNE's measures of eyes and heart need some of them
_LEAST_S = 20.0


class Ransac(Config):
    """Find EEG channels that others do not predict: RANSAC of PREP, through pyprep.

    Parameters
    ----------
    correlation : float
        Least correlation with what is predicted, in a window of 5 s.
    bad_share : float
        Share of windows below it that makes a channel bad.
    n_samples : int
        Random subsets of channels that predictions are made from.
    seed : int
        Draws the subsets.
    """

    # all of them as PREP has them
    correlation: float = Field(default=0.75, gt=0, lt=1)
    bad_share: float = Field(default=0.4, gt=0, lt=1)
    n_samples: int = Field(default=50, ge=1)
    seed: int = 0

    def find(self, recording: Recording, known: dict[str, str]) -> tuple[BadChannel, ...]:
        """Return channels that are bad beside those that are known to be.

        Raises
        ------
        ConfigError
            If pyprep is not installed.
        """
        ransac = _library("pyprep", "cleaning.bad_channels.ransac", "pyprep.ransac")
        sensors = recording.sensors
        able = (sensors.kind == SensorKind.EEG) & sensors.located & ~sensors.bipolar
        rows = [i for i in np.flatnonzero(able) if sensors.ch_names[i] not in known]
        # a quarter of the channels predicts the others
        if len(rows) < 2 * _LEAST_CHANNELS or recording.duration_s < 10:
            return ()
        names = [sensors.ch_names[i] for i in rows]
        bad, _ = ransac.find_bad_by_ransac(
            np.asarray(recording.signal, np.float64)[rows],
            recording.sfreq,
            names,
            sensors.position[rows].astype(float),
            [],
            n_samples=self.n_samples,
            corr_thresh=self.correlation,
            frac_bad=self.bad_share,
            random_state=self.seed,
        )
        why = (
            f"not predicted by other channels: correlation below {self.correlation:g} in more "
            f"than {self.bad_share:.0%} of windows"
        )
        return tuple(
            BadChannel(name=name, criterion="ransac", value=None, limit=self.bad_share, why=why)
            for name in names
            if name in set(bad)
        )


class AutoReject(Config):
    """Mark windows that autoreject would leave out; the signal stays as it is.

    Parameters
    ----------
    window_s : float
        Length of the windows it judges.
    n_interpolate : tuple of int
        Numbers of channels that a window may have interpolated before it is bad; the best one
        is found by cross-validation.
    folds : int
        Of the cross-validation.
    most_share : float
        A recording of which more would be marked is refused.
    seed : int
        Of the cross-validation.
    """

    window_s: float = Field(default=2.0, gt=0)
    n_interpolate: tuple[int, ...] = (1, 4, 8)
    folds: int = Field(default=5, ge=2)
    most_share: float = Field(default=0.95, gt=0, le=1)
    seed: int = 0

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its bad windows marked.

        Raises
        ------
        ConfigError
            If autoreject is not installed.
        SignalError
            If nearly nothing of the recording would be left.
        """
        library = _library("autoreject", "cleaning.autoreject")
        step: dict[str, Any] = {"step": "autoreject", "seed": self.seed}
        bad, sensors = marked_bad(recording), recording.sensors
        judged = np.isin(sensors.kind, (SensorKind.EEG, *MEG_KINDS)) & sensors.located
        names = [sensors.ch_names[i] for i in np.flatnonzero(judged & ~sensors.bipolar)]
        names = [name for name in names if name not in bad]
        n_windows = int(recording.duration_s / self.window_s)
        if len(names) < _LEAST_CHANNELS or n_windows < 2 * self.folds:
            step["notes"] = [
                f"autoreject has not looked at {len(names)} channels, {n_windows} windows: too few"
            ]
            return recording.evolve(step)
        raw = raw_of(recording, events=False).pick(names, verbose="error")
        epochs = mne.make_fixed_length_epochs(
            raw, self.window_s, preload=True, reject_by_annotation=False, verbose="error"
        )
        rejecter = library.AutoReject(
            n_interpolate=[n for n in self.n_interpolate if n < len(names)],
            cv=self.folds,
            random_state=self.seed,
            n_jobs=1,
            verbose=False,
        )
        rejecter.fit(epochs)
        log = rejecter.get_reject_log(epochs)
        spans = [
            Span(start_s=k * self.window_s, stop_s=(k + 1) * self.window_s, reason="autoreject")
            for k in np.flatnonzero(log.bad_epochs).tolist()
        ]
        return mark(recording, spans, step, self.most_share)


class Ica(SpatialStep):
    """Take eyes, heart and muscles out by independent components, through MNE.

    EEG and MEG are decomposed each for itself. What is removed is a matrix, like every other
    spatial step.

    Parameters
    ----------
    n_components : float or int
        Share of variance that is decomposed, or number of components.
    eog : tuple of str
        Channels that see the eyes; those that are there are used.
    eog_correlation : float
        Least correlation with one of them, from 1 to 10 Hz, of a component that is the eyes'.
    ecg : bool
        Look for the heart, in MEG.
    muscle : bool
        Look for muscles, in EEG with positions.
    most_components : int
        The most that are removed of EEG, and of MEG; those that fit best.
    seed : int
        Where the decomposition starts.
    """

    name: Literal["ica"] = "ica"
    n_components: float | int = Field(default=0.999, gt=0)
    eog: tuple[str, ...] = ("Fp1", "Fp2")
    # MNE's z score of 3 cannot be reached among fewer than a dozen components
    eog_correlation: float = Field(default=0.7, gt=0, lt=1)
    ecg: bool = True
    # in its makers' words a heuristic; it takes temporal brain activity with it
    muscle: bool = False
    most_components: int = Field(default=4, ge=1)
    seed: int = 0

    def operator(self, recording: Recording) -> Spatial | None:
        """Return what takes the components out; None if none was looked for, and none found."""
        bad, sensors = marked_bad(recording), recording.sensors
        good = np.array([name not in bad for name in sensors.ch_names])
        raw: mne.io.RawArray | None = None
        matrix = np.eye(len(sensors))
        removed: dict[str, list[dict[str, Any]]] = {}
        notes: list[str] = []
        meg = np.isin(sensors.kind, list(MEG_KINDS - {SensorKind.REF_MEG}))
        for family, rows in (("eeg", sensors.kind == SensorKind.EEG), ("meg", meg)):
            picks = np.flatnonzero(rows & good)
            if len(picks) < _LEAST_CHANNELS:
                continue
            if recording.duration_s < _LEAST_S:
                notes.append(
                    f"{recording.duration_s:.3g} s of {family} are too short for independent "
                    "components"
                )
                continue
            raw = raw or _for_ica(recording)
            ica = self._decomposed(raw, picks, family, notes)
            chosen = [] if ica is None else self._chosen(ica, raw, family, sensors.ch_names, notes)
            if chosen:
                removed[family] = chosen
                matrix = _without(ica, [c["component"] for c in chosen], recording) @ matrix
        if removed:
            told = ", ".join(f"{len(found)} of {family}" for family, found in removed.items())
            notes.insert(0, f"independent components removed: {told}")
        if not notes:
            return None
        step = {"step": "ica", "seed": self.seed, "removed": removed, "notes": notes}
        return Spatial(matrix, sensors, step)

    def _decomposed(
        self, raw: mne.io.RawArray, picks: np.ndarray, family: str, notes: list[str]
    ) -> mne.preprocessing.ICA | None:
        """Return the components; None, and a note, if there are none."""
        ica = mne.preprocessing.ICA(
            self.n_components, method="fastica", random_state=self.seed, max_iter=500,
            verbose="error",
        )  # fmt: skip
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ica.fit(raw, picks=picks, verbose="error")
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            notes.append(f"no independent components of {family}: {error}")
            return None
        if any("converge" in str(warning.message) for warning in caught):
            notes.append(f"the independent components of {family} have not converged")
        return ica

    def _chosen(
        self,
        ica: mne.preprocessing.ICA,
        raw: mne.io.RawArray,
        family: str,
        names: tuple[str, ...],
        notes: list[str],
    ) -> list[dict[str, Any]]:
        """Return components to remove, with what they look like and how much."""
        found: dict[int, dict[str, Any]] = {}

        def add(what: str, components: list[int], scores: np.ndarray) -> None:
            strength = np.abs(np.atleast_2d(scores)).max(axis=0)
            for k in components:
                value = {"component": int(k), "like": what, "score": round(float(strength[k]), 3)}
                found.setdefault(int(k), value)

        eyes = [name for name in self.eog if name in names]
        if eyes:
            add("eyes", *ica.find_bads_eog(
                raw, ch_name=eyes, threshold=self.eog_correlation, measure="correlation",
                verbose="error",
            ))  # fmt: skip
        if self.ecg and family == "meg" and "mag" in raw:
            try:
                add("heart", *ica.find_bads_ecg(raw, verbose="error"))
            except (RuntimeError, ValueError) as error:
                notes.append(f"no heart found in {family}: {error}")
        if self.muscle and family == "eeg":
            add("muscle", *ica.find_bads_muscle(raw, verbose="error"))
        return list(found.values())[: self.most_components]


def _for_ica(recording: Recording) -> mne.io.RawArray:
    """Return what components are fitted to: without slow drifts, which would be one each."""
    raw = raw_of(recording)
    low, _, _ = band_passed(recording)
    return raw if low >= 1 else raw.filter(1.0, None, picks="all", verbose="error")


def _without(ica: mne.preprocessing.ICA, components: list[int], recording: Recording) -> np.ndarray:
    """Return the matrix that takes components out; of the identity, removal makes it."""
    n = len(recording.sensors)
    out = []
    for given in (np.eye(n), np.zeros((n, n))):
        raw = mne.io.RawArray(given, info_of(recording.sensors, recording.sfreq), verbose="error")
        ica.apply(raw, exclude=components, verbose="error")
        out.append(raw.get_data())
    return np.asarray(out[0] - out[1])


def _library(package: str, key: str, module: str | None = None) -> Any:
    try:
        return importlib.import_module(module or package)
    except ImportError:
        raise ConfigError(
            f"{key} needs {package}, which is not installed", hint="pip install 'neurofm[clean]'"
        ) from None
