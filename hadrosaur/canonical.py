r"""Texts that stay the same for ever: folder names, canonical JSON, the args hash.

What is written here is found again years later by comparing bytes. So three things are promises that no
release may change, and golden vectors in tests/test_canonical.py freeze them:

- **Ident to folder name.** ``A-Z a-z 0-9 _ . + = @ - ,`` stand for themselves, every other byte of the
  ident's UTF-8 is ``%XX`` (upper case), and so is a leading ``.`` or ``-``. This is the second grammar: in
  the first a comma was ``%2C``, as it still is in the folder of a collection; a resource's folder that has
  such a name is found and kept. A name over 200 bytes becomes its first 60 characters, ``%~``, and 32 hex
  digits of the BLAKE2b-128 of the ident's UTF-8. ``~`` never
  stands in an ordinary name, so none looks like a digest name. Texts are not normalised: the composed and
  the decomposed form of a word are two idents.
- **Canonical JSON of args.** An object; keys in the order of their code points, no spaces, text as it is
  (only ``"``, ``\`` and control characters are escaped), floats as the fewest digits that give the same
  float back. Tuples equal lists; ``1``, ``1.0`` and ``True`` all differ, and so do ``0.0`` and ``-0.0``.
  A value of a subclass (IntEnum, OrderedDict) counts as the plain value it holds, and so does a scalar of
  numpy that is a number or a bool.
- **The args hash.** ``b2:`` and 32 hex digits of the BLAKE2b-128 of that text's UTF-8; the tag leaves room
  for another algorithm beside this one.

result.json is standard JSON too, but nobody compares its bytes. Both writers have a fast path, in C, for
values of exactly the types that JSON knows, and a slow walk for all others, which converts them, or says
at which JSON path and why it cannot.
"""

from __future__ import annotations

import json
import operator
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import blake2b
from math import isfinite
from typing import Any

from hadrosaur.errors import InvalidArgs, InvalidIdent, ResultNotSerializable

LONGEST_IDENT = 4096
"""Bytes of UTF-8 in an ident: PATH_MAX of Linux, so that any path is a legal ident."""

LONGEST_FOLDER = 200
"""Bytes of a folder name, over which it becomes a digest name. File systems of Linux and macOS take 255
(NAME_MAX); 55 are left for what other tools append (``.tar.gz``, ``.sync-conflict-…``)."""

KEPT_OF_LONG = 60
"""Characters of a long name that stay in front of its digest, for people who list the folder."""

LONGEST_RAW = 255
"""Bytes of a file name (NAME_MAX): hadrosaur 0.0.2 could make no folder with a longer one."""

DEEPEST = 200
"""Levels of nesting in JSON of ours. Python's JSON reader takes one level of the recursion limit (1000)
for each, so whatever was written can be read back from below 700 frames of other people's code."""

RESERVED = frozenset({'.hadrosaur', *(f'index.sqlite3{end}' for end in ('', '-wal', '-shm', '-journal'))})
"""Names at the base that are the project's own."""

# ------------------------------------------------------------------------------ idents and folders

_PLAIN = re.compile(r'[A-Za-z0-9_+=@,][A-Za-z0-9_.+=@,-]{0,199}').fullmatch  # stands for itself
_UNSAFE = re.compile(r'[^A-Za-z0-9_.+=@,-]+')
_UNSAFE_BEFORE = re.compile(r'[^A-Za-z0-9_.+=@-]+')  # in the first grammar
_ESCAPED = re.compile(r'%([0-9A-F]{2})')
_DIGEST = re.compile(r'(?![.-])[A-Za-z0-9_.+=@%,-]{60}%~[0-9a-f]{32}').fullmatch
_SURROGATE = re.compile('[\ud800-\udfff]')


def ident_text(ident: object, collection: str = '') -> str:
    """Return the ident as text: a str as it is, an int as its digits.

    A str or int of a subclass (numpy.str_, an Enum) counts as the text or number it holds, and so does
    whatever says by ``__index__`` which whole number it is (numpy.int64). What is empty,
    longer than 4 096 bytes, not UTF-8, a bool, or neither str nor int, is an `InvalidIdent`.
    """
    if type(ident) is str and 0 < len(ident) <= LONGEST_IDENT and ident.isascii():
        return ident
    return _checked(ident, 'ident', collection)


def folder_name(ident: str) -> str:
    """Return the name of the ident's folder: one legal path component of at most 200 ASCII bytes."""
    return ident if _PLAIN(ident) else _encoded(ident, _UNSAFE)


def folder_names_before(ident: str) -> tuple[str, ...]:
    """Return the other names that the ident's folder may have, newest grammar first: () for most idents."""
    if ',' not in ident:
        raw = raw_folder_name(ident)
        return () if raw is None else (raw,)
    names = (_encoded(ident, _UNSAFE_BEFORE), raw_folder_name(ident))
    return tuple(name for name in names if name is not None)


def _encoded(ident: str, unsafe: re.Pattern[str]) -> str:
    encoded = unsafe.sub(_escape, _checked(ident, 'ident'))
    if encoded[0] in '.-':
        encoded = f'%{ord(encoded[0]):02X}{encoded[1:]}'
    if len(encoded) <= LONGEST_FOLDER:
        return encoded
    return f'{encoded[:KEPT_OF_LONG]}%~{blake2b(ident.encode(), digest_size=16).hexdigest()}'


def raw_folder_name(ident: str) -> str | None:
    """Return the name that hadrosaur 0.0.2 gave the ident's folder, if it differs from ours, else None.

    None too where that name cannot be one folder (``a/b``), and where by our rule it is the folder of
    another ident: the raw ``a%20b`` is the folder of ``a b``, whose result must not be served for it.
    """
    if _PLAIN(ident) or '/' in ident or '\0' in ident or ident in {'.', '..'}:
        return None
    return ident if len(ident.encode()) <= LONGEST_RAW and ident_of_folder(ident) == ident else None


def ident_of_folder(name: str) -> str | None:
    """Return the ident whose folder has this name; None for a digest name, where record.json must tell.

    A name that our rule never writes (``a b``, ``%zz``, ``-rf``) was made by 0.0.2 or by hand, and is its
    own ident, or `InvalidIdent` if it is not UTF-8.
    """
    if _PLAIN(name):
        return name
    if _DIGEST(name):
        return None
    decoded = _decoded(name)
    return _checked(name, 'folder name') if decoded is None else decoded


def digest_matches(name: str, ident: object) -> bool:
    """Tell whether this is a digest name, and this ident's (which may be any value from a damaged file)."""
    if not isinstance(ident, str) or not _DIGEST(name):
        return False
    try:
        return name in (folder_name(ident), *folder_names_before(ident))
    except InvalidIdent:
        return False


def collection_folder(name: object) -> str:
    """Return the name of a collection's folder, by the first grammar of idents; `RESERVED` are refused."""
    text = _checked(name, 'collection name')
    if text.lower() not in RESERVED:  # on a case-insensitive disk INDEX.SQLITE3 is the index
        return _encoded(text, _UNSAFE_BEFORE)
    message = f'the collection name {_shown(text)} is kept for the project itself'
    raise InvalidIdent(message, collection=text, hint='choose another name')


def _escape(run: re.Match[str]) -> str:
    return '%' + run[0].encode().hex('%').upper()


def _decoded(name: str) -> str | None:
    """Return the ident that `folder_name` writes as this name, if there is one."""
    try:
        ident = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), name).encode('latin-1').decode()
        return ident if name in (folder_name(ident), _encoded(ident, _UNSAFE_BEFORE)) else None
    except (UnicodeError, InvalidIdent):
        return None


def _checked(given: object, what: str, collection: str = '') -> str:
    """Return a str or int as text that can name something; `what` it names is for the message."""
    text = _text_of(given)
    fault = _type_fault(given) if text is None else _text_fault(text)
    if text is not None and fault is None:
        return text
    reason, hint = fault or ('', '')
    where = f' of collection {_shown(collection)}' if collection else ''
    hint = 'rename the folder' if what == 'folder name' else hint
    raise InvalidIdent(f'the {what}{where} {reason}', collection=collection, ident=given, hint=hint)


def _text_of(given: object) -> str | None:
    if isinstance(given, str):
        return str.__str__(given)
    if isinstance(given, int) and not isinstance(given, bool):
        # 14 000 bits are 4 215 digits: too long for us, and less than what Python declines to write.
        return int.__repr__(given) if given.bit_length() < 14_000 else '9' * 4_215
    if hasattr(type(given), '__index__') and not isinstance(given, bool):
        try:  # a numpy integer; an array has the method too, and takes it back
            return _text_of(operator.index(given))  # type: ignore[arg-type]
        except Exception:  # other people's code
            return None
    return None


def _type_fault(given: object) -> tuple[str, str]:
    if isinstance(given, bool):
        return f'is the bool {given}', f"write '{given}' or {int(given)}, whichever is meant"
    hint = 'decode it' if isinstance(given, bytes) else 'convert it with str() or int()'
    return f'is of type {_kind(given)}, not str or int', hint


def _text_fault(text: str) -> tuple[str, str] | None:
    """Say what is wrong with the text, and the next step; None if nothing is."""
    if not text:
        return 'is empty', 'give it at least one character'
    half = None if text.isascii() else _SURROGATE.search(text)
    if half:
        reason = f'{_shown(text)} is not UTF-8: character {half.start()} is a lone surrogate, {half[0]!a}'
        return reason, "decode it with errors='backslashreplace'"
    size = len(text.encode())
    if size > LONGEST_IDENT:
        reason = f'{_shown(text)} takes {size} bytes of UTF-8, and {LONGEST_IDENT} are allowed'
        return reason, 'use a shorter one, and put the rest into args'
    return None


# -------------------------------------------------------------------------------------------- JSON

# Nothing circular gets as far as these two.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(',', ':'), ensure_ascii=False, allow_nan=False, check_circular=False
).encode
_STANDARD = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False).encode

_TEXT = frozenset({str})
_SCALARS = frozenset({str, int, float, bool, type(None)})
_NUMBERS = frozenset({int, float, bool})
_MANY = 1000  # holders on one level, above which it pays to see whether they are the same ones


def args_json(args: object, collection: str = '', ident: object = '') -> str:
    """Return the canonical JSON of args, as the module's docstring defines it; None counts as ``{}``.

    Only numbers of numpy are converted: what is no dict, or holds anything that JSON does not, is an
    `InvalidArgs` whose message names the JSON path (``$.a[3].b is NaN``).
    """
    if args is None:
        return '{}'
    try:
        if type(args) is dict and _is_plain(args):
            text = _CANONICAL(args)
            text.encode()  # refuses lone surrogates
            return text
    except (ValueError, RuntimeError):  # RecursionError among them
        pass  # the walk finds the place and tells it
    try:
        if not isinstance(args, dict):
            raise _Fault(f'they are of type {_kind(args)}, not a dict')
        return _CANONICAL(_Walk(_strict, _strict_key).all_of(args))
    except _Fault as fault:
        message = f'the args{_whose(collection, ident)} cannot be used: {fault}'
        hint = 'args hold text, numbers, bools, None, lists, and dicts whose keys are text'
        raise InvalidArgs(message, collection=collection, ident=ident, hint=hint)


def args_hash(text: str) -> str:
    """Return the hash of canonical JSON: ``b2:`` and 32 hex digits of the BLAKE2b-128 of its UTF-8."""
    return 'b2:' + blake2b(text.encode(), digest_size=16).hexdigest()


def result_json(value: object, collection: str = '', ident: object = '') -> bytes:
    r"""Return what result.json holds: standard JSON in UTF-8, and a newline.

    What JSON knows is written as the json module writes it: tuples and namedtuples are arrays; keys that
    are int, float, bool or None become text. Beyond it:

    =================================== ==============================================================
    pathlib path, UUID                  text
    datetime, date, time                ISO 8601 text
    timedelta                           seconds, a float
    Decimal                             text with all its digits
    Enum                                its value, converted in its turn
    dataclass                           object of its fields, converted in their turn
    numpy scalar, array                 what ``.tolist()`` gives, converted in its turn
    numpy datetime64, timedelta64       like datetime and timedelta, to the microsecond
    a key of one of these types         what this table makes of it, as text
    text with a lone surrogate          a ``\u`` escape
    =================================== ==============================================================

    Anything else is a `ResultNotSerializable`: NaN, infinities, NaT, bytes, sets, what contains itself,
    unknown objects, two keys that become one text, more than 200 levels. The message names the JSON path
    and the reason (``$.loss is NaN``).
    """
    try:
        if _is_plain(value):
            return _written(value)
    except (ValueError, RuntimeError):
        pass  # the walk finds the place and tells it
    try:
        return _written(_Walk(_friendly, _friendly_key).all_of(value))
    except _Fault as fault:
        message = f'the result{_whose(collection, ident)} is not JSON: {fault}'
        hint = 'return text, numbers, bools, None, lists and dicts, and write the rest to files in subdir'
        raise ResultNotSerializable(message, collection=collection, ident=ident, hint=hint)


def _written(plain: object) -> bytes:
    # A lone surrogate is always inside a JSON string, where what 'backslashreplace' writes is JSON's escape.
    return (_STANDARD(plain) + '\n').encode('utf-8', 'backslashreplace')


def _is_plain(value: object) -> bool:
    """Tell whether this is made of exact JSON types alone, with str keys, and not too deep.

    Level by level rather than by recursion: the sets of types are built in C, no code of the user's runs,
    and something circular ends as too deep.
    """
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            inner = _contents(item)
            if inner is None:
                return False
            if not {*map(type, inner)} <= _SCALARS:
                below += [each for each in inner if type(each) not in _SCALARS]
        if not below:
            return True
        # A list that holds itself twice would double on each level.
        level = below if len(below) < _MANY else list({id(each): each for each in below}.values())
    return False


def _contents(item: Any) -> Iterable[Any] | None:
    """Return what a list, tuple or dict with str keys holds, () for a scalar, None for anything else."""
    kind = type(item)
    if kind is dict:
        return item.values() if {*map(type, item)} <= _TEXT else None
    if kind is list or kind is tuple:
        return item  # type: ignore[no-any-return]
    return () if kind in _SCALARS else None


class _Refused(Exception):
    """Why a value is not JSON."""


class _Fault(Exception):
    """Where, and why, a value is not JSON."""


class _Walk:
    """Rebuilds a value from exact JSON types, or raises a `_Fault`. Its two rules raise `_Refused`."""

    def __init__(self, converted: Callable[[Any], Any], key: Callable[[Any], str]) -> None:
        self.converted = converted
        self.key = key
        self.around: set[int] = set()  # ids of the holders around the present value

    def all_of(self, value: object) -> Any:
        """Rebuild the whole value."""
        try:
            return self.plain(value, '$')
        except RecursionError:
            raise _Fault('$ is nested too deep for what is left of the stack')

    def plain(self, value: Any, path: str) -> Any:
        """Rebuild one value. Each level of nesting takes two frames of the stack, this and `holder`."""
        try:
            shape = self.converted(value)
            if not isinstance(shape, (dict, list, tuple)):
                return _scalar(shape)
            if id(value) in self.around:
                raise _Refused('contains itself')
            if len(self.around) == DEEPEST:
                raise _Refused(f'is nested deeper than {DEEPEST} levels')
            self.around.add(id(value))
            rebuilt = self.holder(shape, path)
            self.around.remove(id(value))
            return rebuilt
        except (_Fault, RecursionError):
            raise
        except _Refused as reason:
            raise _Fault(f'{_cut(path, 120)} {reason}')
        except Exception as error:  # reading a user's object runs the user's code, which may raise anything
            raise _Fault(f'{_cut(path, 120)} raised {type(error).__name__} when it was read')

    def holder(self, shape: Any, path: str) -> Any:
        """Rebuild a dict, list or tuple."""
        if _only_numbers(shape):
            return shape
        if not isinstance(shape, dict):
            return [self.plain(item, f'{path}[{position}]') for position, item in enumerate(shape)]
        rebuilt: dict[str, Any] = {}
        for key, item in shape.items():
            name = self.key(key)
            if name in rebuilt:
                raise _Refused(f'has two keys that both become {_shown(name)}')
            rebuilt[name] = self.plain(item, _below(path, name))
        return rebuilt


def _strict(value: Any) -> Any:
    """Convert nothing but numpy's numbers: a function gets its args as JSON gives them back."""
    if isinstance(value, str):
        return _utf8(value, 'holds')
    if isinstance(value, getattr(sys.modules.get('numpy'), 'generic', ())):
        plain: Any = value.item()  # type: ignore[union-attr]
        return plain if type(plain) in _NUMBERS else value
    return value


def _strict_key(key: Any) -> str:
    if type(key) is not str:  # json would silently make text of an int
        raise _Refused(f'has a key that is of type {_kind(key)}, not str')
    return _utf8(key, 'has a key with')


def _friendly(value: Any) -> Any:
    convert = None if type(value) in _SCALARS else _conversion(value)
    if convert is None:
        return value
    shape = convert(value)
    # numpy.longdouble gives itself back; it is refused, as unknown types are.
    return shape if type(shape) is type(value) else _friendly(shape)


def _friendly_key(key: Any) -> str:
    try:
        scalar = _scalar(_friendly(key))
    except _Refused as reason:
        raise _Refused(f'has a key that {reason}')
    return scalar if isinstance(scalar, str) else _STANDARD(scalar)


def _conversion(value: Any) -> Callable[[Any], Any] | None:
    numpy = sys.modules.get('numpy')  # where nobody imported it, nothing is numpy's
    if isinstance(value, (getattr(numpy, 'ndarray', ()), getattr(numpy, 'generic', ()))):
        return _from_numpy
    if hasattr(type(value), '__dataclass_fields__'):
        return _fields
    return next((convert for kind, convert in _conversions() if isinstance(value, kind)), None)


@cache
def _conversions() -> tuple[tuple[Any, Callable[[Any], Any]], ...]:
    """Return types and rules, imported on need: a worker whose results are plain pays for none of it."""
    from datetime import date, time, timedelta
    from decimal import Decimal
    from enum import Enum
    from pathlib import PurePath
    from uuid import UUID

    return (
        (Enum, lambda member: member.value),
        ((PurePath, UUID), str),
        ((date, time), _iso),
        (timedelta, timedelta.total_seconds),
        (Decimal, _decimal),
    )


def _fields(instance: Any) -> dict[str, Any]:
    from dataclasses import fields

    return {field.name: getattr(instance, field.name) for field in fields(instance)}


def _iso(moment: Any) -> str:
    text: str = moment.isoformat()
    if text == 'NaT':  # pandas.NaT calls itself a datetime
        raise _Refused('is NaT')
    return text


def _decimal(number: Any) -> str:
    if not number.is_finite():
        raise _Refused(f'is {number}')
    return str(number)


def _from_numpy(value: Any) -> Any:
    if value.dtype.kind not in 'mM':
        return value.tolist()
    if (value != value).any():
        raise _Refused('holds NaT' if value.ndim else 'is NaT')
    return value.astype(f'{value.dtype.kind}8[us]').tolist()  # of nanoseconds, tolist makes bare ints


def _only_numbers(shape: Any) -> bool:
    """Tell whether this is a list of finite numbers: found out in C, so that a numpy array costs no walk."""
    try:
        return type(shape) is list and {*map(type, shape)} <= _NUMBERS and all(map(isfinite, shape))
    except OverflowError:  # an int that no float can hold
        return False


def _scalar(value: Any) -> str | int | float | None:
    """Return the value as an exact str, int, float, bool or None."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if not isinstance(value, (int, float)):
        raise _Refused(f'is of type {_kind(value)}')
    number = float.__float__(value) if isinstance(value, float) else int.__int__(value)
    try:
        _STANDARD(number)
    except ValueError:  # NaN, Infinity, -Infinity; or see sys.set_int_max_str_digits
        is_float = isinstance(number, float)
        raise _Refused(
            f'is {json.dumps(number)}' if is_float else 'is an int with too many digits for Python'
        )
    return number


def _utf8(text: str, verb: str) -> str:
    half = _SURROGATE.search(text)
    if half:
        raise _Refused(f'{verb} a lone surrogate, {half[0]!a}, which is not UTF-8')
    return text


def _below(path: str, key: str) -> str:
    return f'{path}.{key}' if key.isidentifier() else f'{path}[{json.dumps(_cut(key, 60))}]'


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__qualname__}'


def _whose(collection: str, ident: object) -> str:
    """Name the resource for a message, if it is known: quoted, so that failures are grouped without it."""
    names = [str(name) for name in (collection, ident) if name != '']
    return f' of {_shown("/".join(names))}' if names else ''


def _shown(text: str) -> str:
    return repr(_cut(text, 60))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f'{text[: length - 1]}…'
