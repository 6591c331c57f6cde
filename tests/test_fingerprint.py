"""Failures with one cause have one fingerprint, and describing a failure never fails.

The golden fingerprints were made without Python: ``printf 'TYPE\\0PATTERN\\0FRAME' | b2sum -l 64``.
"""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hadrosaur
from hadrosaur.errors import Interrupted, ResultNotSerializable
from hadrosaur.fingerprint import fingerprint, mask, summary, type_name, user_frame

GOLDEN = [
    ('88cd9263d73b9a1e', 'ValueError', "could not convert string to float: 'abc'", 'proj/job.py:load'),
    ('27e7b4d173727809', 'KeyError', "'user 17'", None),
    ('58fbaefc217e83c0', 'OSError', "[Errno 2] No such file or directory: '/tmp/x'", None),
    ('7d1d81030c24fbb9', 'ValueError', '', ''),
    (
        '57c9aba9ea1f1fdc',
        'requests.exceptions.HTTPError',
        '404 Client Error for url: https://example.org/p?id=5',
        'etl/fetch.py:Page.get',
    ),
]
PATTERNS = {
    'list index out of range': 'list index out of range',
    "KeyError: 'a b'": 'KeyError: <text>',
    """"it's" and 'say "x"' and `z` and b'\\'' """: '<text> and <text> and <text> and <text>',
    "can't read the users' list, don't ask": "can't read the users' list, don't ask",
    "a name never closed: 'abc def": 'a name never closed: <text>',
    'x = -1.5e-3, y=+3 of 1,234.5': 'x = <n>, y=<n> of <n>',
    'item_17 of uniq_ident123, utf8': 'item_<n> of uniq_ident<n>, utf<n>',
    'at 2024-01-02T03:04:05Z from 10.0.0.1:8080': 'at <n>-<n>-<n>T<n>:<n>:<n>Z from <n>:<n>',
    '<Foo object at 0x7f00AB>': '<Foo object at <hex>>',
    'no 123e4567-e89b-12d3-a456-426614174000 here': 'no <uuid> here',
    'commit 3fa9c2d1e, 12345678, tmp_3fa9c2d1 deadbeef:1': 'commit <n>, …, tmp_<n> deadbeef:<n>',
    'open /etc/passwd: no, ~/x, ./y and data/raw/x.csv': 'open <path>: no, <path>, … and <path>',
    'read/write of a.txt/b.txt, 3/4 km/h': 'read/write of <path>, <n>/<n> km/h',
    'GET https://example.org/a?b=1 failed': 'GET <url> failed',
    'shapes (3,4) (2, 3, 4) differ': 'shapes (<n>) (<n>, …) differ',
    "missing columns ['a', 'b', 'c']": 'missing columns [<text>, …]',
    '\n  first   line 1\nsecond line': 'first line <n>',
    'invalid syntax (crlf.py, line 12)': 'invalid syntax (<path>, line <n>)',
    'no such rule (see notes, line 12)': 'no such rule (see notes, line <n>)',
    'red \x1b[31m \ud800 x': 'red \ufffd[<n>m \ufffd x',
}


class Odd(Exception):
    def __init__(self, result):
        self.result = result

    def __str__(self):
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class SubText(str):
    def split(self, *_):
        raise OSError


def traceback_of(function):
    """The traceback of a function that raises, from this frame on."""
    try:
        function()
    except Exception as error:
        return error.__traceback__
    raise AssertionError('it did not raise')


def raising_in(path, source='def run():\n    1 / 0\n'):
    """A function `run` that raises, compiled as if from a file."""
    namespace = {}
    exec(compile(source, str(path), 'exec'), namespace)
    return namespace['run']


class TestFingerprints:
    @pytest.mark.parametrize(('digits', 'kind', 'message', 'frame'), GOLDEN)
    def test_golden(self, digits, kind, message, frame):
        """A cause has the fingerprint that b2sum gives its type, pattern and frame, in every release."""

        assert f'f1:{digits}' == fingerprint(kind, message, frame)

    def test_what_is_one_cause(self):
        """Failures that differ in numbers, names and files have one fingerprint."""
        causes = {fingerprint('E', f'item {n}: no /tmp/{n}/x in {str(n)!r}', 'a/b.py:f') for n in range(50)}

        assert len(causes) == 1

    def test_what_are_different_causes(self):
        """Another type, another wording or another place is another cause; no part runs into the next."""
        causes = [
            ('E', 'm', 'f'),
            ('F', 'm', 'f'),
            ('E', 'n', 'f'),
            ('E', 'm', 'g'),
            ('E', 'mf', None),
            ('Em', '', 'f'),
        ]

        assert len(causes) == len({fingerprint(*cause) for cause in causes})

    def test_what_is_cut_leaves_the_cause(self):
        """A value too long for a summary does not split the group: the message is cut in its middle."""
        causes = {
            fingerprint('E', summary(Exception(f"cannot parse '{'x y ' * n}' as a number")), None)
            for n in (1, 60, 70, 80, 500)
        }

        assert len(causes) == 1


class TestPatterns:
    @pytest.mark.parametrize(('message', 'pattern'), PATTERNS.items())
    def test_what_is_masked(self, message, pattern):
        """Numbers, quoted text, paths, addresses and ids are masked, words are not."""

        assert pattern == mask(message)

    @given(st.text(st.characters()) | st.text("""a1'"`\\/.~-:,<> 0xef""", max_size=700))
    @example('/' * 10_000_000)
    @example(" '" * 1_000_000)
    def test_any_message_has_a_pattern(self, message):
        """Whatever the message, its pattern is one line of text that UTF-8 holds, and the same each time."""
        pattern = mask(message)

        assert pattern == mask(message)
        assert len(pattern) <= 2000
        assert len(pattern.splitlines()) <= 1
        assert not re.search('[0-9]', pattern)
        pattern.encode()

    @given(st.integers(0, 10**12), st.integers(0, 10**12))
    def test_numbers_of_any_size_are_one(self, one, other):
        """A number with eight digits looks like hex and is still a number."""

        assert mask(f'row {one}') == mask(f'row {other}') == 'row <n>'


class TestPlaces:
    def test_the_users_own_innermost_frame(self):
        """The place is the user's own innermost function, even where a library of Python's raised."""

        def load():
            return json.loads('{')

        assert user_frame(traceback_of(load)) == (
            'tests/test_fingerprint.py:TestPlaces.test_the_users_own_innermost_frame.<locals>.load'
        )

    def test_lines_do_not_count(self):
        """Lines added above a function leave its place as it is; the path is cut to two components."""
        places = {
            user_frame(traceback_of(raising_in('/home/me/proj/job.py', '\n' * lines + 'def run():\n 1/0\n')))
            for lines in (0, 7)
        }

        assert places == {'proj/job.py:run'}

    @pytest.mark.parametrize(
        'library',
        [
            '/v/lib/python3.11/site-packages/np/core.py',
            '/usr/lib/python3/dist-packages/np/core.py',
            json.__file__,
        ],
    )
    def test_libraries_are_passed_over(self, library):
        """A frame in an installed package or the standard library is not the user's."""
        inner = raising_in(library)

        assert user_frame(traceback_of(lambda: inner())).endswith(
            'test_libraries_are_passed_over.<locals>.<lambda>'
        )

    def test_the_innermost_outside_hadrosaur_where_none_is_the_users(self):
        """Without a frame of the user's the innermost library frame counts, and never one of hadrosaur's."""
        own = Path(hadrosaur.__file__).with_name('compute.py')
        library = raising_in('/v/site-packages/np/core.py').__code__
        frames = traceback_of(raising_in('/v/site-packages/np/core.py')).tb_next

        assert user_frame(frames) == f'np/core.py:{library.co_qualname}'
        assert user_frame(traceback_of(raising_in(own)).tb_next) is None
        assert user_frame(None) is None

    @pytest.mark.parametrize('path', ['/tmp/ipykernel_1234/567.py', '<ipython-input-5-abc>'])
    def test_notebooks(self, path):
        """The cells of a notebook, whose file names change with each kernel, are one place."""

        assert user_frame(traceback_of(raising_in(path))) == '<notebook>:run'

    def test_comprehensions_are_their_function(self):
        """A list comprehension, a frame of its own before Python 3.12, is the function that holds it."""
        source = 'def run():\n    return [[1 / 0 for _ in "a"] for _ in "a"]\n'

        assert user_frame(traceback_of(raising_in('/a/b/c.py', source))) == 'b/c.py:run'
        with pytest.raises(ZeroDivisionError) as caught:
            raising_in('/a/b/c.py', '[1 / 0 for _ in "a"]')
        assert user_frame(caught.tb) == 'b/c.py:<module>'


class TestDescriptions:
    @pytest.mark.parametrize(
        ('error', 'line'),
        [
            (ValueError('plain'), 'plain'),
            (ValueError(), ''),
            (KeyError('a'), "'a'"),
            (ValueError('two\nlines\tand\r\n more \u2028 '), 'two lines and more'),
            (ValueError('\x1b[31m\0\x9b \ud800 \u202egnp'), '\ufffd[31m\ufffd\ufffd \ufffd \ufffdgnp'),
            (ValueError('caf\xe9 \U0001f995'), 'caf\xe9 \U0001f995'),
            (Odd(ValueError('x')), '<message unavailable: __str__ raised ValueError>'),
            (Odd(SystemExit()), '<message unavailable: __str__ raised SystemExit>'),
            (Odd(5), '<message unavailable: __str__ raised TypeError>'),
            (Odd(SubText('a  b')), 'a b'),
            (ValueError('a' * 300), 'a' * 300),
            (ValueError('a' * 200 + 'b' * 101), 'a' * 197 + ' … ' + 'b' * 100),
            (ValueError('a' * 10_000_000 + 'z'), 'a' * 197 + ' … ' + 'a' * 99 + 'z'),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_summaries(self, error, line):
        """A summary is one printable line of at most 300 characters, whatever the exception does."""

        assert line == summary(error)

    @given(st.text(st.characters(), max_size=700))
    def test_any_message_has_a_summary(self, message):
        """Whatever the message, its summary is one short line that UTF-8 holds."""
        line = summary(Exception(message))

        assert len(line) <= 300
        assert len(line.splitlines()) <= 1
        line.encode()

    def test_type_names(self):
        """Builtins and hadrosaur's own errors go by their bare name, others by module and qualified name."""
        nameless = type('No\nname', (Exception,), {'__module__': None})

        assert type_name(ValueError()) == 'ValueError'
        assert type_name(Interrupted()) == 'Interrupted'
        assert type_name(json.JSONDecodeError('', '', 0)) == 'json.decoder.JSONDecodeError'
        assert type_name(Odd('')) == f'{__name__}.Odd'
        assert type_name(nameless()) == 'No name'

    def test_endless_recursion(self):
        """A failure from endless recursion is described like any other."""

        def deeper():
            deeper()

        with pytest.raises(RecursionError) as caught:
            deeper()

        assert user_frame(caught.tb).endswith('deeper')
        assert summary(caught.value).startswith('maximum recursion depth')


def test_a_summary_leaves_the_advice_out():
    """What to do next is for error.log; a table of failures says what happened."""
    error = ResultNotSerializable('the result is not JSON: $.loss is NaN', hint='return text, numbers, …')

    assert summary(error) == 'the result is not JSON: $.loss is NaN'
