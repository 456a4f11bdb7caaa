"""What every table shares: the metadata with the naming of constraints, and the timestamp column.

A change of a table needs a migration; `alembic check` in the tests compares the two.
"""

from datetime import datetime

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def timestamp_column(name: str, *, nullable: bool = True, default: bool = False) -> "Column[datetime]":
    """Return a column with a time zone; with `default` the server fills in the time of the insert."""
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if default else None)
