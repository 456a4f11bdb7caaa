"""Whether the database has room on its disk, which only its own machine can see."""

from sqlalchemy import text

from worker.db.engine import Transaction


def write_some(tx: Transaction) -> int:
    """Write some megabytes that are gone at the end of the transaction. Return the size of the database in bytes.

    Raises the driver's error, such as DiskFull.
    """
    tx.run(
        text(
            """CREATE TEMPORARY TABLE dreamery_room ON COMMIT DROP AS
               SELECT md5(n::text) FROM generate_series(1, 60000) n"""
        )
    )
    row = tx.first(text("SELECT pg_database_size(current_database()) AS bytes"))
    return int(row.bytes) if row is not None else 0
