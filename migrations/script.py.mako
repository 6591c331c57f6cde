"""${message}.

A revision means the same for ever, so it imports nothing from hadrosaur. It drops the views, changes
the table, makes the views again, names every CHECK, and avoids rebuilding the table.
"""

from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}
