"""Every table in one `metadata`: importing this module imports each schema module."""

from worker.db.schema import (  # noqa: F401 - importing a module registers its tables
    accounts,
    batches,
    chats,
    credits,  # noqa: A004
    files,
    jobs,
    monitoring,
    platform,
    sharing,
    users,
    webhooks,
)
from worker.db.schema.base import metadata

__all__ = ["metadata"]
