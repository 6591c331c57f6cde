"""The disk after a power cut: what the package did to it, and every state that this may leave behind.

`Recorder` notes each effect on the files below one folder, in order, and each sync. An effect is a name
that was made, moved or removed, or bytes of one file that changed. Whatever the package calls, the tree is
compared with what it was before, so that no way to write is overlooked; SQLite's own files are kept whole.

After a cut at some point, a *firm* effect is there: it came before a sync of its file (bytes) or of a
folder it stands in (names). Each other one is *loose*, and independent of all the rest:

* a name is there or not, a removal has happened or not; a rename has wholly happened or not at all;
* bytes are there, not there, zero where the file grew, or only some of their sectors of 512 bytes are
  there; the file has its new length, its old one, or one between;
* a folder that is not named by its parent is lost with all that is in it, however well that was synced.

No journal orders anything here; real file systems allow fewer states. Sectors are taken to be written
whole, and what a sync returned for is taken to be on the disk.
"""

import itertools
import os
import threading
from contextlib import contextmanager
from typing import NamedTuple

SECTOR = 512
FULL, ABSENT, ZERO, OLD_SIZE, HEAD, TAIL, CUT = 'full', 'absent', 'zero', 'old size', 'head', 'tail', 'cut'
_WRITES = (
    'mkdir', 'rmdir', 'unlink', 'remove', 'rename', 'replace', 'link', 'symlink', 'write', 'pwrite',
    'ftruncate', 'truncate', 'close',
)  # fmt: skip
_one_looks = threading.RLock()
_real = {name: getattr(os, name) for name in (*_WRITES, 'open', 'fsync', 'fdatasync', 'sync')}


class Names(NamedTuple):
    """Names that came and went, in one step."""

    path: str
    gone: tuple  # (folder, name)
    made: tuple  # (folder, name, node)


class Bytes(NamedTuple):
    """Bytes of one file that changed."""

    path: str
    node: int
    before: int  # its length
    after: int
    start: int
    data: bytes


class Sync(NamedTuple):
    """A sync of a file, of a folder, or (None) of everything."""

    path: str
    node: int | None


class Mark(NamedTuple):
    """A moment of the story that is told."""

    word: str
    about: object


class Recorder:
    """What was done below ``root``, a folder that is taken to be firmly on the disk."""

    def __init__(self, root):
        self.root = str(root)
        self.events = []
        self.indexes = [{}]  # SQLite's files as they were, by path; and at which event
        self.index_at = [0]
        self.folders, self.files, self.nodes = {0: {}}, {}, {os.stat(self.root).st_ino: 0}
        self.paths, self.are_folders = {0: ''}, {0}
        self._fresh = set()
        self._busy = False
        self.looks = 0
        self.at_end = None  # (looks that are left, what to do then)

    @contextmanager
    def recording(self):
        """Note what this process does from now on."""
        for name in _WRITES:
            setattr(os, name, self._watched(name))
        os.open = self._open
        os.fsync, os.fdatasync = (self._syncing(name) for name in ('fsync', 'fdatasync'))
        os.sync = self._sync_all
        try:
            yield self
            self.look()
        finally:
            for name, call in _real.items():
                setattr(os, name, call)

    def mark(self, word, about=None):
        with _one_looks:
            self.look()
            self.events.append(Mark(word, about))

    def _watched(self, name):
        call = _real[name]

        def watched(*args, **kwargs):
            if self._busy and name == 'close':  # our own
                return call(*args, **kwargs)
            if name == 'close':  # bytes that others wrote through a file object are seen here
                self.look()
                return call(*args, **kwargs)
            try:
                return call(*args, **kwargs)
            finally:
                self.look()

        return watched

    def _open(self, path, flags, *args, **kwargs):
        fd = _real['open'](path, flags, *args, **kwargs)
        if not self._busy and flags & (os.O_CREAT | os.O_TRUNC):
            self.look()
        return fd

    def _syncing(self, name):
        def syncing(fd):
            with _one_looks:
                self.look()
                _real[name](fd)
                node = self.nodes.get(os.fstat(fd).st_ino)
                if node is not None:
                    self.events.append(Sync(self.paths[node], node))

        return syncing

    def _sync_all(self):
        with _one_looks:
            self.look()
            self.events.append(Sync('', None))

    @staticmethod
    def forked():
        """In a forked child: whoever looked at that moment is not here."""
        global _one_looks
        _one_looks = threading.RLock()

    def synced_all(self):
        """The whole file system was synced by a call that is not one of ``os``."""
        self._sync_all()

    # --- what has changed --------------------------------------------------------------------------

    def look(self):
        """Note what changed since the last look."""
        with _one_looks:  # the rows are written by a thread of their own
            if not self._busy:
                self._look()

    def _look(self):
        self._busy = True
        self.looks += 1
        try:
            folders, files, index = {}, {}, {}
            self._fresh.clear()
            self._walk(self.root, 0, folders, files, index)
        finally:
            self._busy = False
        self._note_names(folders)
        for node, data in files.items():
            self._note_bytes(node, self.files.get(node, b''), data)
        self.folders, self.files = folders, files
        if index != self.indexes[-1]:
            self.indexes.append(index)
            self.index_at.append(len(self.events))
        if self.at_end is not None:
            left, end = self.at_end
            self.at_end = (left - 1, end)
            if left == 0:
                self._busy = True
                end()

    def _walk(self, path, node, folders, files, index):
        names = folders[node] = {}
        with os.scandir(path) as found:
            for entry in found:
                at = f'{path}/{entry.name}'
                if entry.name.startswith('index.sqlite3'):
                    if not entry.name.endswith('-shm'):
                        index[at.removeprefix(self.root)] = _contents(at)
                    continue
                below = self._node(entry.inode(), at)
                names[entry.name] = below
                if entry.is_dir(follow_symlinks=False):
                    self.are_folders.add(below)
                    self._walk(at, below, folders, files, index)
                else:
                    files[below] = _contents(at)

    def _node(self, inode, path):
        node = self.nodes.get(inode)
        if node is None or not (node in self.folders or node in self.files or node in self._fresh):
            node = self.nodes[inode] = len(self.paths)  # one whose number is used again is another
            self._fresh.add(node)
        self.paths[node] = path.removeprefix(self.root)
        return node

    def _note_names(self, folders):
        was = {(at, name): node for at, names in self.folders.items() for name, node in names.items()}
        now = {(at, name): node for at, names in folders.items() for name, node in names.items()}
        gone = {node: key for key, node in was.items() if now.get(key) != node}
        for key, node in now.items():
            if was.get(key) != node:
                moved = gone.pop(node, None)
                self.events.append(Names(self.paths[node], (moved,) if moved else (), ((*key, node),)))
        for node, key in gone.items():
            if key not in now:  # else replaced by another
                self.events.append(Names(self.paths[node], (key,), ()))

    def _note_bytes(self, node, before, after):
        if before == after:
            return
        start = next(
            (at for at, (one, two) in enumerate(zip(before, after, strict=False)) if one != two), None
        )
        start = min(len(before), len(after)) if start is None else start
        end = len(after)
        if len(before) == len(after):
            while before[end - 1] == after[end - 1]:
                end -= 1
        path = self.paths[node]
        self.events.append(Bytes(path, node, len(before), len(after), start, after[start:end]))

    # --- what may be left --------------------------------------------------------------------------

    def points(self):
        """Where a cut leaves states that no other leaves: before each sync or mark, and at the end."""
        events = self.events
        return [at for at, event in enumerate(events) if isinstance(event, (Sync, Mark))] + [len(events)]

    def loose(self, point):
        """Indexes of the effects that are not firm at a point, and all effects up to it."""
        firm, effects = set(), []
        for at, event in enumerate(self.events[:point]):
            if isinstance(event, Sync):
                firm.update(place for place, effect in effects if _covers(event.node, effect))
            elif not isinstance(event, Mark):
                effects.append((at, event))
        return [(at, effect) for at, effect in effects if at not in firm], effects

    def states(self, point, most, chosen):
        """The states after a cut at a point, as {path: bytes or None for a folder}, each once.

        All of them where they are at most ``most``. Otherwise

        * those where one loose effect differs from all being there; or the last effects on one name,
          or on one file, are missing together; and the one where nothing loose is there;
        * up to ``most``: those where two differ from all being there, and where up to two differ from
          none being there, drawn from all of these, and as many again where each has any fate.
        """
        loose, effects = self.loose(point)
        axes = [(at, effect) for at, effect in loose if '/.hadrosaur' not in effect.path]
        hidden = [(at, effect) for at, effect in loose if '/.hadrosaur' in effect.path]
        fates = [[{at: fate} for fate in _fates(effect)] for at, effect in axes]
        if hidden:  # nothing depends on two of these together
            alone = [{place: ABSENT} for place, _ in hidden]
            torn = [{place: fate} for place, effect in hidden for fate in _fates(effect)[2:]]
            fates.append([{}, {place: ABSENT for place, _ in hidden}, *alone, *torn])
        seen = set()
        for combination in _combinations(fates, _together(loose), most, chosen):
            tree = self._tree(effects, {at: fate for part in combination for at, fate in part.items()})
            key = hash(frozenset(tree.items()))
            if key not in seen:
                seen.add(key)
                yield tree

    def _tree(self, effects, fates):
        folders, files = {}, {}
        for at, effect in effects:
            fate = fates.get(at, FULL)
            if isinstance(effect, Bytes):
                files[effect.node] = _written(files.get(effect.node, b''), effect, fate)
            elif fate == FULL:
                for folder, name in effect.gone:
                    folders.setdefault(folder, {}).pop(name, None)
                for folder, name, node in effect.made:
                    folders.setdefault(folder, {})[name] = node
        tree = {}
        self._grow(tree, '', 0, folders, files)
        return tree

    def _grow(self, tree, path, node, folders, files):
        for name, below in folders.get(node, {}).items():
            at = f'{path}/{name}'
            tree[at] = None if below in self.are_folders else files.get(below, b'')
            if below in self.are_folders:
                self._grow(tree, at, below, folders, files)

    def index_states(self, point):
        """SQLite's files after a cut there: (in words, {path: bytes})."""
        last = max(n for n, at in enumerate(self.index_at) if at <= point)
        now = self.indexes[last]
        yield 'the index as it was', now
        yield 'no index', {}
        if last > 1:
            yield 'an old index', self.indexes[last - 1]
            yield 'a very old index', self.indexes[1]
        for path, data in now.items():
            if path.endswith('-wal') and data:
                rest = {other: found for other, found in now.items() if other != path}
                yield 'no -wal', rest
                yield 'an empty -wal', {**rest, path: b''}
                half = len(data) // 2 // SECTOR * SECTOR
                yield 'half a -wal', {**rest, path: data[:half]}
                yield 'a -wal that ends in zeros', {**rest, path: data[:half] + bytes(len(data) - half)}


def _contents(path):
    fd = _real['open'](path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return os.read(fd, 1 << 24)
    finally:
        _real['close'](fd)


def _covers(node, effect):
    if node is None:
        return True
    if isinstance(effect, Bytes):
        return effect.node == node
    return any(place[0] == node for place in (*effect.gone, *effect.made))


def _fates(effect):
    """What may become of a loose effect; the first two are being there and not being there."""
    found = [FULL, ABSENT]
    if isinstance(effect, Bytes) and effect.data:
        first, last = effect.start // SECTOR, (effect.start + len(effect.data) - 1) // SECTOR
        if effect.after > effect.before:
            found.append(ZERO)
            if effect.start < effect.before:
                found.append(OLD_SIZE)
        if last > first:
            found += [HEAD, TAIL]
            if effect.after > effect.before:
                found.append(CUT)
    return found


def _written(old, effect, fate):
    if fate == ABSENT:
        return old
    head = min(len(effect.data), SECTOR - effect.start % SECTOR)  # what falls into the first sector
    if fate == OLD_SIZE:
        return _put(old, effect.start, effect.data)[: max(len(old), effect.start)]
    length = effect.after
    sized = old[:length].ljust(length, b'\0')
    if fate == ZERO:
        return sized
    if fate == TAIL:
        return _put(sized, effect.start + head, effect.data[head:])
    if fate in (HEAD, CUT):
        sized = _put(sized, effect.start, effect.data[:head])
        return sized if fate == HEAD else sized[: max(effect.start + head, min(len(old), effect.before))]
    return _put(sized, effect.start, effect.data)


def _put(old, start, data):
    return old[:start].ljust(start, b'\0') + data + old[start + len(data) :]


def _together(loose):
    """What is missing together: the last effects on one name, or on one file, two of them or more."""
    groups = {}
    for at, effect in loose:
        if isinstance(effect, Bytes):
            groups.setdefault(effect.node, {})[at] = ABSENT
        else:
            for place in (*effect.gone, *(made[:2] for made in effect.made)):
                groups.setdefault(place, {})[at] = ABSENT
    found = [list(group) for group in groups.values()]
    return [dict.fromkeys(group[-last:], ABSENT) for group in found for last in range(2, len(group) + 1)]


def _combinations(fates, together, most, chosen):
    total = 1
    for axis in fates:
        total *= len(axis)
    if total <= most:
        yield from itertools.product(*fates)
        return
    there, none = ([axis[place] for axis in fates] for place in (0, 1))
    yield there
    yield none
    for place, axis in enumerate(fates):
        for fate in axis[1:]:
            yield [*there[:place], fate, *there[place + 1 :]]
    for group in together:
        yield [*there, group]
    if not most:
        return
    ways = [
        (usual, place, fate) for usual in (there, none) for place, axis in enumerate(fates) for fate in axis
    ]
    pairs = [
        (one, two) for one, two in itertools.combinations(ways, 2) if one[0] is two[0] and one[1] != two[1]
    ]
    for (usual, one, fate), (_, two, other) in chosen.sample(pairs, min(most, len(pairs))):
        changed = {one: fate, two: other}
        yield [changed.get(place, fate) for place, fate in enumerate(usual)]
    for _ in range(most):
        yield [chosen.choice(axis) for axis in fates]


def lay_out(tree, index, place):
    """Put a state on the disk, in a fresh folder."""
    os.mkdir(place)
    for path, data in sorted(tree.items()):
        if data is None:
            os.mkdir(place + path)
        else:
            _put_file(place + path, data)
    for path, data in index.items():
        if os.path.isdir(os.path.dirname(place + path)):
            _put_file(place + path, data)


def _put_file(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
