"""From a failure to the fingerprint of its cause, so that ten thousand failures become three groups.

A fingerprint is made of the exception's type, its message with variable parts masked, and the place in the
user's code. So it is the same for every ident that fails for one reason, on every host, and after lines are
added above. It is ``f1:`` and 16 hex digits of the BLAKE2b-64 of type, pattern and frame, joined by NUL. The
tag is the version of all rules here: a changed rule needs ``f2:``, and golden vectors in
tests/test_fingerprint.py detect that. Stored fingerprints stay as they are.

Nothing here raises, whatever an exception does when it is printed, and the time is bounded, whatever the
message contains: 9 to 25 µs for a failure, 0.2 ms for the worst message (two cores, Python 3.11, 2026).
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from .errors import HadrosaurError

if TYPE_CHECKING:
    from types import CodeType, TracebackType

LONGEST_SUMMARY = 300
"""Characters of a summary: about four lines of a terminal, and an index of a million failures stays small."""

LONGEST_PATTERN = 500
"""Characters of a message that are masked."""

LOOKED_AT = 10_000
"""Characters that are looked at, on either end of a message; some hold a whole array or document."""

MOST_LEAVES = 1000
"""Exceptions of a group that are looked at."""

MOST_BASES = 50
"""Classes above an exception's own that are kept."""

# ------------------------------------------------------------------------------------- the message


def summary(exc: BaseException) -> str:
    """Return the message on one printable line of at most 300 characters, cut in the middle."""
    return _cut(_one_line(_message(exc)), LONGEST_SUMMARY)


def type_name(exc: BaseException) -> str:
    """Return the qualified name of the exception's type; bare for builtins and hadrosaur's own."""
    return name_of_type(type(exc))


def name_of_type(kind: type) -> str:
    """Return the qualified name of an exception's type; bare for builtins and hadrosaur's own."""
    module = getattr(kind, '__module__', None)
    if not isinstance(module, str) or module in {'builtins', 'hadrosaur.errors'}:
        return _one_line(kind.__qualname__)
    return _one_line(f'{module}.{kind.__qualname__}')


def bases(*kinds: type) -> tuple[str, ...]:
    """Return the names of the classes above some exceptions' types, nearest first, up to Exception."""
    above = (name_of_type(base) for kind in kinds for base in kind.__mro__[1:] if base not in _TOP)
    return tuple(islice(dict.fromkeys(above), MOST_BASES))


_TOP = (object, BaseException)


def _message(exc: BaseException) -> str:
    if isinstance(exc, HadrosaurError):  # the advice is in error.log
        return exc.message
    try:
        return str.__str__(str(exc))  # of a subclass of str, only the text counts
    except (Exception, SystemExit) as error:  # the user's __str__ may raise anything
        return f'<message unavailable: __str__ raised {type(error).__name__}>'


# Control characters, halves of surrogate pairs, and what turns the direction of writing around.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]')


def _one_line(text: str) -> str:
    """Fold white space and replace what would garble a terminal or a file."""
    if len(text) > 2 * LOOKED_AT:
        text = f'{text[:LOOKED_AT]} … {text[-LOOKED_AT:]}'
    line = ' '.join(text.split())
    return line if line.isprintable() else _UNPRINTABLE.sub('\ufffd', line)


def _cut(line: str, length: int) -> str:
    """Cut out the middle: both ends of a message matter, and quotes and brackets stay closed."""
    tail = length // 3
    return line if len(line) <= length else f'{line[: length - tail - 3]} … {line[-tail:]}'


# --------------------------------------------------------------------------------------- the cause


class Cause(NamedTuple):
    """The cause of a failure: type and message for its row, the user's frame, the fingerprint."""

    type: str
    message: str
    frame: str | None
    group: str
    bases: tuple[str, ...] = ()  # classes above the type's


def cause(exc: BaseException) -> Cause:
    """Return the cause of a failure.

    An exception group is named after what is in it, not after the word that a task group has for all: its
    only leaf, or the one cause that all leaves share; else ``ExceptionGroup(KeyError, OSError)``, with the
    message of a leaf of each cause.
    """
    found_leaves = leaves(exc)
    causes = {found.group: found for found in map(_cause_of_one, found_leaves)}
    if len(causes) == 1:
        (only,) = causes.values()
        more = len(found_leaves) - 1
        return (
            only
            if not more
            else only._replace(message=_cut(f'{only.message} (and {more} more)', LONGEST_SUMMARY))
        )
    found = sorted(causes.values())
    kind = f'{type_name(exc)}({", ".join(dict.fromkeys(one.type for one in found))})'
    inner = dict.fromkeys(chain.from_iterable((one.type, *one.bases) for one in found))
    above = tuple(islice(dict.fromkeys((type_name(exc), *inner, *bases(type(exc)))), MOST_BASES))
    message = '; '.join(f'{one.type}: {one.message}' for one in found)
    frame = user_frame(exc.__traceback__)
    group = fingerprint(kind, ' '.join(one.group for one in found), frame)
    return Cause(_cut(kind, LONGEST_SUMMARY), _cut(message, LONGEST_SUMMARY), frame, group, above)


def _cause_of_one(exc: BaseException) -> Cause:
    kind, message, frame = type_name(exc), summary(exc), user_frame(exc.__traceback__)
    if isinstance(exc, SystemExit):
        message = f'the function asked to exit: {message}' if message else 'the function asked to exit'
    return Cause(kind, message, frame, fingerprint(kind, message, frame), bases(type(exc)))


def leaves(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in an exception group, nested groups included; else the exception itself."""
    found: list[BaseException] = []
    groups = [exc]
    while groups and len(found) < MOST_LEAVES:
        inner = groups.pop()
        if isinstance(inner, BaseExceptionGroup):
            groups.extend(reversed(BaseExceptionGroup.exceptions.__get__(inner)))
        else:
            found.append(inner)
    return found


# --------------------------------------------------------------------------------- what varies in it

# Nothing below gives back what it took or begins inside a word, so that time is proportional to length.
# An apostrophe inside a word (don't) neither opens nor closes a quotation; one never closed runs to the end.
_TELLTALE = re.compile(r'[0-9\'"`/]').search  # without one of these there is nothing to mask
_QUOTED = re.compile(
    r"""(?<!\w)[bBrRuUfF]{0,2}
        (?: '(?: [^'\\]++ | \\.?+ | '(?=\w) )*+'?+ | "(?: [^"\\]++ | \\.?+ )*+"?+ | `[^`]*+`?+ )""",
    re.VERBOSE,
)
_SUSPECT = re.compile(r'(?<!\S)[^\s0-9/]*+[0-9/]\S*+')  # what has a digit or slash between spaces
_VARYING = re.compile(
    r"""
      (?P<url>  (?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]*+://[^\s"<>]++ )
    | (?P<uuid> (?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z]) )
    | (?P<hex>  0[xX][0-9a-fA-F]++ )
    | (?P<path> (?<![\w.@~+%/-])[\w.@~+%-]*+(?:/[\w.@~+%=-]*+)++ )
    | (?P<n>    (?<![0-9A-Za-z])(?=[a-fA-F]*+[0-9])[0-9a-fA-F]{8,}+(?![0-9A-Za-z])
              | (?:(?<![\w)\]])[-+])?+[0-9]++(?:[.,_][0-9]++)*+(?:[eE][-+]?+[0-9]++(?![0-9A-Za-z]))?+ )
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r'[0-9]++(?:[.,_][0-9]++)*+')
_PLACE = re.compile(r'\([^\s(),]++, line <n>\)\Z')  # how SyntaxError ends: the name of a file, without folder
_REPEATED = re.compile(r'(?<![^\s(\[{])(<(?:text|url|uuid|hex|path|n)>)(?:, \1(?![^\s,)\]}]))+')


def mask(message: str) -> str:
    """Return the pattern of a message: its first line, with what varies replaced by a word for it.

    ``<text>`` (quoted), ``<url>``, ``<uuid>``, ``<hex>`` (0x…), ``<path>``, and ``<n>``, which is a number
    or 8 and more hex digits. A list of one kind is shown as its first and ``…``.
    """
    first = message[: 2 * LOOKED_AT].strip().partition('\n')[0]
    line = _cut(_one_line(first), LONGEST_PATTERN)
    if not _TELLTALE(line):
        return line
    line = _QUOTED.sub('<text>', line)
    line = _REPEATED.sub(r'\1, …', _SUSPECT.sub(_masked, line))
    return _PLACE.sub('(<path>, line <n>)', line) if line.endswith(', line <n>)') else line


def _masked(suspect: re.Match[str]) -> str:
    return _VARYING.sub(_word_for, suspect[0])


def _word_for(match: re.Match[str]) -> str:
    kind, text = match.lastgroup, match[0]
    if kind == 'path' and not _is_path(text):
        return _NUMBER.sub('<n>', text)
    return f'<{kind}>'


def _is_path(text: str) -> bool:
    """Tell ``/a``, ``~/a``, ``a/b/c`` and ``a/b.txt`` from ``and/or`` and ``3/4``."""
    if not any(map(str.isalpha, text)):
        return False
    return text[0] in '/~.' or text.count('/') > 1 or '.' in text.rpartition('/')[2].strip('.')


# ----------------------------------------------------------------------------------------- the place

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_COMPREHENSIONS = re.compile(r'(?:(?:^|\.<locals>\.|\.)<(?:list|set|dict)comp>)+$')


def user_frame(traceback: TracebackType | None) -> str | None:
    """Return the user's own innermost place as ``folder/file.py:function``, or None.

    Frames of hadrosaur, of the standard library and of installed packages are passed over; if there are
    no others, the innermost outside hadrosaur is taken. No line number: adding a line is not a new cause.
    """
    place: CodeType | None = None
    found = 'own'
    while traceback is not None:
        code = traceback.tb_frame.f_code
        owner = _owner(code.co_filename)
        if owner == 'user' or (owner == 'library' and found != 'user'):
            place, found = code, owner
        traceback = traceback.tb_next
    return None if place is None else f'{_short_path(place.co_filename)}:{_function(place)}'


@lru_cache(maxsize=1024)
def _owner(path: str) -> str:
    """Say whose code a file holds: 'own' (hadrosaur's), 'library' or 'user'."""
    if path.startswith(_OWN):
        return 'own'
    is_installed = '/site-packages/' in path or '/dist-packages/' in path
    return 'library' if is_installed or path.startswith((_LIBRARY, '<frozen ')) else 'user'


@lru_cache(maxsize=1024)
def _short_path(path: str) -> str:
    """Return the last two components; cells of a notebook, whose names change with each kernel, are one."""
    if path.startswith('<ipython-input') or '/ipykernel_' in path:
        return '<notebook>'
    return _one_line('/'.join(path.split('/')[-2:]))


def _function(code: CodeType) -> str:
    """Return the function's qualified name; a comprehension, no longer a frame in 3.12, is its function."""
    name = code.co_qualname
    if name.endswith('comp>'):
        name = _COMPREHENSIONS.sub('', name) or '<module>'
    return _one_line(name)


# ----------------------------------------------------------------------------------- the fingerprint


def fingerprint(exception_type: str, message: str, frame: str | None) -> str:
    """Return the name of a failure's cause: ``f1:`` and 16 hex digits; `message` is masked here."""
    cause = '\0'.join((exception_type, mask(message), frame or ''))
    return 'f1:' + blake2b(cause.encode('utf-8', 'replace'), digest_size=8).hexdigest()
