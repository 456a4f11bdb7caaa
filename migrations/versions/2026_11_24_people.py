"""people

API keys with scopes, allowed models, expiry and grace period; weights of users; the audit log.

Revision ID: 0013_people
Revises: 0011_repeats
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = '0013_people'
down_revision: str | None = '0011_repeats'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column('api_keys', sa.Column('scopes', sa.ARRAY(sa.Text()), nullable=True))
    op.add_column('api_keys', sa.Column('models', sa.ARRAY(sa.Text()), nullable=True))
    op.add_column('api_keys', sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('api_keys', sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        'audit_log',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.Column('actor', sa.Text(), nullable=False),
        sa.Column('actor_id', sa.Uuid(), nullable=True),
        sa.Column('address', sa.Text(), nullable=False),
        sa.Column('action', sa.Text(), nullable=False),
        sa.Column('target', sa.Text(), nullable=False),
        sa.Column('details', JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_log')),
    )
    # Append-only, even for other users of our database connection.
    op.execute(
        """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"""
    )
    op.execute(
        """CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
           FOR EACH ROW EXECUTE FUNCTION refuse_change()"""
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table('audit_log')
    op.execute('DROP FUNCTION refuse_change()')
    for column in ('last_used_at', 'expires_at', 'models', 'scopes'):
        op.drop_column('api_keys', column)
