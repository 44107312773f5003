"""What a reader must know to judge the scores: whom pretraining saw, what was left out."""

from __future__ import annotations

from neurofm.checkpoint import Checkpoint
from neurofm.finetune.trials import Trials


def subjects_seen(checkpoint: Checkpoint | None, trials: Trials) -> dict[str, bool | None]:
    """Tell for each subject whether pretraining saw it; None where that is not known."""
    persons = sorted(set(trials.persons))
    known = checkpoint.provenance.get("subjects") if checkpoint else {}
    if not isinstance(known, dict):
        return dict.fromkeys(persons)
    seen = {f"{dataset}/{s}" for dataset, subjects in known.items() for s in subjects}
    return {person: person in seen for person in persons}


def sentences(checkpoint: Checkpoint | None, seen: dict[str, bool | None]) -> list[str]:
    """Say how much of the test pretraining saw; what begins with ``!`` should stand out."""
    if checkpoint is None:
        return []
    if None in seen.values():
        return ["! The checkpoint does not tell which subjects its pretraining saw."]
    overlap = [person for person, was_seen in seen.items() if was_seen]
    if not overlap:
        return ["Pretraining saw none of the test subjects."]
    return [
        f"! Pretraining saw {len(overlap)} of {len(seen)} test subjects, without labels"
        + ("." if len(overlap) == len(seen) else f": {', '.join(overlap)}.")
    ]


def losses(trials: Trials) -> list[str]:
    """Say how many windows were dropped, and why."""
    reasons = trials.dropped["reason"].value_counts()
    return [f"{n} windows were dropped: {reason}." for reason, n in reasons.items()]
