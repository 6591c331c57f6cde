"""One resource's directory: what its files mean, and how they are begun, finished and read back.

The directory is the truth about a resource; the index can be rebuilt from it. Three rules carry that:

* status.json says what may be believed, and it is switched last. The moment it says completed, the
  result, the record and the logs are there.
* Only the holder of the directory's lock (a `Claim`, in claim.py) writes into it.
* Whatever is cut off half way is told from what is on the disk: see recover.py.

A reader needs no lock. It may meet a status.json in the middle of being switched (157 of 10 million
reads against a racing writer did); a state is therefore a document with exactly the three keys and
exactly one of them true, and anything else is read again before it is called damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import re
import time
from datetime import UTC
from json.encoder import encode_basestring
from typing import Any, Literal

from .. import canonical, fileops, trees
from ..columns import PUBLIC, of_kind
from ..errors import InvalidArgs, InvalidIdent
from ..records import COLUMNS, STATUSES, Entry, Status, format_time, parse_time
from ._cells import MOST_USES as MOST_USES
from ._cells import bases_text as bases_text
from ._cells import history_text, recorded_bases
from ._cells import indexed_result as indexed_result
from ._cells import inputs_text as inputs_text
from ._cells import uses_text as uses_text

STATUS = 'status.json'
"""Exactly ``{"completed": …, "pending": …, "error": …}``, one of them true; switched last."""
RESULT = 'result.json'
"""The returned value as standard JSON, ending with a newline."""
STDOUT = 'stdout.log'
"""All that the function printed, as it prints it."""
STDERR = 'stderr.log'
"""All that the function wrote to standard error: warnings and logging too."""
ERROR = 'error.log'
"""The traceback of the last run; absent or empty unless the last run failed."""
STORAGE = 'storage'
"""The function's own files; empty when a run starts, unless ``keep_storage=True``."""
RECORD = 'record.json'
"""Ours: all that the index shows of the resource, so that it can be rebuilt."""
PROGRESS = 'progress.json'
"""How far a run says it is; there only while it runs."""
LOCK = '.lock'
"""Locked in place of the directory where the file system refuses to lock directories."""

REMOVED = '.removed'
"""There while a directory is being removed: whatever else is left of it is nobody's."""

STATUS_MOST, RECORD_MOST = 4096, 64 << 20
"""Bytes that the two can have and be ours; record.json holds the args."""

FILES = (STATUS, RESULT, STDOUT, STDERR, ERROR, RECORD, LOCK)

_LITTER = re.compile(
    rf'\.({"|".join(map(re.escape, (*FILES, STORAGE)))})\.\d+\.\d+\.new|{re.escape(PROGRESS)}'
)  # what `diskio.beside` names, and what a run that was killed has said

FORMAT = 1  # of record.json; a reader takes any number and ignores what it does not know

State = Status | Literal['absent', 'damaged']

STATUS_BYTES: dict[Status, bytes] = {
    status: json.dumps({name: name == status for name in ('completed', 'pending', 'error')}).encode() + b'\n'
    for status in STATUSES
}
"""The three documents. All have the same length, so that one in-place write switches them."""
STATUS_LENGTH = len(STATUS_BYTES['pending'])
_COMPLETED = STATUS_BYTES['completed']
_STATUS_OF = {data: status for status, data in STATUS_BYTES.items()}

_READINGS = 5  # of a status.json that is no state, before it is called damaged
_READING_GAP = 0.0025  # seconds between them: 10 ms in all
LOCK_PATIENCE = 0.02  # seconds; a probe holds the lock for an instant, a computation for longer
_JSON = json.JSONDecoder()


# --- reading ---------------------------------------------------------------------------------------


def parse_status(data: bytes) -> Status | None:
    """The status that a status.json states, or None where it is no state at all."""
    known = _STATUS_OF.get(data)
    if known:
        return known
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.keys() != set(STATUSES):
        return None
    if not all(isinstance(value, bool) for value in document.values()) or sum(document.values()) != 1:
        return None
    return next(status for status in STATUSES if document[status])


def is_completed(folder: int) -> bool:
    """Is status.json, byte for byte, what we write for a completed resource? The quick first question."""
    try:
        fd = os.open(STATUS, fileops.READ, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.read(fd, STATUS_LENGTH + 1) == _COMPLETED
    except OSError:  # a folder of that name
        return False
    finally:
        os.close(fd)


def read_status(folder: int) -> State:
    """The state of an open directory; a torn reading is repeated for up to 10 ms.

    Raises OSError where status.json cannot be read this time (too many open files, a disk that fails).
    """
    for reading in range(_READINGS):
        try:
            status = parse_status(fileops.read(STATUS, folder, STATUS_MOST))
        except FileNotFoundError:
            return 'absent'
        except OSError as error:
            if fileops.is_no_file(error):  # a folder or a link of that name: not ours to follow
                return 'damaged'
            raise
        if status:
            return status
        if reading < _READINGS - 1:
            time.sleep(_READING_GAP)
    return 'damaged'


def parse_result(data: bytes) -> Any:
    """The value in a result.json. Raises ValueError where it is damaged.

    A number without the final newline may be the front of a longer one, so it does not count.
    """
    text = data.decode()
    try:
        value, end = _JSON.raw_decode(text)
        if text[end:] == '\n':  # as we wrote it
            return value
    except (ValueError, RecursionError):
        pass
    try:
        value = _JSON.decode(text)  # as someone edited it
    except RecursionError:
        raise ValueError('nested too deeply')
    if text[-1:] != '\n' and isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError('a number without the newline that ends it')
    return value


def read_result(folder: int) -> bytes | None:
    """The bytes of result.json, where they parse; else None. Raises OSError as `read_status` does."""
    try:
        data = fileops.read(RESULT, folder)
        parse_result(data)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if fileops.is_no_file(error):
            return None
        raise
    return data


def _refuse(constant: str) -> Any:
    raise ValueError(f'{constant} is not standard JSON')


_STRICT = json.JSONDecoder(parse_constant=_refuse)


def read_record(folder: int) -> dict[str, Any] | None:
    """The document in record.json: None where there is none, {} where it is damaged.

    Raises OSError as `read_status` does.
    """
    data = record_data(folder)
    return None if data is None else parse_record(data)


def record_data(folder: int) -> bytes | None:
    """The bytes of record.json, as `data_of` gives them."""
    return data_of(RECORD, folder, RECORD_MOST)


def data_of(name: str, folder: int, most: int | None = None) -> bytes | None:
    """The bytes of a file: None where there is none, b'' where it is no file of ours."""
    try:
        return fileops.read(name, folder, most)
    except FileNotFoundError:
        return None
    except OSError as error:
        if fileops.is_no_file(error):
            return b''
        raise


def parse_record(data: bytes) -> dict[str, Any]:
    """The document in a record.json, {} where it is damaged."""
    try:
        text = data.decode()
        document = _STRICT.decode(text)
        if '\\u' in text:  # half a surrogate pair, which can be neither shown nor stored
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and not _is_torn(document, text) else {}


def _is_torn(document: dict[str, Any], text: str) -> bool:
    """Are its args not those of its hash? A record is rewritten in place: a power cut may mix two of them.

    Of what else may be mixed in a document that parses, nothing is believed that its status does not say.
    """
    args, known = document.get('args'), document.get('args_hash')
    if not isinstance(args, dict) or not isinstance(known, str):
        return False
    written = text[text.rfind('"args": ') + 8 :].rstrip().removesuffix('\n}')
    if known == canonical.args_hash(written):  # as we write them
        return False
    return known != canonical.args_hash(recorded_args(document) or '')


def has_args(document: dict[str, Any], args: str) -> bool:
    """Are these (canonical JSON) the args of a record? One without any has {}."""
    if isinstance(document.get('args'), dict) and document.get('args_hash') == canonical.args_hash(args):
        return True  # what a record says of its args was compared with them when it was parsed
    return (recorded_args(document) or '{}') == args


def effective_status(state: State, record: dict[str, Any] | None, folder: int) -> State:
    """What a directory is in truth while nobody holds its lock; only looks.

    A valid final status stands. Pending or damaged means that someone was cut off: a final record
    decides (completed only if the result parses), one that says begun, or a damaged one, means a run
    cut off half way ('pending'), and none at all means never begun ('absent').
    """
    if state in ('completed', 'error', 'absent'):
        return state
    final = record.get('state') if record else None
    if final == 'error' or (final == 'completed' and read_result(folder) is not None):
        return 'error' if final == 'error' else 'completed'
    return 'absent' if record is None or final == 'queued' else 'pending'


def last_error_line(folder: int) -> str | None:
    """The last line of error.log that says something."""
    try:
        tail = fileops.read_tail(ERROR, folder, 4096).decode(errors='replace')
    except OSError:
        return None
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else None


def is_removed(folder: int) -> bool:
    """Was an open directory being removed when whoever did that was killed?"""
    try:
        os.stat(REMOVED, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def status_mtime(folder: int, below: str = '') -> int | None:
    """When status.json was last written, in nanoseconds since the epoch.

    ``folder`` is a descriptor of the directory; or of its collection, and ``below`` the name with a slash.
    """
    try:
        return os.stat(below + STATUS, dir_fd=folder, follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


# --- record.json -----------------------------------------------------------------------------------

_OTHERWISE = {'collection', 'ident', 'status', 'phase', 'args_hash', 'provenance', 'run', 'path'}
_RECORDED = tuple(column.name for column in PUBLIC if column.kind != 'JSON' and column.name not in _OTHERWISE)
_MADE_FROM = ('uses', 'inputs')
_OF_ERRORS = ('error_type', 'error_bases', 'error', 'error_group')
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(of_kind('integer'), int),
    **dict.fromkeys(of_kind('float'), (int, float)),
}


_recorded = operator.itemgetter(*map(COLUMNS.index, _RECORDED))
_RECORD_TEMPLATE = (
    f'{{\n "format": {FORMAT},\n "collection": %s,\n "ident": %s,\n "state": "%s",\n "run": %s,\n'
    ' "args_hash": %s,\n ' + ''.join(f'"{name}": %s,\n ' for name in _RECORDED)
)


def _json(value: Any) -> str:
    """A str, number or None as JSON: half of what the json module takes for the whole record."""
    if value is None:
        return 'null'
    return encode_basestring(value) if type(value) is str else repr(value)


def record_bytes(entry: Entry, state: str, run: str, **more: Any) -> bytes:
    """Return a record.json: one field a line, times as text, args last.

    ``state`` is ``queued``, ``begun``, ``completed`` or ``error``.
    """
    lines = _RECORD_TEMPLATE % (
        _json(entry.collection),
        _json(entry.ident),
        state,
        _json(run),
        _json(entry.args_hash),
        *map(_json, _recorded(tuple(entry))),
    )
    told, bases = entry.raw('provenance'), entry.raw('error_bases')
    extra = f'"provenance": {_json(told)},\n ' if told else ''
    if bases:
        extra += f'"error_bases": {bases},\n '
    if history := entry.raw('history'):
        extra += f'"history": {history},\n '
    for name in _MADE_FROM:
        if cell := entry.raw(name):
            extra += f'"{name}": {cell},\n '
    extra += ''.join([f'"{name}": {_json(value)},\n ' for name, value in more.items()])
    return f'{lines}{extra}"args": {entry.raw("args")}\n}}\n'.encode()


def checksum(data: bytes) -> str:
    """SHA-256 in hex, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def recorded_args(record: dict[str, Any]) -> str | None:
    """The canonical JSON of the args in a record, or None where there are none."""
    args = record.get('args')
    with contextlib.suppress(InvalidArgs):  # nested too deeply, by hand
        return canonical.args_json(args) if isinstance(args, dict) else None
    return None


def entry_of(
    collection: str, ident: str, path: str, status: Status, folder: int, record: dict[str, Any] | None
) -> Entry:
    """The index row of an open directory: from its record, where that agrees with its status.

    Args:
        collection: The collection's name.
        ident: The resource's ident.
        path: The directory relative to the base.
        status: What status.json says. It wins over the record: editing by hand is allowed.
        folder: A descriptor of the directory.
        record: What `read_record` gave.
    """
    record = record or {}
    values = {name: _checked(name, record.get(name)) for name in _RECORDED}
    mtime = status_mtime(folder)
    values['error_bases'] = recorded_bases(record)
    values['provenance'] = _checked('provenance', record.get('provenance'))
    values['history'] = history_text(record.get('history'))
    values['run'] = recorded_run(record)
    values['uses'] = uses_text(record.get('uses'))
    values['inputs'] = inputs_text(record.get('inputs'))
    if status == 'pending':
        values.update(dict.fromkeys(('finished_at', 'duration', *_OF_ERRORS, *_MADE_FROM)))
    elif record.get('state') != status:
        _explain_by_hand(values, status, folder)
    if status != 'pending' and values['finished_at'] is None and mtime is not None:
        values['finished_at'] = format_time(mtime / 1e9)
    args = recorded_args(record) or '{}'
    return Entry.make(
        collection=collection,
        ident=ident,
        status=status,
        phase='running' if status == 'pending' and record.get('state') == 'begun' else None,
        path=path,
        args=args,
        args_hash=canonical.args_hash(args),
        result=indexed_result(RESULT, folder, record) if status == 'completed' else None,
        seen_mtime_ns=mtime,
        **{**values, 'attempt': values['attempt'] or 1},
    )


def recorded_attempt(record: dict[str, Any] | None) -> int | None:
    """The number of the last run, where the record tells it."""
    attempt: int | None = _checked('attempt', record.get('attempt')) if record else None
    return attempt


def recorded_run(record: dict[str, Any] | None) -> str:
    """The id of the run that a record tells of; '' where it tells none, or there is no record."""
    run = (record or {}).get('run')
    return run if isinstance(run, str) else ''


def _checked(name: str, value: Any) -> Any:
    """The value of a field, None where the index could not hold it: records are edited by hand."""
    wanted = _TYPES.get(name, str)
    if not isinstance(value, wanted) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _checked_time(value) if name.endswith('_at') else value
    return value if isinstance(value, (int, float)) and 0 <= value < 1 << 62 else None


def _checked_time(text: str) -> str | None:
    try:
        moment = parse_time(text)
        if len(text) == 27 and text[19] == '.' and text[26] == 'Z':
            return text  # as we wrote it
        return format_time(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _explain_by_hand(values: dict[str, Any], status: Status, folder: int) -> None:
    """A status that the record does not know was set by hand, or by hadrosaur 0.0.2."""
    values.update(dict.fromkeys(_OF_ERRORS))
    if status == 'error':
        line = last_error_line(folder) or 'no error.log'
        kind, _, rest = line.partition(':')
        named = kind.isidentifier() or kind.replace('.', '').isidentifier()
        values['error_type'] = kind if named and rest else 'Error'
        values['error'] = rest.strip() if named and rest else line


# --- litter ----------------------------------------------------------------------------------------


def is_litter(name: str) -> bool:
    """Was this written beside one of our files, by a process that was killed before it put it there?

    Only for who holds the directory's lock: else it may be about to be put there.
    """
    return _LITTER.fullmatch(name) is not None


def sweep(folder: int) -> None:
    """Remove such litter from a locked directory, as far as that goes."""
    with contextlib.suppress(OSError):
        for name in filter(is_litter, os.listdir(folder)):
            with contextlib.suppress(OSError):
                try:
                    fileops.remove(name, folder)
                except OSError:
                    trees.remove_tree(name, folder)


# --- finding ---------------------------------------------------------------------------------------


def find_folder(collection_path: str, ident: str) -> str:
    """The folder's name of an ident: the encoded one, or where it is absent what an older release left."""
    name = canonical.folder_name(ident)
    if name == ident and ',' not in ident:
        return name
    before = canonical.folder_names_before(ident)
    with contextlib.suppress(OSError, ValueError):
        if before and not os.path.lexists(f'{collection_path}/{name}'):
            for older in before:
                if os.path.lexists(f'{collection_path}/{older}/{STATUS}'):
                    return older
    return name


def ident_of(name: str, folder: int, record: dict[str, Any] | None) -> str:
    """The ident of an open directory. Raises InvalidIdent where neither name nor record tell.

    The name wins over the record, so that a copy made by hand is a resource of its own; only a long
    ident, whose folder is named by a digest, is taken from the record, if the digest agrees.
    """
    ident = canonical.ident_of_folder(name)
    if ident is not None:
        return ident
    recorded = (record or {}).get('ident')
    if isinstance(recorded, str) and canonical.digest_matches(name, recorded):
        return recorded
    raise InvalidIdent(f'the folder {name} is named by a digest, and its {RECORD} does not tell the ident')
