"""webhook endpoints

Endpoints in addition to the `webhook` of a job, the log of attempts, lanes that isolate slow receivers.

Revision ID: 0010_webhook_endpoints
Revises: 0009_tokens
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0010_webhook_endpoints'
down_revision: str | None = '0009_tokens'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LANE = "'place:' || lower(coalesce(substring(url FROM '^[^/]*//[^/?#]+'), url))"


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table('webhook_endpoints',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('owner', sa.Text(), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=True),
    sa.Column('api_key_id', sa.Uuid(), nullable=True),
    sa.Column('url', sa.Text(), nullable=False),
    sa.Column('description', sa.Text(), server_default=sa.text("''"), nullable=False),
    sa.Column('events', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('secret', sa.Text(), nullable=False),
    sa.Column('previous_secret', sa.Text(), nullable=True),
    sa.Column('previous_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('disabled_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('disabled_reason', sa.Text(), nullable=True),
    sa.Column('failing_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('slow_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('proven', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('(disabled_at IS NULL) = (disabled_reason IS NULL)', name=op.f('ck_webhook_endpoints_disabled_for_a_reason')),
    sa.CheckConstraint('(previous_secret IS NULL) = (previous_until IS NULL)', name=op.f('ck_webhook_endpoints_previous_secret_ends')),
    sa.ForeignKeyConstraint(['api_key_id'], ['api_keys.id'], name=op.f('fk_webhook_endpoints_api_key_id_api_keys'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_webhook_endpoints_user_id_users'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_webhook_endpoints'))
    )
    op.create_index('ix_webhook_endpoints_owner', 'webhook_endpoints', ['owner', 'created_at'])
    op.create_index('ix_webhook_endpoints_user_id', 'webhook_endpoints', ['user_id'])
    op.create_index('ix_webhook_endpoints_api_key_id', 'webhook_endpoints', ['api_key_id'])

    op.add_column('webhook_deliveries', sa.Column('endpoint_id', sa.Uuid(), nullable=True))
    op.add_column('webhook_deliveries', sa.Column('lane', sa.Text(), nullable=True))
    op.execute(f'UPDATE webhook_deliveries SET lane = {_LANE}')
    op.alter_column('webhook_deliveries', 'lane', nullable=False)
    op.add_column('webhook_deliveries', sa.Column('attempts', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.execute('UPDATE webhook_deliveries SET attempts = tries')
    op.add_column('webhook_deliveries', sa.Column('claimed_until', sa.DateTime(timezone=True), nullable=True))
    op.alter_column('webhook_deliveries', 'job_id', nullable=True)
    op.create_foreign_key(op.f('fk_webhook_deliveries_endpoint_id_webhook_endpoints'), 'webhook_deliveries', 'webhook_endpoints', ['endpoint_id'], ['id'], ondelete='CASCADE')
    op.create_check_constraint(op.f('ck_webhook_deliveries_of_job_or_endpoint'), 'webhook_deliveries', 'job_id IS NOT NULL OR endpoint_id IS NOT NULL')
    op.create_check_constraint(op.f('ck_webhook_deliveries_one_end'), 'webhook_deliveries', 'delivered_at IS NULL OR given_up_at IS NULL')
    op.drop_constraint(op.f('uq_webhook_deliveries_job_id_event'), 'webhook_deliveries', type_='unique')
    op.create_unique_constraint(op.f('uq_webhook_deliveries_job_id_endpoint_id_event'), 'webhook_deliveries', ['job_id', 'endpoint_id', 'event'])
    op.create_index('uq_webhook_deliveries_own', 'webhook_deliveries', ['job_id', 'event'], unique=True, postgresql_where=sa.text('endpoint_id IS NULL'))
    op.drop_index('ix_webhook_deliveries_due_at', table_name='webhook_deliveries', postgresql_where=sa.text('due_at IS NOT NULL'))
    op.create_index('ix_webhook_deliveries_due', 'webhook_deliveries', ['lane', 'due_at'], postgresql_where=sa.text('due_at IS NOT NULL'))
    op.create_index('ix_webhook_deliveries_claimed', 'webhook_deliveries', ['owner'], postgresql_where=sa.text('claimed_until IS NOT NULL'))
    op.create_index('ix_webhook_deliveries_owner', 'webhook_deliveries', ['owner', 'created_at', 'id'])
    op.create_index('ix_webhook_deliveries_endpoint_id', 'webhook_deliveries', ['endpoint_id', 'created_at', 'id'])
    op.create_index('ix_webhook_deliveries_settled', 'webhook_deliveries', ['created_at'], postgresql_where=sa.text('due_at IS NULL'))

    op.create_table('webhook_attempts',
    sa.Column('delivery_id', sa.Uuid(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('status', sa.Integer(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('seconds', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['delivery_id'], ['webhook_deliveries.id'], name=op.f('fk_webhook_attempts_delivery_id_webhook_deliveries'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('delivery_id', 'n', name=op.f('pk_webhook_attempts'))
    )


def downgrade() -> None:
    """Undo the upgrade. Deliveries to endpoints are deleted with the endpoints."""
    op.drop_table('webhook_attempts')
    op.execute('DELETE FROM webhook_deliveries WHERE endpoint_id IS NOT NULL')
    for name in ('settled', 'endpoint_id', 'owner', 'claimed', 'due'):
        op.drop_index(f'ix_webhook_deliveries_{name}', table_name='webhook_deliveries')
    op.create_index('ix_webhook_deliveries_due_at', 'webhook_deliveries', ['due_at'], unique=False, postgresql_where=sa.text('due_at IS NOT NULL'))
    op.drop_index('uq_webhook_deliveries_own', table_name='webhook_deliveries')
    op.drop_constraint(op.f('uq_webhook_deliveries_job_id_endpoint_id_event'), 'webhook_deliveries', type_='unique')
    op.create_unique_constraint(op.f('uq_webhook_deliveries_job_id_event'), 'webhook_deliveries', ['job_id', 'event'])
    op.drop_constraint(op.f('ck_webhook_deliveries_one_end'), 'webhook_deliveries', type_='check')
    op.drop_constraint(op.f('ck_webhook_deliveries_of_job_or_endpoint'), 'webhook_deliveries', type_='check')
    op.drop_constraint(op.f('fk_webhook_deliveries_endpoint_id_webhook_endpoints'), 'webhook_deliveries', type_='foreignkey')
    op.alter_column('webhook_deliveries', 'job_id', nullable=False)
    for column in ('claimed_until', 'attempts', 'lane', 'endpoint_id'):
        op.drop_column('webhook_deliveries', column)
    op.drop_table('webhook_endpoints')
