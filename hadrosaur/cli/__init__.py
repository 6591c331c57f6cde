"""The command line: ``hadrosaur VERB BASE …``.

It talks to `Project` only, and each verb is a few lines: read the words, ask the Project, show what it
says. What a verb needs is imported when that verb is called, so that ``--help`` and the completion of
a word cost little more than Python itself.

Data goes to stdout; what is said about it (progress, notes, warnings, errors) goes to stderr.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from hadrosaur import __version__


class Verb(NamedTuple):
    """Where a verb is, and what ``hadrosaur --help`` says of it without importing it."""

    topic: str
    module: str
    sentence: str


VERBS = {
    'status': Verb('Look', 'status', 'Count resources by status, with rate and time to go.'),
    'ps': Verb('Look', 'ps', 'Show what runs now: where, since when, how far, and its last line.'),
    'query': Verb('Look', 'query', 'List resources that match filters.'),
    'show': Verb('Look', 'show', 'Show all about one resource.'),
    'logs': Verb('Look', 'show', 'Print what one resource printed.'),
    'diff': Verb('Look', 'show', 'Show in what two attempts of a resource differ.'),
    'errors': Verb('Look', 'status', 'Group failures by cause.'),
    'explain': Verb('Look', 'show', 'Say whether a resource would be computed, and why.'),
    'stack': Verb('Look', 'ps', 'Show where a running resource is in its code.'),
    'du': Verb('Look', 'housekeeping', 'Show what takes space on the disk.'),
    'metrics': Verb('Look', 'housekeeping', 'Print counts and durations for Prometheus.'),
    'top': Verb('Look', 'top', 'Show how it goes, in a terminal, until q or Ctrl-C.'),
    'web': Verb('Look', 'web', 'Show a base directory in a browser.'),
    'report': Verb('Look', 'web', 'Write what a base directory holds as one HTML file.'),
    'sql': Verb('Look', 'query', 'Run a SELECT on the index.'),
    'run': Verb('Compute', 'run', 'Compute many resources in parallel.'),
    'retry': Verb('Compute', 'run', 'Compute those that ended in error again.'),
    'reproduce': Verb('Compute', 'reproduce', 'Run one resource again here, in a scratch copy.'),
    'cancel': Verb('Compute', 'cancel', 'Stop what another process computes.'),
    'check': Verb('Maintain', 'maintenance', 'Find where index and directories disagree.'),
    'reindex': Verb('Maintain', 'maintenance', 'Make the index agree with the directories.'),
    'rm': Verb('Maintain', 'maintenance', 'Delete resources.'),
    'gc': Verb('Maintain', 'housekeeping', 'Delete what is old, or too much.'),
    'export': Verb('Bring', 'transfer', 'Write resources into a tar file, with checksums.'),
    'import': Verb('Bring', 'transfer', 'Bring in what `export` has written.'),
    'merge': Verb('Bring', 'transfer', 'Bring in the resources of another base.'),
    'backup': Verb('Bring', 'transfer', 'Copy what is finished into another base.'),
    'db': Verb('Maintain', 'db', "Show or upgrade the index's revision."),
    'completion': Verb('Maintain', 'completion', 'Print the script that completes words in a shell.'),
}

_EPILOG = """\b
Examples:
  hadrosaur status base                       how far is it?
  hadrosaur query base --status error         which ones failed?
  hadrosaur logs base books moby-dick         what did that one print?
  hadrosaur retry jobs:proj books             once the function is fixed

\b
Exit codes:
  0 done · 1 some ended in error · 2 usage · 3 not found · 130 interrupted
  4 index and directories disagree · 5 the base cannot be used
"""


class Verbs(click.Group):
    """All verbs, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f'{__name__}.{VERBS[cmd_name].module}')
        command: click.Command = getattr(module, 'import_' if cmd_name == 'import' else cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was asked for; for a misspelt one, what may have been meant."""
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
        """Run the verb; what goes wrong becomes a message and an exit code."""
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
    """Look after keyed resources: each has a folder you can open and a row you can query.

    BASE is the directory that Project(…) was given. `hadrosaur VERB -h` explains a verb.
    """


def main() -> None:
    """Entry point of the program ``hadrosaur``."""
    try:
        app(prog_name='hadrosaur')
    except OSError as error:  # the help and the version, which no verb says
        from .exit_codes import refuse_system_error

        raise SystemExit(refuse_system_error(error))
