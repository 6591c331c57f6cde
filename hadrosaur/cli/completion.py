"""The completion of words in a shell: ``completion``."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  eval "$(hadrosaur completion bash)"                     in ~/.bashrc
  eval "$(hadrosaur completion zsh)"                      in ~/.zshrc
  hadrosaur completion fish > ~/.config/fish/completions/hadrosaur.fish
"""
)
@click.argument('shell', type=click.Choice(['bash', 'zsh', 'fish']))
def completion(shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    Completes verbs, options, statuses, and the collections and idents of a BASE.
    """
    from click.shell_completion import get_completion_class

    from . import app

    maker = get_completion_class(shell)
    if maker is None:  # an older click
        raise click.UsageError(f'click knows no completion for {shell}')
    print(maker(app, {}, 'hadrosaur', '_HADROSAUR_COMPLETE').source())
