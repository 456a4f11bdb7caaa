"""Jobs that name one account are found by a tree: an entry of the GIN index took a third of what a job writes."""

from migrations.online import create_index, drop_index

revision: str = "0022_named_accounts"
down_revision: str | None = "0028_key_providers"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Replace the index by one for jobs that name one account and one for those that name several."""
    create_index("ix_jobs_one_account", "jobs", "((account_ids[1])) WHERE cardinality(account_ids) = 1")
    create_index(
        "ix_jobs_many_accounts",
        "jobs",
        "USING gin (account_ids) WITH (fastupdate = off) WHERE cardinality(account_ids) > 1",
    )
    drop_index("ix_jobs_account_ids")


def downgrade() -> None:
    """Set the old index."""
    create_index("ix_jobs_account_ids", "jobs", "USING gin (account_ids) WITH (fastupdate = off)")
    drop_index("ix_jobs_many_accounts")
    drop_index("ix_jobs_one_account")
