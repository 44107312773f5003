"""What is particular to MEG: gradient compensation, and what has been done to a file before."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np

from neurofm.contract import CtfGrade
from neurofm.errors import SensorError

_CTF_GRAD = 5001  # FIFFV_COIL_CTF_GRAD
_MEG_CH = 1


def ctf_grade(info: mne.Info) -> int | None:
    """Return the CTF compensation grade of a recording; None if it has no CTF gradiometers.

    Raises
    ------
    SensorError
        If not all gradiometers have the same grade.
    """
    # the grade is in the upper half of the coil code
    codes = {
        int(ch["coil_type"]) >> 16
        for ch in info["chs"]
        if int(ch["kind"]) == _MEG_CH and int(ch["coil_type"]) & 0xFFFF == _CTF_GRAD
    }
    if len(codes) > 1:
        raise SensorError(
            f"CTF gradiometers have different compensation grades: {sorted(codes)}",
            hint="the file was put together from several; start from the original recordings",
        )
    return codes.pop() if codes else None


def compensated(
    raw: mne.io.BaseRaw, wanted: CtfGrade, where: str
) -> tuple[mne.io.BaseRaw, dict[str, Any]]:
    """Bring CTF gradiometers to one compensation grade; needs their reference channels.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Not changed. If it is read lazily, so is what is returned.
    wanted : int or "as_recorded"
        The grade: 0 for none, up to 3 for a third-order gradiometer.
    where : str
        The file, for messages.

    Returns
    -------
    raw : mne.io.BaseRaw
        The same, or a copy at the wanted grade.
    step : dict
        What its history is to remember: ``ctf_grade``, as recorded and now; empty for other
        devices.

    Raises
    ------
    SensorError
        If the file cannot be brought to this grade.
    """
    found = ctf_grade(raw.info)
    if found is None:
        return raw, {}
    if wanted in ("as_recorded", found):
        return raw, {"ctf_grade": [found, found]}
    known = sorted({0, *(int(comp["kind"]) for comp in raw.info["comps"])} & {0, 1, 2, 3})
    try:
        changed = raw.copy().apply_gradient_compensation(int(wanted), verbose="error")
    except (ValueError, RuntimeError) as error:
        raise SensorError(
            f"{where}: CTF compensation of grade {found} cannot be made {wanted}: {error} (the "
            f"file has matrices for {', '.join(map(str, known)) if known[1:] else 'no grade'})",
            hint="keep the reference channels and apply no projections, or set the contract's "
            f"`ctf_grade` to {found} or to as_recorded",
        ) from error
    return changed, {"ctf_grade": [found, int(wanted)]}


def filtered_before(info: mne.Info) -> dict[str, Any]:
    """Tell from a header whether signal space separation has been applied to a recording.

    Parameters
    ----------
    info : mne.Info
        The measurement info.

    Returns
    -------
    dict
        ``sss`` with its components and the length of tSSS' buffer, if any; empty if none was
        applied. What is left has the rank of these components, whatever the channels.
    """
    for entry in info["proc_history"]:
        done = entry["max_info"]
        if done.get("sss_info"):
            told: dict[str, Any] = {"components": int(np.sum(done["sss_info"]["nfree"]))}
            if (done.get("max_st") or {}).get("buflen"):
                told["st_duration_s"] = float(np.ravel(done["max_st"]["buflen"])[0])
            return {"sss": told}
    return {}
