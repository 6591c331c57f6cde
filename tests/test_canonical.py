"""Folder names, canonical JSON and the args hash are the same for ever; what cannot be written says why.

The golden vectors were made without Python, by ``LC_ALL=C`` perl, coreutils and jq:

- names: ``perl -0777 -pe 's/([^A-Za-z0-9_.+=\\@-])/sprintf("%%%02X",ord($1))/ge; s/^([.-])/…/e'`` on UTF-8;
- digest names: ``cut -c1-60`` of that, and ``printf %s IDENT | b2sum -l 128``;
- hashes: ``printf %s JSON | b2sum -l 128``, where the JSON of mixed keys came from ``jq -cS .``.
"""

import dataclasses
import enum
import json
import os
import sys
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan
from pathlib import PurePosixPath
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadrosaur import canonical
from hadrosaur.canonical import args_hash, args_json, folder_name, ident_of_folder, ident_text, result_json
from hadrosaur.errors import InvalidArgs, InvalidIdent, ResultNotSerializable

NAMES = {
    'uniq_ident123': 'uniq_ident123',
    'A-Z_a.z+=@': 'A-Z_a.z+=@',
    'CON': 'CON',
    'a b': 'a%20b',
    'a/b': 'a%2Fb',
    '.': '%2E',
    '..': '%2E.',
    '../x': '%2E.%2Fx',
    '.hidden': '%2Ehidden',
    '-rf': '%2Drf',
    '%2F': '%252F',
    'a%20b': 'a%2520b',
    '~': '%7E',
    'a~b': 'a%7Eb',
    'a:b?c*d': 'a%3Ab%3Fc%2Ad',
    'tab\there': 'tab%09here',
    'name ': 'name%20',
    'https://doi.org/10.1000/182': 'https%3A%2F%2Fdoi.org%2F10.1000%2F182',
    'zo\xe9': 'zo%C3%A9',
    'zoe\u0301': 'zoe%CC%81',
    '\U0001f995': '%F0%9F%A6%95',
    'a' * 200: 'a' * 200,
    '\xe9' * 33 + 'ab': '%C3%A9' * 33 + 'ab',
}
DIGEST_NAMES = {
    'a' * 201: 'a' * 60 + '%~d18280657f68288ba8d13f081407438e',
    'x/y' * 100: 'x%2Fy' * 12 + '%~f3d8f3a1afaa632b230d5d59d03116c5',
    '\xe9' * 34: '%C3%A9' * 10 + '%~b3114061e37e004bb5c0fb7da8bbd6b5',
}
HOSTILE = [
    *NAMES, *DIGEST_NAMES, '/', '//', '/etc/passwd', '..\\..', '%', '%%', '%zz', '%2E', '%~', ' ', '\n',
    '\0', 'a\0b', 'nul.', 'x' * 300, '\U0001f995' * 300, '-', '--', '...', '.lock',
    "'; drop table resources; --", '\ufeff', '\u202e', '$(reboot)', '*', '~root', 'status.json',
    'index.sqlite3', 'a%~' + '0' * 32, 'a' * 60 + '%~' + '0' * 32,
]  # fmt: skip
HASHES = {
    '{}': 'b2:2afb9b83f9314e5d029766197f539792',
    '{"a":1}': 'b2:2c6b113b8dd15ffbded9860b43eb0c6c',
    '{"a":1.0}': 'b2:3be59397fc6c1e647b26c8c23b9f91ff',
    '{"a":true}': 'b2:a5a4c7987dc04c4f2634a4da2646f3c5',
    '{"a":0.0}': 'b2:2b91a2251cea623716f398791a706750',
    '{"a":-0.0}': 'b2:0d392880b7bab0e8c1600303bd9cd796',
    '{"x":1e-07,"y":1e+16,"z":0.1}': 'b2:acf22bf9b9dda9c28ac4db782e743303',
    r'{"a":"\n\t\b\u0001/"}': 'b2:f7a51b385ecd49c970d181ab7a751b0b',
    '{"10":"\U0001f995","2":"","a":{"Z":false,"\xe9":"x\\"\\\\ny"},"b":[1,[2,null]],"\uff19":"fullwidth"}': (
        'b2:52842f9d2ebefd730e188703e040a717'
    ),
}


class Colour(enum.Enum):
    RED = 'red'
    PLACE = PurePosixPath('/x')


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042 - the older way, and still the commoner one
    YES = 'yes'


class SubText(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    other: object = None


Pair = namedtuple('Pair', 'a b')


class Spiteful(dict):
    def items(self):
        raise OSError


class Faceless:
    @property
    def __class__(self):
        raise ZeroDivisionError


def brief(value):
    """The id of a case: pytest itself cannot print some of the values."""
    return ascii(value)[:30] if isinstance(value, str) else type(value).__name__


def nested(levels, core=1):
    for _ in range(levels):
        core = [core]
    return core


def itself():
    holder = {'a': []}
    holder['a'].append(holder)
    return holder


texts = st.text(st.characters())  # lone surrogates among them
idents = st.one_of(
    texts.filter(bool),
    st.text('ab.%-~2EF/\xe9 ', min_size=1, max_size=12),
    st.text(st.sampled_from('a%\U0001f995'), min_size=190, max_size=260),
).filter(lambda text: len(text.encode('utf-8', 'surrogatepass')) <= 4096)
leaves = st.sampled_from([0, 1, True, False, 0.0, 1.0, -0.0, None, '', 'a', '1', '\xe9', 2**70])
small = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from('ab1'), inner, max_size=2),
    max_leaves=4,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def is_same(one, other):
    """JSON-equal: of one type (a tuple is a list), and equal throughout; 0.0 is not -0.0."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


def is_utf8(text):
    return not any('\ud800' <= character <= '\udfff' for character in text)


class TestFolderNames:
    @pytest.mark.parametrize(('ident', 'name'), [*NAMES.items(), *DIGEST_NAMES.items()], ids=brief)
    def test_golden(self, ident, name):
        """An ident's folder has the name that perl and b2sum give it, in every release."""

        assert name == folder_name(ident)

    @pytest.mark.parametrize(('ident', 'name'), NAMES.items(), ids=brief)
    def test_golden_back(self, ident, name):
        """An ordinary folder name gives its ident back."""

        assert ident == ident_of_folder(name)

    @pytest.mark.parametrize(('ident', 'name'), DIGEST_NAMES.items(), ids=brief)
    def test_digest_names_need_the_record(self, ident, name):
        """A digest name does not tell its ident, but recognises it."""

        assert ident_of_folder(name) is None
        assert canonical.digest_matches(name, ident)
        for stranger in (ident + 'a', name, '', '\ud800', 5, None, []):
            assert not canonical.digest_matches(name, stranger)
        assert not canonical.digest_matches('plain', 'plain')

    @given(idents)
    def test_any_text_is_refused_or_comes_back(self, ident):
        """Any text is either refused, if UTF-8 cannot hold it, or one legal folder that leads back to it."""
        if not is_utf8(ident):
            with pytest.raises(InvalidIdent, match='is a lone surrogate'):
                folder_name(ident)
            return
        name = folder_name(ident_text(ident))

        assert name.isascii()
        assert 0 < len(name) <= 200
        assert not set(name) & set('/\0 ~') or canonical.digest_matches(name, ident)
        assert name[0] not in '.-'
        assert ident == ident_of_folder(name) or canonical.digest_matches(name, ident)

    @given(st.lists(idents.filter(lambda text: text.isprintable()), unique=True, min_size=2, max_size=8))
    def test_no_two_idents_share_a_name(self, several):
        """Different idents have different folders."""

        assert len(several) == len({folder_name(ident) for ident in several})

    @given(st.text('ab.%-~2EF\xe9 ', min_size=1, max_size=9).filter(lambda name: name not in ('.', '..')))
    def test_any_folder_is_found_again(self, name):
        """Whatever a folder is called, a fetch of its ident looks into that folder."""
        ident = ident_of_folder(name)

        assert name in (folder_name(ident), canonical.raw_folder_name(ident))

    def test_hostile_idents_are_folders_of_their_own(self, tmp_path):
        """Hostile idents make one folder each, inside their collection, and are read back from there."""
        (tmp_path / 'coll').mkdir()
        for ident in HOSTILE:
            (tmp_path / 'coll' / folder_name(ident)).mkdir()
        found = {name: ident_of_folder(name) for name in os.listdir(tmp_path / 'coll')}

        assert os.listdir(tmp_path) == ['coll']
        assert len(HOSTILE) == len(found)
        assert all(folder_name(ident) in found for ident in HOSTILE)
        assert {i for i in HOSTILE if '%~' not in folder_name(i)} == {
            i for i in found.values() if i is not None
        }

    @pytest.mark.parametrize(
        'name', ['a b', '%zz', '%2f', '%41', '.x', '-rf', '%C3', '%ED%A0%80', 'a%', '\xe9', 'a' * 201]
    )
    def test_names_that_are_not_ours_are_their_own_ident(self, name):
        """A folder named as our rule never names one was made by 0.0.2 or by hand, and is its own ident."""

        assert name == ident_of_folder(name)
        assert name == canonical.raw_folder_name(name)

    @pytest.mark.parametrize(
        'ident', ['abc', 'a/b', 'a\0', '.', '..', 'a%20b', '%2E', 'a' * 256, 'a' * 60 + '%~' + '0' * 32]
    )
    def test_no_raw_name(self, ident):
        """There is no raw name where it equals ours, is not one component, or is another ident's folder."""

        assert canonical.raw_folder_name(ident) is None

    def test_a_name_that_is_not_utf8_is_refused(self):
        """A folder whose name is not UTF-8 is refused, and the message says to rename it."""
        with pytest.raises(
            InvalidIdent, match=r"^the folder name 'caf\\udce9' is not UTF-8.*rename the folder"
        ):
            ident_of_folder(os.fsdecode(b'caf\xe9'))


class TestIdents:
    @pytest.mark.parametrize(
        ('given', 'text'),
        [('a', 'a'), (5, '5'), (-5, '-5'), (10**4000, '1' + '0' * 4000), (Level.HIGH, '3'), (Word.YES, 'yes'),
         (SubText('t'), 't'), ('\xe9' * 2048, '\xe9' * 2048)],
    )  # fmt: skip
    def test_accepted(self, given, text):
        """A str is its text and an int its digits, subclasses included; the answer is an exact str."""

        assert text == ident_text(given)
        assert type(ident_text(given)) is str

    @pytest.mark.parametrize(
        ('given', 'message'),
        [
            ('', "the ident of collection 'coll' is empty (give it at least one character)"),
            (SubText(), 'is empty'),
            (True, "is the bool True (write 'True' or 1, whichever is meant)"),
            (b'a', 'is of type bytes, not str or int (decode it)'),
            (1.5, 'is of type float, not str or int (convert it with str() or int())'),
            (None, 'is of type NoneType, not str or int'),
            (Decimal(1), 'is of type decimal.Decimal, not str or int'),
            (
                'a' * 4097,
                f"'{'a' * 59}…' takes 4097 bytes of UTF-8, and 4096 are allowed (use a shorter one, and",
            ),
            ('\xe9' * 2049, 'takes 4098 bytes of UTF-8'),
            (10**5000, 'takes 4215 bytes of UTF-8'),
            (
                'ab\ud800',
                r"'ab\ud800' is not UTF-8: character 2 is a lone surrogate, '\ud800' (decode it with",
            ),
        ],
        ids=brief,
    )
    def test_refused(self, given, message):
        """What cannot be an ident is refused with what, where and how to mend it, and the error holds it."""
        with pytest.raises(InvalidIdent) as caught:
            ident_text(given, 'coll')

        assert message in str(caught.value)
        assert ('coll', given) == (caught.value.collection, caught.value.ident)

    @pytest.mark.parametrize('given', ['', 'a' * 4097, '\ud800'])
    def test_folder_name_checks_too(self, given):
        """No folder is ever named by a text that is no ident: '' would be the collection itself."""
        with pytest.raises(InvalidIdent):
            folder_name(given)

    def test_collections(self):
        """Collection names follow the rule of idents."""

        assert [canonical.collection_folder(name) for name in ('coll', 5, 'a/b')] == ['coll', '5', 'a%2Fb']
        with pytest.raises(InvalidIdent, match=r'^the collection name is empty'):
            canonical.collection_folder('')

    @pytest.mark.parametrize('name', [*sorted(canonical.RESERVED), 'INDEX.sqlite3', '.Hadrosaur'])
    def test_reserved_collections(self, name):
        """The project's own names at the base are refused as collections, in any case of letters."""
        with pytest.raises(InvalidIdent, match=f"'{name}' is kept for the project itself"):
            canonical.collection_folder(name)

    def test_which_are_reserved(self):
        """The index with its companions, and the project's own folder, are reserved."""
        index = 'index.sqlite3'

        assert {index, f'{index}-wal', f'{index}-shm', f'{index}-journal', '.hadrosaur'} == canonical.RESERVED


class TestArgs:
    @pytest.mark.parametrize(('text', 'digest'), HASHES.items(), ids=brief)
    def test_golden(self, text, digest):
        """The canonical text and its hash are what jq and b2sum give, in every release."""
        args = json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))

        assert text == args_json(args)
        assert digest == args_hash(text)

    def test_none_is_empty(self):
        """No args are the empty object."""

        assert '{}' == args_json(None) == args_json({})

    @given(*[st.dictionaries(st.sampled_from('ab'), small, max_size=2)] * 2)
    def test_hashes_are_equal_where_args_are(self, one, other):
        """Two args have one hash if and only if they are equal as JSON."""

        assert is_same(one, other) == (args_hash(args_json(one)) == args_hash(args_json(other)))

    @given(st.dictionaries(texts, json_values, max_size=4))
    def test_args_come_back(self, args):
        """JSON gives back what went in; only text that is not UTF-8 is refused."""
        if is_utf8(json.dumps(args, ensure_ascii=False)):
            assert is_same(args, json.loads(args_json(args)))
        else:
            with pytest.raises(InvalidArgs, match='a lone surrogate'):
                args_json(args)

    def test_subclasses_are_what_they_hold(self):
        """A value of a subclass counts as its plain value, a tuple as a list, in any order of keys."""
        odd = OrderedDict(w=Word.YES, t=(1, (2,)), s=SubText('x'), p=Pair(1, 2), i=Level.HIGH)

        assert args_json(odd) == '{"i":3,"p":[1,2],"s":"x","t":[1,[2]],"w":"yes"}'

    @pytest.mark.parametrize(
        ('args', 'fault'),
        [
            ([1], 'they are of type list, not a dict'),
            ('{}', 'they are of type str, not a dict'),
            ({'a': [0, 1, 2, {'b': nan}]}, '$.a[3].b is NaN'),
            ({'a': -inf}, '$.a is -Infinity'),
            ({1: 2}, '$ has a key that is of type int, not str'),
            ({'b': 1, None: 2}, '$ has a key that is of type NoneType'),
            ({'a': [{SubText('b'): 1}]}, f'$.a[0] has a key that is of type {SubText.__module__}.SubText'),
            ({'a b': {'"': {1}}}, '$["a b"]["\\""] is of type set'),
            ({'a': b''}, '$.a is of type bytes'),
            ({'a': Decimal(1)}, '$.a is of type decimal.Decimal'),
            ({'a': Point(1)}, 'Point'),
            ({'a': '\ud800'}, "$.a holds a lone surrogate, '\\ud800', which is not UTF-8"),
            ({'\udfff': 1}, "$ has a key with a lone surrogate, '\\udfff'"),
            ({'a': 10**5000}, '$.a is an int with too many digits'),
            ({'a': nested(200)}, 'is nested deeper than 200 levels'),
            (itself(), '$.a[0] contains itself'),
            (Spiteful(a=1), '$ raised OSError when it was read'),
        ],
        ids=brief,
    )
    def test_refused(self, args, fault):
        """Args that JSON does not hold exactly are refused with the JSON path, the resource and a hint."""
        with pytest.raises(InvalidArgs) as caught:
            args_json(args, 'coll', 'id')

        assert fault in caught.value.message
        assert caught.value.message.startswith("the args of 'coll/id' cannot be used: ")
        assert 'args hold text, numbers' in caught.value.hint
        assert (caught.value.collection, caught.value.ident) == ('coll', 'id')


class TestResults:
    @pytest.mark.parametrize(
        ('value', 'written'),
        [
            ({'ts': 1.0, 'b': None, 'a': '\xe9'}, '{"ts": 1.0, "b": null, "a": "\xe9"}'),
            (5, '5'),
            ((1, Pair(2, [])), '[1, [2, []]]'),
            ({1: 'a', 1.5: 'b', None: 'c'}, '{"1": "a", "1.5": "b", "null": "c"}'),
            ({True: 1, Level.HIGH: 2, Word.YES: 3}, '{"true": 1, "3": 2, "yes": 3}'),
            ({date(2020, 1, 2): 4}, '{"2020-01-02": 4}'),
            ({'\ud800': ['\udfff', '\xe9']}, '{"\\ud800": ["\\udfff", "\xe9"]}'),
            ([Colour.RED, Colour.PLACE, Level.HIGH, Word.YES], '["red", "/x", 3, "yes"]'),
            (Point(1, Point(2)), '{"x": 1, "other": {"x": 2, "other": null}}'),
            ([UUID(int=5)], '["00000000-0000-0000-0000-000000000005"]'),
            ([datetime(2020, 1, 2, tzinfo=UTC), time(3, 4)], '["2020-01-02T00:00:00+00:00", "03:04:00"]'),
            ([timedelta(milliseconds=1500), Decimal('1.10')], '[1.5, "1.10"]'),
            ([10**400, SubText('a'), True], f'[{10**400}, "a", true]'),
            (nested(200), '[' * 200 + '1' + ']' * 200),
            ([[[]]] * 2000, json.dumps([[[]]] * 2000)),
            ([Pair(Word.YES, 1)] * 2, '[["yes", 1], ["yes", 1]]'),
        ],
        ids=brief,
    )  # fmt: skip
    def test_written(self, value, written):
        """result.json is standard JSON with a newline, and holds what the table of conversions says."""

        assert (written + '\n').encode() == result_json(value)

    @given(json_values)
    def test_plain_values_come_back(self, value):
        """A value that JSON holds is written as the json module does, and read back the same."""
        written = result_json(value)

        assert written.endswith(b'\n')
        assert is_same(json.loads(json.dumps(value)), json.loads(written))

    @pytest.mark.parametrize(
        ('value', 'fault'),
        [
            ({'loss': nan}, '$.loss is NaN'),
            ({'a': [1, {'b c': inf}]}, '$.a[1]["b c"] is Infinity'),
            ([Point(1, nan)], '$[0].other is NaN'),
            ({nan: 1}, '$ has a key that is NaN'),
            (Decimal('NaN'), '$ is NaN'),
            ([Decimal('-Infinity')], '$[0] is -Infinity'),
            ({1: 2, '1': 3}, "$ has two keys that both become '1'"),
            ({'x': {None: 2, 'null': 3}}, "$.x has two keys that both become 'null'"),
            ([*([] for _ in range(2000)), {1: 2, '1': 3}], '$[2000] has two keys'),
            ({(1, 2): 3}, '$ has a key that is of type tuple'),
            (b'', '$ is of type bytes'),
            ([{1}], '$[0] is of type set'),
            ({'a': object()}, '$.a is of type object'),
            (Point, '$ is of type type'),
            (1j, '$ is of type complex'),
            (range(3), '$ is of type range'),
            ([10**5000], '$[0] is an int with too many digits'),
            (itself(), '$.a[0] contains itself'),
            (nested(201), 'is nested deeper than 200 levels'),
            (nested(100_000), 'is nested deeper than 200 levels'),
            (Spiteful(a=1), '$ raised OSError when it was read'),
            ([Faceless()], '$[0] raised ZeroDivisionError when it was read'),
        ],
        ids=brief,
    )
    def test_refused(self, value, fault):
        """A result that JSON does not hold ends in an error with the JSON path, the reason and a hint."""
        with pytest.raises(ResultNotSerializable) as caught:
            result_json(value, 'coll', 'id')

        assert fault in caught.value.message
        assert caught.value.message.startswith("the result of 'coll/id' is not JSON: $")
        assert 'write the rest to files' in caught.value.hint
        assert (caught.value.collection, caught.value.ident) == ('coll', 'id')

    def test_circles_that_double_end_too(self):
        """A list or dataclass that holds itself is refused, even where each level has twice as many."""
        point, doubling = Point(1), []
        point.other = point
        doubling += [doubling, doubling]
        for circle in (point, doubling):
            with pytest.raises(ResultNotSerializable, match='contains itself'):
                result_json(circle)

    def test_little_stack(self):
        """Where the stack has little left, a nested result is refused with that reason."""

        def far_down(frames):
            return far_down(frames - 1) if frames else result_json(nested(150, core=Level.HIGH))

        frame, depth = sys._getframe(), 0
        while frame:
            frame, depth = frame.f_back, depth + 1
        with pytest.raises(
            ResultNotSerializable, match=r'\$ is nested too deep for what is left of the stack'
        ):
            far_down(sys.getrecursionlimit() - depth - 100)

    def test_numpy_is_known_without_importing_it(self, monkeypatch):
        """What belongs to numpy, where that was imported, is converted by its tolist, NaN inside refused."""

        class Array(list):
            dtype, tolist = SimpleNamespace(kind='f'), lambda self: list(self)

        monkeypatch.setitem(sys.modules, 'numpy', SimpleNamespace(ndarray=Array, generic=()))

        assert result_json({'a': Array([1.5, 2])}) == b'{"a": [1.5, 2]}\n'
        with pytest.raises(ResultNotSerializable, match=r'\$\.a\[1\] is NaN'):
            result_json({'a': Array([1.5, nan])})

    def test_numpy_itself(self):
        """The real numpy's scalars and arrays become Python's values, times by way of datetime."""
        np = pytest.importorskip('numpy')
        scalars = [np.float32(0.5), np.int64(3), np.bool_(True), np.str_('x'), np.timedelta64(5, 's')]
        arrays = [np.array([[1, 2], [3, 4]]), np.array(5), np.array(['2020-01-01'], 'M8[ns]')]

        assert result_json(scalars) == b'[0.5, 3, true, "x", 5.0]\n'
        assert result_json(arrays) == b'[[[1, 2], [3, 4]], 5, ["2020-01-01T00:00:00"]]\n'
        assert result_json({np.int64(3): 4}) == b'{"3": 4}\n'
        for bad, reason in [
            (np.array([[1, nan]]), r'\$\[0\]\[1\] is NaN'),
            (np.float64(inf), r'\$ is Infinity'),
            (np.datetime64('NaT'), r'\$ is NaT'),
            (np.array(['NaT'], 'M8[s]'), r'\$ holds NaT'),
            (np.longdouble(1), r'\$ is of type numpy\.longdouble'),
            (np.array([1j]), r'\$\[0\] is of type complex'),
        ]:
            with pytest.raises(ResultNotSerializable, match=reason):
                result_json(bad)

    def test_failures_of_one_kind_are_one_group(self):
        """The message names the resource in quotes, so that failures are grouped whatever their ident."""
        from hadrosaur.fingerprint import mask

        masked = set()
        for ident in ('alice', 'bob 7', "d'Arc"):
            with pytest.raises(ResultNotSerializable) as caught:
                result_json(nan, 'coll', ident)
            masked.add(mask(str(caught.value)))

        assert len(masked) == 1
