"""media

Videos and audio in addition to images: roles of inputs, several stored variants of a result, slots for videos.

Revision ID: 0004_media
Revises: 0003_jobs_by_account
"""

from typing import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0004_media'
down_revision: str | None = '0003_jobs_by_account'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.add_column('accounts', sa.Column('max_videos', sa.Integer(), nullable=True))
    op.add_column('jobs', sa.Column('parent_id', sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f('fk_jobs_parent_id_jobs'), 'jobs', 'jobs', ['parent_id'], ['id'], ondelete='CASCADE')
    op.create_index('ix_jobs_parent_id', 'jobs', ['parent_id'], postgresql_where=sa.text('parent_id IS NOT NULL'))
    op.add_column('files', sa.Column('variant', sa.Text(), server_default=sa.text("'original'"), nullable=False))
    op.create_check_constraint(op.f('ck_files_variant'), 'files', "variant IN ('original', 'thumbnail', 'spritesheet')")
    op.drop_constraint(op.f('uq_files_job_id_n'), 'files', type_='unique')
    op.create_unique_constraint(op.f('uq_files_job_id_n_variant'), 'files', ['job_id', 'n', 'variant'])
    op.add_column('job_inputs', sa.Column('role', sa.Text(), server_default=sa.text("'reference'"), nullable=False))
    op.add_column('job_inputs', sa.Column('media', sa.Text(), server_default=sa.text("'image'"), nullable=False))
    op.add_column('job_inputs', sa.Column('name', sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column('job_inputs', sa.Column('milliseconds', sa.Integer(), nullable=True))
    op.create_check_constraint(
        op.f('ck_job_inputs_role'), 'job_inputs', "role IN ('reference', 'first_frame', 'end_frame')"
    )
    op.create_check_constraint(op.f('ck_job_inputs_media'), 'job_inputs', "media IN ('image', 'video', 'audio')")
    op.add_column(
        'input_uploads', sa.Column('milliseconds', sa.Integer(), server_default=sa.text('0'), nullable=False)
    )


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_column('input_uploads', 'milliseconds')
    op.drop_constraint(op.f('ck_job_inputs_media'), 'job_inputs', type_='check')
    op.drop_constraint(op.f('ck_job_inputs_role'), 'job_inputs', type_='check')
    for column in ('milliseconds', 'name', 'media', 'role'):
        op.drop_column('job_inputs', column)
    op.drop_constraint(op.f('uq_files_job_id_n_variant'), 'files', type_='unique')
    op.create_unique_constraint(op.f('uq_files_job_id_n'), 'files', ['job_id', 'n'])
    op.drop_constraint(op.f('ck_files_variant'), 'files', type_='check')
    op.drop_column('files', 'variant')
    op.drop_index('ix_jobs_parent_id', table_name='jobs', postgresql_where=sa.text('parent_id IS NOT NULL'))
    op.drop_constraint(op.f('fk_jobs_parent_id_jobs'), 'jobs', type_='foreignkey')
    op.drop_column('jobs', 'parent_id')
    op.drop_column('accounts', 'max_videos')
