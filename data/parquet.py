"""Tables as Parquet bytes that depend on nothing else, and as frames."""

from io import BytesIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file: the same table gives the same bytes."""
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def as_frame(table: pa.Table) -> pl.DataFrame:
    """The table for polars, which shares its memory."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
