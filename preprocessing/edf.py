"""EDF and BDF files: the header against the bytes that are there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neurofm.errors import SourceError
from neurofm.preprocessing.magic import Facts, wrong_format

_AGAIN = "download the file again"


@dataclass(frozen=True)
class _Header:
    """What the header of an EDF file promises."""

    header_bytes: int
    n_records: int
    record_s: float
    sample_bytes: int
    labels: list[str]
    samples: list[int]
    physical: list[tuple[float, float]]
    discontinuous: bool

    @property
    def record_bytes(self) -> int:
        return sum(self.samples) * self.sample_bytes

    @property
    def signals(self) -> list[int]:
        return [i for i, label in enumerate(self.labels) if not label.endswith("Annotations")]


def verify_edf(path: Path, file: BinaryIO, head: bytes) -> Facts:
    """Check an EDF or BDF file: format, completeness, continuity and physical ranges.

    Parameters
    ----------
    path : Path
        The file.
    file : binary file
        The same, open.
    head : bytes
        Its first 512 bytes.

    Returns
    -------
    Facts
        Channels without a physical range, labels that occur twice, oddities.

    Raises
    ------
    SourceError
        If it is another format, damaged, cut short, or has gaps.
    """
    is_bdf = path.suffix.lower() == ".bdf"
    kind, magic = ("BDF", b"\xffBIOSEMI") if is_bdf else ("EDF", b"0       ")
    if not head.startswith(magic):
        raise wrong_format(path, kind, head)
    try:
        header = _read_header(file, head, 3 if is_bdf else 2)
    except (ValueError, IndexError) as error:
        raise SourceError(f"{path}: the {kind} header is damaged: {error}", hint=_AGAIN) from None
    if header.signals and not header.record_s > 0:
        raise SourceError(
            f"{path}: a data record lasts {header.record_s:g} s: the sampling rate is not known"
        )
    facts = Facts()
    n_found = _count_records(path, header, facts)
    if header.discontinuous:
        _refuse_gaps(path, file, header, n_found)
    for i in header.signals:
        low, high = header.physical[i]
        if low == high:
            facts.unusable[header.labels[i]] = f"physical minimum and maximum are both {low:g}"
    counts = Counter(header.labels[i] for i in header.signals)
    facts.duplicates = {label for label, n in counts.items() if n > 1}
    rates = {header.samples[i] / header.record_s for i in header.signals}
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        facts.notes.append(f"channels are sampled at {listed} Hz; the slower were upsampled")
    return facts


def _read_header(file: BinaryIO, head: bytes, sample_bytes: int) -> _Header:
    n = int(head[252:256])
    file.seek(256)
    table = file.read(256 * n)
    if n < 1 or len(table) < 256 * n:
        raise ValueError(f"{len(table)} bytes of signal headers for {n} signals")

    def column(offset: int, width: int) -> list[str]:
        # each field for all signals, then the next field
        cells = (table[offset * n + i * width :][:width] for i in range(n))
        return [cell.decode("latin-1").strip() for cell in cells]

    def numbers(offset: int) -> list[float]:
        return [float(cell.replace(",", ".")) for cell in column(offset, 8)]

    samples = [int(cell) for cell in column(216, 8)]
    if min(samples) < 0 or int(head[184:192]) < 256 * (n + 1):
        raise ValueError(
            f"{int(head[184:192])} bytes of headers for {n} signals, of {min(samples)} samples a "
            "record or more"
        )
    return _Header(
        header_bytes=int(head[184:192]),
        n_records=int(head[236:244]),
        record_s=float(head[244:252]),
        sample_bytes=sample_bytes,
        labels=column(0, 16),
        samples=samples,
        physical=list(zip(numbers(104), numbers(112), strict=True)),
        discontinuous=head[192:236].startswith((b"EDF+D", b"BDF+D")),
    )


def _count_records(path: Path, header: _Header, facts: Facts) -> int:
    there = max(path.stat().st_size - header.header_bytes, 0)
    found, rest = divmod(there, max(header.record_bytes, 1))
    if found == 0:
        raise SourceError(
            f"{path}: no complete data record: {there} bytes of data after the header, a record "
            f"has {header.record_bytes}",
            hint=_AGAIN,
        )
    if header.n_records == -1:
        facts.notes.append(
            f"the header does not say how many records there are; found {found}"
            + (" and a part of one more, which was left out" if rest else "")
        )
    elif found < header.n_records:
        raise SourceError(
            f"{path}: cut short: the header promises {header.n_records} records, {found} are there"
            + (" and a part of one more" if rest else ""),
            hint=_AGAIN,
        )
    elif found > header.n_records:
        facts.notes.append(
            f"the header promises {header.n_records} records, {found} are there and were read"
        )
    return found


def _refuse_gaps(path: Path, file: BinaryIO, header: _Header, n_records: int) -> None:
    """Compare the time each record says it starts at with where it lies in the file."""
    timed = [i for i, label in enumerate(header.labels) if label.endswith("Annotations")]
    if not timed:
        raise SourceError(f"{path}: declared discontinuous, but no record has a time")
    offset = sum(header.samples[: timed[0]]) * header.sample_bytes
    width = header.samples[timed[0]] * header.sample_bytes
    first = None
    for number in range(n_records):
        file.seek(header.header_bytes + number * header.record_bytes + offset)
        text = file.read(width).split(b"\x14", 1)[0]
        try:
            onset_s = float(text)
        except ValueError:
            raise SourceError(f"{path}: record {number} does not say when it starts") from None
        first = onset_s if first is None else first
        expected_s = first + number * header.record_s
        if abs(onset_s - expected_s) > 0.5 * header.record_s / max(header.samples):
            raise SourceError(
                f"{path}: discontinuous: record {number} starts at {onset_s:g} s, "
                f"{onset_s - expected_s:g} s later than its place in the file says",
                hint="split the recording at its gaps; MNE would join the pieces",
            )
