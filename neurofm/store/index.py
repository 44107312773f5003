"""The index: one Parquet file that lists every complete recording of a store."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neurofm.errors import StoreError
from neurofm.store.layout import index_path, replace_synced
from neurofm.store.remote import Location

_SPANS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("recording_id", pa.string()),
        ("dataset", pa.string()),
        ("subject", pa.string()),
        ("session", pa.string()),
        ("task", pa.string()),
        ("run", pa.string()),
        ("kinds", pa.string()),
        ("n_channels", pa.int32()),
        ("sfreq", pa.float64()),
        ("n_times", pa.int64()),
        ("duration_s", pa.float64()),
        ("n_events", pa.int32()),
        ("spans", _SPANS),
        ("montage", pa.string()),
        ("source", pa.string()),
        ("source_hash", pa.string()),
        ("n_bytes", pa.int64()),
    ]
)


def read_index(store: Location) -> pd.DataFrame:
    """Read the index of a store.

    Raises
    ------
    StoreError
        If it is missing, damaged, or lacks a column.
    """
    # column by column, each let go as soon as it is converted; an array a row would weigh tenfold
    index: pd.DataFrame = read_table(store).to_pandas(
        types_mapper={_SPANS: pd.ArrowDtype(_SPANS)}.get, split_blocks=True, self_destruct=True
    )
    pa.default_memory_pool().release_unused()
    return index


def read_table(store: Location) -> pa.Table:
    """Read the index of a store as an Arrow table; raises as `read_index`."""
    path = index_path(store)
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        table = pa.table([_column(file, field) for field in SCHEMA], schema=SCHEMA)
    except FileNotFoundError:
        raise _unusable(path, "is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise _unusable(path, f"cannot be read: {error}") from None
    if absent := [name for name in SCHEMA.names if table[name].null_count]:
        raise _unusable(path, f"has no values for {', '.join(absent)}")
    return table


def _column(file: pq.ParquetFile, field: pa.Field) -> pa.ChunkedArray:
    """Read one column; decoding all at once takes three times the memory of the table."""
    if field.name not in file.schema_arrow.names:
        return pa.chunked_array([pa.nulls(file.metadata.num_rows, field.type)])
    column = file.read([field.name], use_threads=False).column(field.name).cast(field.type)
    pa.default_memory_pool().release_unused()
    return column


def write_index(store: Location, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the index in one step; rows are sorted by recording_id."""
    _write(store, pa.Table.from_pylist([dict(row) for row in rows], SCHEMA))


def change_index(
    store: Location, add: Sequence[Mapping[str, Any]] = (), drop: Collection[str] = ()
) -> None:
    """Replace the index in one step by itself with rows added, replaced or dropped.

    The time it takes grows with the index by microseconds a row, since no row becomes a Python
    object.
    """
    table = read_table(store)
    changed = [*drop, *(row["recording_id"] for row in add)]
    kept = table.filter(pc.invert(pc.is_in(table["recording_id"], pa.array(changed, pa.string()))))
    fresh = pa.Table.from_pylist([dict(row) for row in add], SCHEMA)
    _write(store, pa.concat_tables([kept, fresh]))


def _write(store: Location, table: pa.Table) -> None:
    buffer = io.BytesIO()
    # one chunk a column: what the bytes are must not depend on how the rows came together
    ordered = table.sort_by("recording_id").combine_chunks()
    pq.write_table(ordered, buffer, compression="zstd")
    replace_synced(index_path(store), buffer.getvalue())


def as_rows(index: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of an index by recording_id."""
    records: list[dict[str, Any]] = pa.Table.from_pandas(index, SCHEMA).to_pylist()
    return {row["recording_id"]: row for row in records}


def _unusable(path: Location, problem: str) -> StoreError:
    return StoreError(
        f"the index {path} {problem}",
        hint="delete it if it is there: the next `neurofm preprocess` or `neurofm merge` into the "
        "store makes it anew, as every recording carries its own row",
    )
