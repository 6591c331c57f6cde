"""The command line: ``hadrosaur VERB BASE …``.

Each verb parses its arguments, calls `Project`, and prints the answer. A verb's module is imported when the
verb is called, so that ``--help`` and completion start as fast as Python itself.

Data goes to stdout; progress, notes, warnings and errors go to stderr.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from hadrosaur import __version__


class Verb(NamedTuple):
    """Where a verb is implemented, and its line in ``hadrosaur --help``."""

    topic: str
    module: str
    sentence: str


VERBS = {
    'status': Verb('Look', 'status', 'Count resources by status; show rate and remaining time.'),
    'ps': Verb('Look', 'ps', 'List running resources, with progress and last output line.'),
    'query': Verb('Look', 'query', 'List resources that match filters.'),
    'show': Verb('Look', 'show', 'Show one resource: status, times, args, result or error, files.'),
    'logs': Verb('Look', 'show', 'Print the output of one resource.'),
    'diff': Verb('Look', 'show', 'Compare two attempts of a resource.'),
    'errors': Verb('Look', 'status', 'Group failures by cause.'),
    'explain': Verb('Look', 'show', 'Tell whether a resource would be computed, and why.'),
    'stale': Verb('Look', 'stale', 'List what is out of date, and why.'),
    'stack': Verb('Look', 'ps', 'Print the Python stack of a running resource.'),
    'du': Verb('Look', 'housekeeping', 'Show disk usage by collection, and the largest resources.'),
    'metrics': Verb('Look', 'housekeeping', 'Print counts and durations in Prometheus format.'),
    'top': Verb('Look', 'top', 'Show a live view in the terminal, until q or Ctrl-C.'),
    'web': Verb('Look', 'web', 'Show a base directory in a browser.'),
    'report': Verb('Look', 'web', 'Write a report on a base directory as one HTML file.'),
    'sql': Verb('Look', 'query', 'Run a read-only SQL query on the index.'),
    'run': Verb('Compute', 'run', 'Compute resources in parallel.'),
    'retry': Verb('Compute', 'run', 'Compute failed resources again.'),
    'reproduce': Verb('Compute', 'reproduce', 'Run one resource again in this process, in a scratch copy.'),
    'cancel': Verb('Compute', 'cancel', 'Stop pending resources, in whatever process they run.'),
    'check': Verb('Maintain', 'maintenance', 'Find disagreements between index and directories.'),
    'reindex': Verb('Maintain', 'maintenance', 'Update the index from the directories.'),
    'rm': Verb('Maintain', 'maintenance', 'Delete resources.'),
    'doctor': Verb('Maintain', 'housekeeping', 'Diagnose a base directory: disk, locks, permissions, index.'),
    'gc': Verb('Maintain', 'housekeeping', 'Delete resources by age, number or size.'),
    'export': Verb('Move', 'transfer', 'Write resources to a tar file, with checksums.'),
    'import': Verb('Move', 'transfer', 'Read resources from a tar file that `export` wrote.'),
    'merge': Verb('Move', 'transfer', 'Copy the resources of another base into this one.'),
    'backup': Verb('Move', 'transfer', 'Copy finished resources to another base, incrementally.'),
    'db': Verb('Maintain', 'db', 'Show or upgrade the revision of the index.'),
    'completion': Verb('Maintain', 'completion', 'Print a completion script for bash, zsh or fish.'),
}

_EPILOG = """\b
Examples:
  hadrosaur status base                       how far is it?
  hadrosaur query base --status error         which ones failed?
  hadrosaur logs base books moby-dick         what did this one print?
  hadrosaur retry jobs:proj books             after the function is fixed

\b
Exit codes:
  0  done                      3  not found
  1  some ended in error       4  index and directories disagree
  2  wrong usage               5  base unusable          130  interrupted
"""


class Verbs(click.Group):
    """The group of all verbs; imports each one on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb and return its command."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f'{__name__}.{VERBS[cmd_name].module}')
        command: click.Command = getattr(module, 'import_' if cmd_name == 'import' else cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the verb; suggest a similar one for a misspelt name."""
        word = args[0]
        if word not in VERBS and word[:1] != '-' and not ctx.resilient_parsing:
            ctx.fail(f'there is no verb {word!r}{_meant(word)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by topic, without importing them."""
        topics = dict.fromkeys(verb.topic for verb in VERBS.values())
        for topic in topics:
            with formatter.section(topic):
                rows = [(name, verb.sentence) for name, verb in VERBS.items() if verb.topic == topic]
                formatter.write_dl(rows, col_max=12)

    def invoke(self, ctx: click.Context) -> None:
        """Run the verb; turn errors into a message and an exit code."""
        from .exit_codes import exit_code_of

        run = super().invoke
        ctx.exit(exit_code_of(lambda: run(ctx)))


def _meant(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, VERBS, 1)
    return f'; did you mean {close[0]!r}?' if close else ''


@click.group(
    cls=Verbs,
    epilog=_EPILOG,
    subcommand_metavar='VERB …',
    options_metavar='',
    context_settings={'help_option_names': ['-h', '--help']},
)
@click.version_option(__version__, message='hadrosaur %(version)s')
def app() -> None:
    """Inspect, compute and maintain the resources of a base directory.

    BASE is the directory given to Project(…). COLL is a collection, IDENT a resource in it. MODULE:PROJ names
    the Project in your code. hadrosaur VERB -h explains a verb.
    """


def main() -> None:
    """Entry point of the program ``hadrosaur``."""
    try:
        app(prog_name='hadrosaur')
    except OSError as error:  # the help and the version, which no verb says
        from .exit_codes import refuse_system_error

        raise SystemExit(refuse_system_error(error))
