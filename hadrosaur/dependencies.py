"""What a resource was computed from, and whether that is still what stands there.

A run's record names what its function fetched: of each resource the id of the run that made it. A resource is
stale if its collection has another version by now, if it is older than its collection allows, if a file that
it was computed from has changed, if one that it used was computed again since, is being computed, or is gone;
or if one that it used is stale. Runs are compared by their ids, and never by time.

Here that is told from the directories, for one resource. The index tells it for all (index/_stale.py).
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from . import canonical, directory, fileops, inputs
from .errors import CycleError, InvalidIdent, Unreadable
from .records import NO_FACTS, Cause, Facts, Use, Why, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Key = tuple[str, str]


def recorded(uses: Mapping[Key, Mapping[str, str]]) -> tuple[str | None, dict[str, Any]]:
    """What a function was given, as row and record hold it, and what else the record tells of it.

    That is, where these are more than a record names, how many, and a digest of all in the order of their
    names.
    """
    lines = [[*key, run, known] for key, runs in list(uses.items()) for run, known in list(runs.items())]
    more: dict[str, Any] = {}
    if len(lines) > directory.MOST_USES:
        whole = json.dumps(sorted(lines), ensure_ascii=False, separators=(',', ':')).encode()
        digest = f'b2:{hashlib.blake2b(whole, digest_size=16).hexdigest()}'
        more = {'uses_count': len(lines), 'uses_digest': digest}
    return directory.uses_text(lines), more


def age(record: Mapping[str, Any]) -> float:
    """Seconds since it was computed, by the clock here; or until then, where that clock lags behind.

    So a result from the future is good for no longer than it is ahead, and never for good.
    """
    try:
        return abs(time.time() - parse_time(record['finished_at']).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return float('inf')


def cause(
    base: str,
    key: Key,
    record: Mapping[str, Any],
    facts: Mapping[str, Facts],
    *,
    own: bool = True,
    only_cured: bool = False,
) -> Cause | None:
    """The nearest reason for which a resource is stale, in as few steps as there may be; None: it is not.

    Args:
        base: Absolute path of the base.
        key: Collection and ident of the resource.
        record: Its record.json.
        facts: What is known of collections.
        own: Whether what lies in the resource itself counts.
        only_cured: Upstream that alone counts which would no longer be so if a function fetched it again.

    Reads the records of what it used, and of what these used in turn. Raises Unreadable.
    """
    level: list[tuple[tuple[Key, ...], Mapping[str, Any]]] = [((key,), record)]
    met = {key}
    while level:
        for chain, known in level:
            if own or len(chain) > 1:
                found = _own(chain, known, facts.get(chain[-1][0], NO_FACTS), only_cured)
                if found is not None:
                    return found
        further: list[tuple[tuple[Key, ...], Mapping[str, Any]]] = []
        for chain, known in level:
            if only_cured and len(chain) > 1 and not _is_cured('upstream', facts, chain[-1]):
                continue
            for use in uses_of(known):
                used = (use.collection, use.ident)
                state, their = _read(base, *used)
                if what := _became(state, their, use):
                    return Cause('upstream', f'{_named(used)} {what}', _names((*chain, used)))
                if used not in met:
                    met.add(used)
                    further.append(((*chain, used), their))
        level = further
    return None


def _is_cured(why: Why, facts: Mapping[str, Facts], key: Key) -> bool:
    return why in facts.get(key[0], NO_FACTS).recomputes


def uses_of(record: Mapping[str, Any]) -> list[Use]:
    """What a record says that its function fetched."""
    text = directory.uses_text(record.get('uses'))
    return [Use(*line) for line in json.loads(text)] if text else []


def input_lines(record: Mapping[str, Any]) -> list[list[Any]]:
    """The files that a record says its run was computed from."""
    text = directory.inputs_text(record.get('inputs'))
    found: list[list[Any]] = json.loads(text) if text else []
    return found


def _own(chain: tuple[Key, ...], record: Mapping[str, Any], facts: Facts, only_cured: bool) -> Cause | None:
    """The reason that lies in the last of a chain itself."""
    who = 'it' if len(chain) == 1 else _named(chain[-1])
    recomputes = facts.recomputes if only_cured else None
    old, new = record.get('version'), facts.version
    if new is not None and old != new and (recomputes is None or 'version' in recomputes):
        what = 'without a version' if old is None else f'by version {old}'
        return Cause('version', f'{who} was computed {what}, and now there is {new}', _names(chain), old, new)
    if facts.expires_after is not None and age(record) > facts.expires_after:
        return Cause('age', f'{who} is older than {facts.expires_after:g} s', _names(chain))
    is_asked = recomputes is None or 'input' in recomputes
    became = inputs.changed(input_lines(record)) if is_asked else None
    of = 'its input' if len(chain) == 1 else f'the input of {who},'
    return None if became is None else Cause('input', f'{of} {became}', _names(chain))


def _became(state: str, record: Mapping[str, Any], use: Use) -> str | None:
    """What became of the run that was used; None where it is there."""
    if state in ('pending', 'damaged'):
        return 'is being computed'
    if state == 'absent':
        return 'is gone'
    return None if directory.recorded_run(dict(record)) == use.run else 'was computed again'


def _read(base: str, collection: str, ident: str) -> tuple[str, dict[str, Any]]:
    """What status.json of a resource says, and its record."""
    try:
        path = f'{base}/{canonical.collection_folder(collection)}'
        with fileops.opened_below(path, directory.find_folder(path, ident)) as folder:
            return directory.read_status(folder), directory.read_record(folder) or {}
    except (FileNotFoundError, InvalidIdent):
        return 'absent', {}
    except OSError as error:
        if fileops.is_no_file(error):
            return 'absent', {}
        raise Unreadable(f'{collection}/{ident} cannot be read: {error.strerror}', hint='try again')


def _named(key: Key) -> str:
    return '/'.join(key)


def _names(chain: Iterable[Key]) -> tuple[str, ...]:
    return tuple(map(_named, chain))


# --- in which order ----------------------------------------------------------------------------------


def levels(edges: Iterable[tuple[Key, Key | None]], wanted: Iterable[Key] | None = None) -> list[list[Key]]:
    """Stale resources from the leaves up: each comes in a later list than the stale ones that it used.

    Args:
        edges: Each stale resource, with each stale one that it used, or None.
        wanted: Only these, and what they used, directly or not; None: all.

    Raises CycleError where some used each other, so that none can be computed after the others.
    """
    used: dict[Key, set[Key]] = {}
    for key, other in edges:
        used.setdefault(key, set()).update({other} - {None, key})  # type: ignore[arg-type]
    left = used if wanted is None else _below(used, wanted)
    users: dict[Key, list[Key]] = {}
    for key in left:
        for other in used[key]:
            users.setdefault(other, []).append(key)
    counts = {key: len(used[key]) for key in left}
    found: list[list[Key]] = []
    level = [key for key, count in counts.items() if not count]
    while level:
        found.append(level)
        for user in [user for key in level for user in users.get(key, ())]:
            counts[user] -= 1
        level = [
            user for user in dict.fromkeys(u for key in level for u in users.get(key, ())) if not counts[user]
        ]
    if stuck := {key for key, count in counts.items() if count}:
        raise _ring(used, stuck)
    return found


def _below(used: Mapping[Key, set[Key]], wanted: Iterable[Key]) -> dict[Key, None]:
    """What is wanted and stale, and all that is stale below it."""
    found: dict[Key, None] = {}
    todo = [key for key in wanted if key in used]
    while todo:
        key = todo.pop()
        if key not in found:
            found[key] = None
            todo += used[key]
    return found


def _ring(used: Mapping[Key, set[Key]], stuck: set[Key]) -> CycleError:
    path = [min(stuck)]
    while path[-1] not in path[:-1]:
        path.append(min(used[path[-1]] & stuck))
    ring = path[path.index(path[-1]) :]
    message = ', which used '.join(map(_named, ring))
    return CycleError(
        f'a cycle of dependencies: {message}; none of them can be computed after the others',
        collection=ring[0][0],
        ident=ring[0][1],
        hint='compute one of them by itself, with recompute=True',
    )
