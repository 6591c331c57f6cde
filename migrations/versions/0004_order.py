"""Indexes that hold the default order whole: the last ones first, ties by collection and ident.

So that the last row, the half-millionth and pages anywhere are found without a look at the rows before
them. A revision means the same for ever, so it imports nothing from hadrosaur.
"""

from alembic import op

revision = '0004_order'
down_revision = '0003_results_and_bases'
branch_labels = None
depends_on = None


INDEXES = (
    'CREATE INDEX resources_of_collection ON resources (collection, finished_at, ident DESC, status)',
    'CREATE INDEX resources_by_finish ON resources (finished_at, collection DESC, ident DESC, status)'
    ' WHERE finished_at IS NOT NULL',
    'CREATE INDEX resources_failed_of_collection ON resources (collection, finished_at, ident DESC, status)'
    " WHERE status = 'error'",
)


def upgrade():
    """Make them in the place of those without idents."""
    op.drop_index('resources_of_collection', 'resources')
    op.drop_index('resources_failed_of_collection', 'resources')
    for index in INDEXES:
        op.execute(index)
