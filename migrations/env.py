"""Run by Alembic: on the connection that hadrosaur hands over, or on the file of ``-x index=PATH``."""

import sys
from pathlib import Path

from alembic import context

from hadrosaur.tables import is_compared, metadata


def run(connection):
    """All pending revisions as one transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        include_object=is_compared,
    )
    with context.begin_transaction():
        context.run_migrations()


def main():
    """Use the open connection if there is one."""
    connection = context.config.attributes.get('connection')
    if connection is not None:
        run(connection)
        return
    path = context.get_x_argument(as_dictionary=True).get('index')
    if path is None:
        sys.exit('which index? alembic -x index=BASE/index.sqlite3 …')
    if not Path(path).absolute().parent.is_dir():
        sys.exit(f'no such folder: {Path(path).absolute().parent}')
    from hadrosaur.upgrade import make_engine

    engine = make_engine(path)
    with engine.connect() as opened:
        run(opened)
    engine.dispose()


main()
