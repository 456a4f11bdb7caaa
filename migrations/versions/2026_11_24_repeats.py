"""repeats

HTTP requests with their jobs and outcome, so that repeats join them; deleted jobs; usual durations of jobs.

Revision ID: 0011_repeats
Revises: 0010_webhook_endpoints
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0011_repeats'
down_revision: str | None = '0010_webhook_endpoints'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        'api_processes',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('seen_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_api_processes')),
    )
    op.create_table(
        'requests',
        sa.Column('group_id', sa.Uuid(), nullable=False),
        sa.Column('caller', sa.Text(), nullable=False),
        sa.Column('route', sa.Text(), nullable=False),
        sa.Column('key', sa.Text(), nullable=True),
        sa.Column('fingerprint', sa.Text(), nullable=False),
        sa.Column('holder', sa.Uuid(), nullable=False),
        sa.Column('process', sa.Uuid(), nullable=False),
        sa.Column('joins', sa.Integer(), server_default=sa.text('0'), nullable=False),
        sa.Column('accepted_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.Column('held_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.Column('gives_up_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('ended_how', sa.Text(), nullable=True),
        sa.CheckConstraint('(ended_at IS NULL) = (ended_how IS NULL)', name=op.f('ck_requests_ended_somehow')),
        sa.CheckConstraint("ended_how IN ('answered', 'timeout', 'cut')", name=op.f('ck_requests_ended_how')),
        sa.ForeignKeyConstraint(
            ['group_id'],
            ['jobs.id'],
            name=op.f('fk_requests_group_id_jobs'),
            ondelete='CASCADE',
            initially='DEFERRED',
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint('group_id', name=op.f('pk_requests')),
    )
    op.create_index(
        'uq_requests_key', 'requests', ['caller', 'route', 'key'], unique=True,
        postgresql_where=sa.text('key IS NOT NULL'),
    )
    op.create_index(
        'ix_requests_fingerprint', 'requests', ['fingerprint'], postgresql_where=sa.text('key IS NULL')
    )
    op.create_index('ix_requests_accepted_at', 'requests', ['accepted_at'])
    # Idempotency keys had no route; nearly all of them were used on this one.
    op.execute(
        """INSERT INTO requests (group_id, caller, route, key, fingerprint, holder, process, accepted_at, ended_at,
                                 ended_how)
           SELECT k.group_id, coalesce('key:' || CAST(j.api_key_id AS text), k.owner), 'POST /v1/images/generations',
                  k.key, k.fingerprint, gen_random_uuid(), gen_random_uuid(), k.created_at, now(), 'answered'
           FROM idempotency_keys k JOIN jobs j ON j.id = k.group_id ON CONFLICT DO NOTHING"""
    )
    # Otherwise the tables cannot be altered below, because the foreign key check of the new rows is pending.
    op.execute('SET CONSTRAINTS ALL IMMEDIATE')
    op.drop_table('idempotency_keys')
    op.add_column('jobs', sa.Column('usual_seconds', sa.Double(), nullable=True))
    op.add_column('jobs', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index('ix_jobs_deleted_at', 'jobs', ['deleted_at'], postgresql_where=sa.text('deleted_at IS NOT NULL'))
    op.create_index(
        'ix_jobs_succeeded', 'jobs', ['kind', 'model', sa.literal_column('finished_at DESC')],
        postgresql_where=sa.text("state = 'succeeded'"),
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_index('ix_jobs_succeeded', table_name='jobs', postgresql_where=sa.text("state = 'succeeded'"))
    op.drop_index('ix_jobs_deleted_at', table_name='jobs', postgresql_where=sa.text('deleted_at IS NOT NULL'))
    op.drop_column('jobs', 'deleted_at')
    op.drop_column('jobs', 'usual_seconds')
    op.create_table(
        'idempotency_keys',
        sa.Column('owner', sa.Text(), nullable=False),
        sa.Column('key', sa.Text(), nullable=False),
        sa.Column('group_id', sa.Uuid(), nullable=False),
        sa.Column('fingerprint', sa.Text(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.PrimaryKeyConstraint('owner', 'key', name=op.f('pk_idempotency_keys')),
    )
    op.execute(
        """INSERT INTO idempotency_keys (owner, key, group_id, fingerprint, created_at)
           SELECT j.owner, r.key, r.group_id, r.fingerprint, r.accepted_at
           FROM requests r JOIN jobs j ON j.id = r.group_id WHERE r.key IS NOT NULL ON CONFLICT DO NOTHING"""
    )
    op.drop_table('requests')
    op.drop_table('api_processes')
