"""Albums, share links, and where the inputs of jobs come from."""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_index, drop_index

revision: str = "0029_albums"
down_revision: str | None = "0022_named_accounts"
branch_labels: str | None = None
depends_on: str | None = None


def _time(name: str, *, default: bool = True) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()") if default else None
    )


def _reference(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{target}"
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Add the tables. Inputs so far have no known origin."""
    op.create_table(
        "albums",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("show_prompts", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("cover_id", sa.Uuid()),
        _time("created_at"),
        _time("updated_at"),
        _reference("albums", "user_id", "users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_albums")),
    )
    op.create_index("ix_albums_user_id", "albums", ["user_id", "id"])
    op.create_table(
        "album_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("album_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("added_by", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _time("added_at"),
        _reference("album_files", "album_id", "albums"),
        _reference("album_files", "file_id", "files"),
        _reference("album_files", "added_by", "users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_album_files")),
        sa.UniqueConstraint("album_id", "file_id", name=op.f("uq_album_files_album_id_file_id")),
    )
    op.create_index("ix_album_files_order", "album_files", ["album_id", "position", "id"])
    op.create_index(op.f("ix_album_files_file_id"), "album_files", ["file_id"])
    op.create_index(op.f("ix_album_files_added_by"), "album_files", ["added_by"])
    op.create_table(
        "album_members",
        sa.Column("album_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        _time("added_at"),
        _reference("album_members", "album_id", "albums"),
        _reference("album_members", "user_id", "users"),
        sa.PrimaryKeyConstraint("album_id", "user_id", name=op.f("pk_album_members")),
        sa.CheckConstraint("role IN ('viewer', 'contributor')", name=op.f("ck_album_members_role")),
    )
    op.create_index(op.f("ix_album_members_user_id"), "album_members", ["user_id"])
    op.create_table(
        "shares",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("album_id", sa.Uuid()),
        sa.Column("show_prompts", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("allow_download", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        _time("created_at"),
        _time("expires_at", default=False),
        _reference("shares", "user_id", "users"),
        _reference("shares", "album_id", "albums"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shares")),
    )
    op.create_index("ix_shares_user_id", "shares", ["user_id", "id"])
    op.create_index(op.f("ix_shares_album_id"), "shares", ["album_id"])
    op.create_table(
        "share_files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("share_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _reference("share_files", "share_id", "shares"),
        _reference("share_files", "file_id", "files"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_share_files")),
        sa.UniqueConstraint("share_id", "file_id", name=op.f("uq_share_files_share_id_file_id")),
    )
    op.create_index(op.f("ix_share_files_file_id"), "share_files", ["file_id"])
    op.add_column("job_inputs", sa.Column("origin_file_id", sa.Uuid()))
    create_index(
        "ix_job_inputs_origin_file_id", "job_inputs", "(origin_file_id) WHERE origin_file_id IS NOT NULL"
    )
    create_index("ix_job_inputs_stored", "job_inputs", "(job_id) WHERE key IS NOT NULL AND removed_at IS NULL")


def downgrade() -> None:
    """Remove them. The files of albums and shares stay with their jobs."""
    drop_index("ix_job_inputs_stored")
    drop_index("ix_job_inputs_origin_file_id")
    op.drop_column("job_inputs", "origin_file_id")
    for name in ("share_files", "shares", "album_members", "album_files", "albums"):
        op.drop_table(name)
