"""Sign-in to the console without a key: passwords, invitations, OpenID providers; what a list of sessions shows."""

import sqlalchemy as sa
from alembic import op

revision: str = "0026_sign_in"
down_revision: str | None = "0023_money"
branch_labels: str | None = None
depends_on: str | None = None

_METHODS = "method IN ('key', 'password', 'invitation', 'oidc')"


def upgrade() -> None:
    """Add the columns and tables. Sessions of older processes began with a key."""
    op.add_column("users", sa.Column("password_hash", sa.Text()))
    op.add_column("api_keys", sa.Column("purpose", sa.Text(), nullable=False, server_default=sa.text("'api'")))
    op.create_check_constraint(op.f("ck_api_keys_purpose"), "api_keys", "purpose IN ('api', 'console')")
    op.create_index(
        "uq_api_keys_console", "api_keys", ["user_id"], unique=True, postgresql_where=sa.text("purpose = 'console'")
    )
    op.add_column(
        "console_sessions", sa.Column("id", sa.Uuid(), nullable=False, server_default=sa.text("gen_random_uuid()"))
    )
    op.create_unique_constraint(op.f("uq_console_sessions_id"), "console_sessions", ["id"])
    op.add_column("console_sessions", sa.Column("method", sa.Text(), nullable=False, server_default=sa.text("'key'")))
    op.create_check_constraint(op.f("ck_console_sessions_method"), "console_sessions", _METHODS)
    op.add_column(
        "console_sessions", sa.Column("persistent", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    for name in ("device", "address"):
        op.add_column("console_sessions", sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_invitations_user_id_users", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitations_token_hash")),
    )
    op.create_index(op.f("ix_invitations_user_id"), "invitations", ["user_id"])
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id_users", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identities")),
    )
    op.create_index(op.f("ix_identities_user_id"), "identities", ["user_id"])


def downgrade() -> None:
    """Remove them. Sessions that began without a key end."""
    op.drop_table("identities")
    op.drop_table("invitations")
    op.execute("DELETE FROM api_keys WHERE purpose = 'console'")
    for name in ("address", "device", "persistent"):
        op.drop_column("console_sessions", name)
    op.drop_constraint(op.f("ck_console_sessions_method"), "console_sessions", type_="check")
    op.drop_column("console_sessions", "method")
    op.drop_column("console_sessions", "id")
    op.drop_index("uq_api_keys_console", "api_keys")
    op.drop_column("api_keys", "purpose")
    op.drop_column("users", "password_hash")
