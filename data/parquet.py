"""Parquet bytes that depend on nothing but the table."""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file: the same table gives the same bytes."""
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
