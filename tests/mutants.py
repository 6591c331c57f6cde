"""Break the package in one line, and see that a named test notices: ``make mutants``.

    python tests/mutants.py [WORD …]

A test that never failed proves nothing. For each mutant below the checkout is copied into a temporary
folder, one line is changed there, and the named test runs against the copy, which is first on PYTHONPATH, so
that every program a test starts imports the copy too. The test must fail; one that hangs counts as failed.
Before that, all named tests must pass without a mutant. With words, only mutants whose description holds one
of them are tried. Exit code 1 if a mutant survived, or if any of this could not be shown. That each fits
the code is seen in every run of the tests, by ``tests/test_mutants_fit.py``.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    'hadrosaur', 'migrations', 'tests', 'examples', 'docs', 'benchmarks', 'pyproject.toml', 'alembic.ini',
    'Makefile', 'constraints.txt', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE',
)  # fmt: skip
LEAST = 3.0  # seconds that a test gets with a mutant, and
TIMES = 4.0  # so many times what it took without one
LONGEST = 60  # seconds for a test when nothing is broken
GRACE = 5  # seconds for pytest itself, and again to clean up once it was told to stop


class Mutant(NamedTuple):
    """One line of the package, broken."""

    broken: str  # in plain words
    file: str
    old: str  # stands in the file exactly once
    new: str
    test: str  # the node id, below tests/, that must fail


FETCH, TRUTH, MANY = 'test_documented_fetch.py::', 'test_directory_truth.py::', 'test_fetch_many.py::'
ROWS_MANY = 'test_many_rows.py::test_'
INDEX, OPENING, QUERY = 'test_index.py::test_', 'test_index_opening.py::test_', 'test_query.py::test_'
CHECK, CONTRACT = 'test_check.py::test_', 'contracts/test_executor_contract.py::test_'
NOT_STARTED, DISK, ONE_VALUE, OWN = (
    'test_not_started.py::test_',
    'test_failing_disk.py::test_',
    'test_one_value.py::test_',
    'test_own_files.py::test_',
)
FAULTS = 'test_index_faults.py::test_'
NOTES, WHOSE = 'test_notes_of_ours.py::test_', 'test_whose_index.py::test_'
TOOLS = 'test_cli_tools.py::test_'
ALIKE, ASKED = 'test_fetching_alike.py::test_', 'test_what_was_asked_for.py::test_'
ROWS = 'test_rows_are_best_effort.py::test_'
POWER = 'torture/p5_power.py::test_what_a_power_cut_leaves'
HARD, LOCKFILE = 'test_hard_times.py::test_', 'test_lock_files.py::test_'
LAST = 'test_last_words.py::test_'
SYNCED = 'test_what_is_synced.py::test_'
SIBLINGS = 'test_siblings.py::test_what_a_function_leaves_behind_does_not_reach_the_next'
FILTER = f'{QUERY}filters_give_what_python_gives'
FINDING = f'{CHECK}each_way_to_disagree_is_found'

AS_INLINE = 'torture/p21_siblings.py::test_a_function_finds_what_it_finds_inline'
NOTEBOOKS = 'test_notebooks.py::test_'
MEMORY = 'contracts/test_memory_limit.py::test_'
LIMITS = 'contracts/test_at_once_and_rate.py::test_'
SETUP = 'contracts/test_setup.py::test_'
HOSTILE = 'test_hostile_archives.py::test_what_is_hostile_is_refused'
INLINE_CANCEL = 'test_cancel_inline.py::test_'

G = 'test_one_group_of_failures.py'
R = 'test_results_as_columns.py::'

SAFE, SHOWS = 'test_page_is_safe.py::test_', 'test_page_shows.py::test_'
LIVE = 'test_page_is_live.py::test_'
REPORT = 'test_report.py::test_'
PAGE_ATTACKS = 'torture/p22_page.py::test_'
TOP = 'test_top.py::test_'
TABLES = 'test_notebook_tables.py::test_'

API = 'test_public_api.py::test_'

MUTANTS = {
    'requests that mean ill': [
        Mutant(
            'requests: open pages are cut off when the server ends',
            'web/serving.py',
            'self._end_streams()\n',
            'pass\n',
            f'{LIVE}an_open_page_does_not_keep_the_server_from_ending',
        ),
        Mutant(
            'requests: a browser may guess what a file is',
            'web/security.py',
            "'x-content-type-options': 'nosniff',",
            '',
            f'{PAGE_ATTACKS}requests',
        ),
        Mutant(
            'requests: a form may come from nowhere',
            'web/security.py',
            '(is_change and not origins)',
            '(is_change and False)',
            f'{PAGE_ATTACKS}nothing_changes_for_who_may_not',
        ),
        Mutant(
            'requests: a time before the calendar is a fault of ours',
            'filters.py',
            'except OverflowError:',
            'except ZeroDivisionError:',
            f'{SHOWS}what_is_not_there_is_said[/c/thumbs?since=99999999999d-400]',
        ),
        Mutant(
            'requests: a chart takes any time',
            'web/pages.py',
            'found is None or 0 <= found < LAST',
            'True',
            f'{SHOWS}a_row_of_another_world_is_shown[finished_at-9999-12-31T23:59:59.999999Z]',
        ),
    ],
    'tables in notebooks': [
        Mutant(
            'notebooks: a cell keeps what turns the direction of writing',
            'sanitize.py',
            "text = printable(text if len(text) <= LONGEST else text[: LONGEST - 1] + '…')",
            "text = text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'",
            f'{TABLES}a_table_is_escaped_and_bounded[query]',
        ),
        Mutant(
            'notebooks: all causes are listed',
            'records.py',
            'for each in self[:MOST_ROWS]',
            'for each in self',
            f'{TABLES}a_query_and_its_causes_say_how_many_there_are',
        ),
        Mutant(
            'notebooks: a project whose index is gone raises',
            'project/__init__.py',
            'except (HadrosaurError, OSError) as error:\n            return html_table(',
            'except ZeroDivisionError as error:\n            return html_table(',
            f'{TABLES}what_is_gone_is_shown_as_far_as_it_is_known',
        ),
    ],
    'top': [
        Mutant(
            'top: the terminal is left without lines',
            'cli/top.py',
            'termios.tcsetattr(fd, termios.TCSADRAIN, before)',
            'pass',
            f'{TOP}it_leaves_the_terminal_as_it_was',
        ),
        Mutant(
            'top: it draws on the screen of the shell',
            'cli/top.py',
            'screen=True, auto_refresh',
            'screen=False, auto_refresh',
            f'{TOP}it_leaves_the_terminal_as_it_was',
        ),
        Mutant(
            'top: all that runs is listed, whatever the room',
            'cli/top.py',
            'running = view.running[: max(1, left - 1)]',
            'running = view.running',
            f'{TOP}a_frame_fits_into_the_terminal[80-24]',
        ),
    ],
    'the report': [
        Mutant(
            'report: forms stay in it',
            'web/report.py',
            "_FORM.sub('', html[start:])",
            'html[start:]',
            f'{REPORT}nothing_is_fetched_and_nothing_runs',
        ),
        Mutant(
            'report: links lead out of it',
            'web/report.py',
            'if found[1] in links else',
            'if True else',
            f'{REPORT}links_of_a_report_lead_to_a_place_in_it',
        ),
        Mutant(
            'report: the policy names another style',
            'web/report.py',
            'sha256(style.encode())',
            'sha256(style.strip().encode())',
            f'{REPORT}nothing_is_fetched_and_nothing_runs',
        ),
        Mutant(
            'report: half a file takes the place of the one before',
            'cli/web.py',
            "with open(part, 'xb') as file:",
            "with open(path, 'wb') as file:",
            f'{REPORT}the_command_writes_a_whole_file_or_none',
        ),
    ],
    'public API': [
        Mutant(
            'api: a wait for a batch never times out',
            'engine/batch.py',
            'if time.monotonic() >= self._deadline:',
            'if False:',
            f'{API}waiting_for_a_batch_can_time_out',
        ),
        Mutant(
            'api: a cancel is waited for by nobody',
            'project/in_flight.py',
            'if left <= 0:',
            'if left <= 1e9:',
            f'{API}a_cancel_can_be_waited_for',
        ),
        Mutant(
            'api: text is many idents',
            'engine/_items.py',
            'if isinstance(idents, (str, bytes, Entry, Resource)):',
            'if isinstance(idents, (Entry, Resource)):',
            f'{API}what_is_no_iterable_of_idents_is_refused_at_the_call[moby]',
        ),
        Mutant(
            'api: a copy of a project that was opened to read makes its base',
            'project/indexed.py',
            'if not self._computes:\n            reindex.require_project(self._base)',
            'if False:\n            reindex.require_project(self._base)',
            f'{API}opened_to_read_stays_so_through_pickling',
        ),
        Mutant(
            'api: a version is asked for as a number',
            'index/_filters.py',
            'str(version) if type(version) is int else version for version in versions',
            'version for version in versions',
            f'{API}rows_are_found_by_phase_host_version_and_attempt',
        ),
        Mutant(
            'api: an example in the help is too long for a terminal',
            'cli/stale.py',
            '  hadrosaur run jobs:proj --stale          recompute',
            '  hadrosaur run jobs:proj --stale               recompute',
            'test_cli.py::test_help_fits_a_terminal_of_80_columns[stale]',
        ),
    ],
    'the page': [
        Mutant(
            'page: any name is taken for ours',
            'web/security.py',
            'if len(hosts) != 1 or not self._is_ours(hosts[0]):',
            'if False:',
            f'{SAFE}another_host_is_refused[evil.example]',
        ),
        Mutant(
            'page: another site may ask',
            'web/security.py',
            'if (origins and origins != [',
            'if (False and origins != [',
            f'{SAFE}another_site_is_refused',
        ),
        Mutant(
            'page: any token will do',
            'web/security.py',
            "return hmac.compare_digest(text.encode('utf-8', 'surrogatepass'), self._token.encode())",
            'return True',
            f'{SAFE}the_token_is_handed_over_once_and_kept_in_a_cookie',
        ),
        Mutant(
            'page: a stored file is shown as if it were ours',
            'web/server.py',
            "'content-security-policy': SANDBOX,\n        }",
            '}',
            f'{SAFE}stored_files_run_nothing',
        ),
        Mutant(
            'page: a client that does not read keeps the server from ending',
            'web/serving.py',
            '                transport.abort()',
            '                pass',
            'test_page_is_live.py::test_a_download_that_stands_still_does_not_keep_the_server_from_ending',
        ),
        Mutant(
            'page: a file stays open that nobody takes a byte of',
            'web/server.py',
            '    next(chunks)\n',
            '',
            f'{SAFE}who_goes_before_the_first_byte_leaves_no_file_open[/log/thumbs/img-003/stdout]',
        ),
        Mutant(
            'page: dots lead out of a storage',
            'web/files.py',
            "name in ('', '.', '..') or '/' in name or",
            'False or',
            f'{SAFE}nothing_beside_the_base_is_read[/file/thumbs/img-003/..%2F..%2F..%2F..%2Fsecret.txt]',
        ),
        Mutant(
            'page: a page of rows begins with the last one of the page before',
            'index/_statements.py',
            'tuple_(ROW.collection, ROW.ident) > tuple_(',
            'tuple_(ROW.collection, ROW.ident) >= tuple_(',
            f'{SHOWS}pages_follow_each_other_by_key[ident]',
        ),
        Mutant(
            'page: the ident x.json asks for the data of x',
            'web/addresses.py',
            'if quoted.endswith(TWIN) else quoted',
            'if False else quoted',
            f'{SHOWS}any_ident_has_an_address[x.json]',
        ),
        Mutant(
            'page: text is not escaped',
            'web/render.py',
            'autoescape=True',
            'autoescape=False',
            f'{SHOWS}any_ident_has_an_address[<script>alert(1)</script>]',
        ),
        Mutant(
            'page: a log is told from its beginning whenever it grows',
            'web/files.py',
            'start = max(start, since[0])',
            'pass',
            f'{LIVE}a_log_is_followed_to_its_end',
        ),
        Mutant(
            'page: what changed while the page came is not told',
            'web/events.py',
            'since or self.mark()',
            'self.mark()',
            f'{LIVE}what_changed_before_the_page_listens_is_told_too',
        ),
        Mutant(
            'page: a result of any length is read for a page',
            'web/resource.py',
            '_without_result(project, name, ident) if is_large else',
            '',
            f'{SHOWS}a_long_result_is_not_read_for_a_page',
        ),
        Mutant(
            'page: why a resource is stale is not told',
            'web/resource.py',
            "found['stale_because'] = project.stale_because(name, ident)",
            'pass',
            f'{SHOWS}what_a_resource_uses_is_linked',
        ),
        Mutant(
            'page: a log whose resource is removed ends with a traceback',
            'web/events.py',
            '            except (HadrosaurError, OSError):  # it was removed',
            '            except ZeroDivisionError:  # it was removed',
            f'{LIVE}a_log_that_is_followed_ends_where_its_resource_is_removed[resource]',
        ),
        Mutant(
            'page: who was cut off hears all of a log again',
            'web/events.py',
            "since = last or params.get('since', '')",
            "since = params.get('since', '')",
            f'{LIVE}who_was_cut_off_hears_the_rest_alone',
        ),
        Mutant(
            'page: what cannot be begun ends whatever is asked for later',
            'web/actions.py',
            'except Exception as error:',
            'except OSError as error:',
            f'{LIVE}what_cannot_be_begun_is_said_on_the_page',
        ),
    ],
    'cancelled inline': [
        Mutant(
            'nobody looks for requests to cancel what runs inline',
            'executors/_inline_cancel.py',
            '    _clock.wind()\n    before',
            '    before',
            f'{INLINE_CANCEL}a_function_that_goes_on_is_interrupted_again',
        ),
        Mutant(
            'the signal that cancels reaches whatever runs after the function',
            'context.py',
            '    _in_worker.remove(running)  # not',
            '    # not',
            f'{INLINE_CANCEL}a_signal_that_comes_too_late_interrupts_nobody',
        ),
        Mutant(
            'what a cancelled function raises instead is an error like any other, and tried again',
            'compute.py',
            'if running.is_unwanted and not isinstance(error, Unwanted):',
            'if False:',
            f'{INLINE_CANCEL}a_function_that_goes_on_is_interrupted_again',
        ),
        Mutant(
            'the part of a cancelled whole is cancelled alone, and the whole goes on',
            'compute.py',
            'isinstance(error, Unwanted) and error.run == job.run',
            'isinstance(error, Unwanted)',
            f'{INLINE_CANCEL}what_is_nested_in_it_ends_with_it',
        ),
        Mutant(
            'the thread that looks for requests is there when a program forks',
            'executors/_inline_cancel.py',
            'os.register_at_fork(before=_clock.rest, ',
            'os.register_at_fork(',
            f'{INLINE_CANCEL}no_thread_looks_where_nothing_runs',
        ),
    ],
    'left behind': [
        Mutant(
            'handlers of real-time signals stay',
            'executors/worker_state.py',
            '- {signal.SIGKILL, signal.SIGSTOP} - _OWN)',
            '- set(range(32, 65)) - {signal.SIGKILL, signal.SIGSTOP})',
            f'{SIBLINGS}[real-time signals]',
        ),
        Mutant(
            'settings of the interpreter stay as a function left them',
            'executors/worker_state.py',
            '            if value != was:',
            '            if False:',
            f'{SIBLINGS}[long numbers]',
        ),
        Mutant(
            'a worker with no descriptor left goes on',
            'executors/worker_state.py',
            '    return most != resource.RLIM_INFINITY and lowest >= most - min(_SPARE, most // 4)',
            '    return False',
            f'{SIBLINGS}[every descriptor]',
        ),
        Mutant(
            'a stream whose methods a function replaced is used again',
            'capture.py',
            'is_plain = vars(self).keys() <= _OWN',
            'is_plain = True',
            f'{SIBLINGS}[stdout patched]',
        ),
    ],
    'workers that leave': [
        Mutant(
            'a worker that leaves writes nothing of what its functions hold',
            'executors/_worker_main.py',
            '    worker.forget_functions()\n',
            '',
            'test_siblings.py::test_what_modules_and_functions_hold_is_finalised',
        ),
        Mutant(
            'a worker that leaves runs no exit handlers',
            'executors/_worker_exit.py',
            '        atexit._run_exitfuncs()\n',
            '',
            'test_siblings.py::test_workers_are_let_go_as_programs_end',
        ),
    ],
    'settings of the interpreter': [
        Mutant(
            'a worker has settings of its own',
            'executors/_worker_main.py',
            '        _settings.take_over(settings)\n',
            '',
            f'{AS_INLINE}[processes]',
        ),
        Mutant(
            'what a worker has taken over is not put back for the next',
            'executors/worker_state.py',
            '        self._note_settings()\n        self._modules.clear()',
            '        self._modules.clear()',
            f'{AS_INLINE}[processes]',
        ),
    ],
    'notebooks': [
        Mutant(
            'echo=True of a notebook prints on the terminal of its server',
            'tee.py',
            'isinstance(stream, io.TextIOWrapper) and stream.fileno()',
            'stream.fileno()',
            f'{NOTEBOOKS}echo_prints_into_the_cell[inline]',
        ),
        Mutant(
            'a stream that ends in descriptor 1 is fed with its own text',
            'fetcher.py',
            "way == 'auto' and needs_streams()",
            'False',
            f'{NOTEBOOKS}what_copies_to_a_file_gets_the_echo_once',
        ),
        Mutant(
            'progress in a notebook is a new output at each change',
            'progress.py',
            '        if self._handle is None:',
            '        if True:',
            f'{NOTEBOOKS}progress_is_one_output_that_stays',
        ),
    ],
    'interrupted batches': [
        Mutant(
            'Ctrl-C in a batch says nothing of how it stands',
            'engine/batch.py',
            'if type(error) is KeyboardInterrupt:',
            'if False:',
            'test_interrupted_batches.py::test_ctrl_c_says_how_it_stands',
        ),
        Mutant(
            'a pipe is told nothing before something ends',
            'engine/batch.py',
            "if tick := getattr(self.progress, 'tick', None):",
            'if tick := None:',
            'test_interrupted_batches.py::test_run_in_a_pipe_says_a_line_now_and_then',
        ),
    ],
    'what runs': [
        Mutant(
            'the last line is that of a bar that was drawn over',
            'activity.py',
            "re.split(r'[\\r\\n]', text)",
            "text.split('\\n')",
            'test_what_runs_now.py::test_ps_says_what_runs',
        ),
        Mutant(
            'a process is signalled though it does not listen',
            'cli/ps.py',
            '        told = ask(pid)\n',
            '        os.kill(pid, 62)\n        told = ask(pid)\n',
            'test_what_runs_now.py::test_no_signal_is_sent_to_a_program_of_the_user',
        ),
        Mutant(
            'what runs in a thread is not told of',
            'executors/threads.py',
            '                self._tell.started(jobs)\n',
            '                pass\n',
            'contracts/test_shown_running.py::test_what_runs_is_shown_as_running',
        ),
        Mutant(
            'a row that runs does not say where',
            'store.py',
            '*(_begun(job) or unknown)',
            '*unknown',
            'contracts/test_shown_running.py::test_what_runs_is_shown_as_running',
        ),
        Mutant(
            'a Client of coroutines is waited for',
            'engine/dispatcher.py',
            "if getattr(executor, '_asynchronous', False) or executor.asynchronous:",
            'if False:',
            'contracts/test_shown_running.py::test_an_asynchronous_client_is_refused_in_a_sentence',
        ),
    ],
    'shown': [
        Mutant(
            'a colour that hides text is passed on',
            'sanitize.py',
            '(?!0*8[;:m])',
            '',
            'test_shown_on_terminals.py::test_a_log_on_a_terminal_can_do_no_harm',
        ),
        Mutant(
            'a log on a terminal is passed on as it is',
            'cli/show.py',
            'raw=raw or not output.is_terminal()',
            'raw=True',
            'test_shown_on_terminals.py::test_logs_are_harmless_on_a_terminal_and_exact_in_a_pipe',
        ),
        Mutant(
            'an executor is looked at when there is work for it',
            'project/__init__.py',
            '        check_executor(executor, workers, threads)\n',
            '',
            'test_shown_on_terminals.py::test_an_executor_that_is_none_is_refused_at_the_call',
        ),
    ],
    'hosted workers': [
        Mutant(
            'a hosted worker outlives its batch',
            'executors/_chunk_host.py',
            'now - host.idle_since >= IDLE]',
            'now - host.idle_since >= 1000 * IDLE]',
            'test_hosted_workers.py::test_workers_end_with_the_batch',
        ),
    ],
    'two hosts': [
        Mutant(
            'folders are locked on a disk that nobody knows',
            'basedir.py',
            'return mount is not None and mount.is_local',
            'return mount is None or not mount.is_shared',
            'test_two_hosts.py::test_files_are_locked_on_all_that_is_not_known_to_be_local',
        ),
        Mutant(
            'an old choice is never corrected',
            'basedir.py',
            "if found['lock'] == LOCKS[0] and not self._is_on_local_disk():",
            "if found['lock'] == LOCKS[1] and not self._is_on_local_disk():",
            'test_two_hosts.py::test_where_the_disk_is_shared_the_choice_is_corrected',
        ),
        Mutant(
            'who locks files leaves the folder alone',
            'directory/claim.py',
            'if is_locked and held != folder:',
            'if is_locked and held == -1:',
            'test_two_hosts.py::test_who_locks_files_locks_the_folder_too',
        ),
        Mutant(
            'another host looks only at the folder',
            'store.py',
            'if with_file:',
            'if not with_file:',
            'test_two_hosts.py::test_what_another_host_computes_is_not_taken_for_dead',
        ),
    ],
    'one function': [
        Mutant(
            'what a closure holds does not count',
            'redefinition.py',
            '[_content(cell) for cell in each.__closure__ or ()]',
            '[]',
            'test_one_function.py::test_two_that_look_alike_are_two',
        ),
        Mutant(
            'two lambdas are one',
            'redefinition.py',
            "if '<' in name:",
            "if '>' not in name and '<' in name:",
            'test_one_function.py::test_two_that_look_alike_are_two',
        ),
        Mutant(
            'a copy of what was opened to read is not',
            'project/__init__.py',
            "self._computes = state['computes']",
            'self._computes = True',
            'test_one_function.py::test_what_was_opened_to_read_stays_so',
        ),
    ],
    'leaves no trace': [
        Mutant(
            "the peak of the user's own process is reset",
            'metrics.py',
            'if alone and in_worker else None',
            'if alone else None',
            'test_leaves_no_trace.py::test_an_inline_run_leaves_nothing_changed',
        ),
        Mutant(
            'threads of ours count as others',
            'locks.py',
            'thread is not here and not hasattr(thread, _SILENT) for',
            'thread is not here for',
            'test_leaves_no_trace.py::test_our_own_threads_do_not_change_how_output_is_captured',
        ),
        Mutant(
            'a filter is added for good',
            'capture.py',
            "warnings.simplefilter(cast('Any', action), category, line, append=True)",
            "warnings.simplefilter('always', UserWarning, 1, append=True)",
            'test_leaves_no_trace.py::test_an_inline_run_leaves_nothing_changed',
        ),
    ],
    'odd places': [
        Mutant(
            'a link in the place of a collection ends reindex',
            'scan.py',
            'if fileops.is_no_file(error):  # a link or a file stands in the place of the collection',
            'if fileops.is_ours(error):  # a link or a file stands in the place of the collection',
            'test_places_taken.py::test_a_collection_that_was_replaced_by_a_link',
        ),
        Mutant(
            'streams that a function left may raise what they like',
            'capture.py',
            'except Exception:  # closed, None, or anything',
            'except (OSError, ValueError, AttributeError):  # closed, None, or anything',
            'test_streams_that_raise.py::test_the_next_one_never_notices[inline]',
        ),
        Mutant(
            'a file in the place of a collection is passed over',
            'registry.py',
            'except (FileExistsError, NotADirectoryError):',
            'except NotADirectoryError:',
            'test_places_taken.py::test_a_collection_whose_place_is_taken[file]',
        ),
        Mutant(
            'idents of a command are what the locale makes of them',
            'cli/arguments.py',
            "return text.encode('utf-8', 'surrogateescape').decode()",
            'return text',
            'test_narrow_places.py::test_a_place[ASCII]',
        ),
    ],
    'forks and the collector': [
        Mutant(
            'an index that is collected waits for the gate',
            'index/__init__.py',
            'fork_guard.once_free(self._connections.close)',
            'self._connections.close()',
            'test_forks_and_the_collector.py::test_a_fork_during_which_something_is_collected_returns',
        ),
        Mutant(
            'a query that is collected waits for the gate',
            'index/_pool.py',
            'fork_guard.once_free(partial(self._drop, pooled))',
            'self._drop(pooled)',
            'test_forks_and_the_collector.py::test_a_fork_during_which_something_is_collected_returns',
        ),
    ],
    'what travels': [
        Mutant(
            'the file of a function is what the pickler says',
            'executors/_function_source.py',
            'build(*fields).replace(co_filename=name)',
            'build(*fields)',
            'test_source_travels.py::test_no_pickler_takes_the_file_away',
        ),
        Mutant(
            'lines that no file holds stay behind',
            'executors/_function_source.py',
            'None if name in sent else _lines_in_memory(name)',
            'None',
            'test_source_travels.py::test_lines_that_no_file_holds_travel_along',
        ),
    ],
    'what is synced': [
        Mutant(
            'a new file is there before its bytes are on the disk',
            'fileops.py',
            '            sync_data(fd)\n    except BaseException:\n        os.close(fd)',
            '            pass\n    except BaseException:\n        os.close(fd)',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'what is written in place is not synced',
            'fileops.py',
            '            sync_data(fd)\n    except BaseException:\n        write_all',
            '            pass\n    except BaseException:\n        write_all',
            f'{SYNCED}a_recompute_in_the_usual_way',
        ),
        Mutant(
            'a file takes the place of another, and its name is not synced',
            'fileops.py',
            '    if durable:\n        sync_folder(folder)\n',
            '',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'a file takes the place of another before its bytes are on the disk',
            'fileops.py',
            'put(write_beside(name, data, folder, durable=durable), name, folder)',
            'put(write_beside(name, data, folder), name, folder)',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'the record of a first run is not synced',
            'directory/claim.py',
            'fileops.create(RECORD, record, folder, durable=self._durable, replaces=False)',
            'fileops.create(RECORD, record, folder, replaces=False)',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'the pending status of a first run is not synced',
            'directory/claim.py',
            'fileops.create(STATUS, pending, folder, durable=self._durable, replaces=False)',
            'fileops.create(STATUS, pending, folder, replaces=False)',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'a record beside the old one is not synced',
            'directory/claim.py',
            'ready.write_beside(RECORD, record, durable=self._is_synced)',
            'ready.write_beside(RECORD, record, durable=False)',
            f'{SYNCED}a_recompute_that_is_durable',
        ),
        Mutant(
            'a status beside the old one is not synced',
            'directory/claim.py',
            "ready.write_beside(STATUS, STATUS_BYTES['pending'], durable=self._is_synced)",
            "ready.write_beside(STATUS, STATUS_BYTES['pending'], durable=False)",
            f'{SYNCED}a_recompute_that_is_durable',
        ),
        Mutant(
            'the name of a status that says pending is not synced',
            'directory/claim.py',
            "            self._switch('pending', sync=self._is_synced)\n        elif self._is_synced:",
            "            self._switch('pending', sync=self._is_synced)\n        elif False:",
            f'{SYNCED}a_recompute_that_is_durable',
        ),
        Mutant(
            'that a recompute is pending is not synced',
            'directory/claim.py',
            "self._switch('pending', sync=self._is_synced)",
            "self._switch('pending', sync=False)",
            f'{SYNCED}a_recompute_in_the_usual_way',
        ),
        Mutant(
            'the name of a record that says begun is not synced',
            'directory/claim.py',
            '        if is_put and self._is_synced:',
            '        if False:',
            f'{SYNCED}a_recompute_that_is_durable',
        ),
        Mutant(
            'error.log is not synced',
            'directory/claim.py',
            'fileops.create(ERROR, text, self.folder, durable=self._durable)',
            'fileops.create(ERROR, text, self.folder)',
            f'{SYNCED}a_run_that_fails_and_is_durable',
        ),
        Mutant(
            'the final status is not synced',
            'directory/claim.py',
            '        return self._switch(status, sync=sync)\n\n    def write_record',
            '        return self._switch(status, sync=False)\n\n    def write_record',
            f'{SYNCED}a_recompute_in_the_usual_way',
        ),
        Mutant(
            'that a run is queued is not synced',
            'directory/claim.py',
            'return self._switch(status, sync=self._durable)',
            'return self._switch(status, sync=False)',
            f'{SYNCED}a_queued_recompute_that_is_durable',
        ),
        Mutant(
            'a status that replaces another is not synced',
            'directory/claim.py',
            'fileops.replace(STATUS, data, self.folder, durable=sync)',
            'fileops.replace(STATUS, data, self.folder)',
            f'{SYNCED}a_queued_recompute_that_is_durable',
        ),
        Mutant(
            'what a run that was cut off removed may come back',
            'recover.py',
            '        fileops.sync_folder(self.claim.folder)\n        self.claim.write_record',
            '        self.claim.write_record',
            f'{SYNCED}a_run_that_was_cut_off',
        ),
        Mutant(
            'the name of a new resource is not synced',
            'durability.py',
            '        fileops.sync_folder(folder)\n        key',
            '        key',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'the names of new folders above are not synced',
            'durability.py',
            '            fileops.sync_folder(above)\n',
            '            pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'of the new folders above, only the first name is synced',
            'durability.py',
            '            fileops.sync_folder(above)\n',
            '            fileops.sync_folder(above)\n            break\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'what is above is synced for each resource again',
            'durability.py',
            '    _above_synced.add(key)\n',
            '',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'the folder of an empty storage is not synced',
            'durability.py',
            '            fileops.sync_folder(storage)\n',
            '            pass\n',
            f'{SYNCED}a_run_that_fails_and_is_durable',
        ),
        Mutant(
            'files in storage are not synced',
            'durability.py',
            '                fileops.sync_data(fd)\n',
            '                pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'names in storage are not synced',
            'durability.py',
            '    fileops.sync_folder(top)\n',
            '    pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'what is in folders of storage is not synced',
            'durability.py',
            '                _walk(below)\n',
            '                pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'storage is not synced where no one call does it',
            'durability.py',
            '            _sync_tree(storage)\n',
            '            pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'storage that cannot be walked through is not synced',
            'durability.py',
            '        os.sync()  # there is what we may not open',
            '        pass  #',
            f'{SYNCED}storage_that_cannot_be_walked_through[too many open files]',
        ),
        Mutant(
            'storage that is too deep is not synced',
            'durability.py',
            '    except RecursionError:\n        os.sync()',
            '    except RecursionError:\n        pass',
            f'{SYNCED}storage_that_cannot_be_walked_through[too deep]',
        ),
        Mutant(
            'storage is synced file by file where one call does it',
            'durability.py',
            'elif not (_takes_one_call(device, path) and _sync_file_system(storage)):',
            'elif True:',
            f'{DISK}durable_waits_for_storage_and_for_the_names_above[True]',
        ),
    ],
    'power cuts': [
        Mutant(
            'remove: what a resource stood for may go before its status does',
            'directory/claim.py',
            '        if self._durable:  # or a power cut brings the status back, without what it stood for',
            '        if False:',
            'test_what_is_synced.py::test_a_removal_that_is_durable',
        ),
        Mutant(
            'our files may be descriptor 1 or 2',
            'fileops.py',
            '    if fd > 2:\n        return fd\n    moved',
            '    if fd >= 0:\n        return fd\n    moved',
            'test_low_descriptors.py::test_nothing_of_ours_is_printed_to_or_closed[inline-streams-1]',
        ),
        Mutant(
            'a file that cannot be closed keeps the lock',
            'directory/claim.py',
            '            fileops.close_quietly(fd)\n        self.logs',
            '            os.close(fd)\n        self.logs',
            f'{DISK}what_the_disk_says_at_the_end_of_a_run_keeps_no_lock[record.json-threads]',
        ),
        Mutant(
            'what a function printed is not synced',
            'directory/claim.py',
            '                fileops.sync_data(log)\n',
            '                pass\n',
            f'{SYNCED}a_first_run_that_is_durable',
        ),
        Mutant(
            'what a function stored is not synced',
            'directory/claim.py',
            '            durability.sync_storage(STORAGE, self.folder, self.path)\n',
            '',
            f'{POWER}[recompute-durable]',
        ),
        Mutant(
            'the name of the result is not synced before the record',
            'directory/claim.py',
            "            fileops.sync_folder(self.folder)  # the result's name\n",
            '            pass\n',
            f'{POWER}[recompute-usual]',
        ),
        Mutant(
            'the result is not synced before the record',
            'directory/claim.py',
            'fileops.create(RESULT, result, self.folder, durable=sync)',
            'fileops.create(RESULT, result, self.folder)',
            f'{POWER}[first-durable]',
        ),
        Mutant(
            'the status is not synced',
            'directory/claim.py',
            '                if sync:\n                    fileops.sync_data(self._status)\n',
            '',
            f'{POWER}[recompute-usual]',
        ),
        Mutant(
            'a record that is rewritten is not synced',
            'directory/claim.py',
            'fileops.overwrite(self._record, record, before, durable=self._is_synced)',
            'fileops.overwrite(self._record, record, before)',
            f'{POWER}[recompute-usual]',
        ),
        Mutant(
            'a record that replaces another is not synced',
            'directory/claim.py',
            '            fileops.replace(RECORD, record, self.folder, durable=self._is_synced)\n',
            '            fileops.replace(RECORD, record, self.folder)\n',
            f'{POWER}[recompute-durable]',
        ),
        Mutant(
            'the folders above a new resource are not synced',
            'directory/claim.py',
            '                        durability.sync_above(collection_path)\n',
            '                        pass\n',
            f'{POWER}[first-durable]',
        ),
        Mutant(
            'that a queued recompute is pending is not synced',
            'directory/claim.py',
            '            fileops.sync_data(self._status)\n        self._say_begun',
            '            pass\n        self._say_begun',
            f'{POWER}[queued recompute-usual]',
        ),
        Mutant(
            'a status.json that was deleted may come back',
            'directory/claim.py',
            '            if self._is_synced:  # a status.json that was deleted by hand is',
            '            if False:  #',
            f'{POWER}[status deleted, again-usual]',
        ),
        Mutant(
            'a run after one that was cut off is not kept apart from it',
            'reuse.py',
            "    if found.effective_status == 'completed' or fileops",
            "    if look.effective_status != 'completed':\n        return False\n    if diskio",
            f'{POWER}[status deleted, again-usual]',
        ),
        Mutant(
            'a record of two runs mixed is believed',
            'directory/__init__.py',
            ' and not _is_torn(document, text) else {}',
            ' else {}',
            'test_cut_off.py::test_a_record_that_is_a_mixture_of_two_is_damaged',
        ),
    ],
    'cut off': [
        Mutant(
            'a removal that is cut off half way leaves its row',
            'project/indexed.py',
            "        if os.path.lexists(f'{known.spec.path}/{folder}'):\n",
            '        if False:\n',
            'test_cut_off.py::test_a_removal_that_is_cut_off_leaves_no_row_that_is_wrong',
        ),
    ],
    'rows are best effort': [
        Mutant(
            'rows are written by the thread that looks at clocks and deaths',
            'store.py',
            '        hand_over = self.rows.put if soon else self.rows.write',
            '        hand_over = lambda event: self.index.finish(event.rows)',
            f'{ROWS}a_timeout_kills_while_the_index_is_locked',
        ),
        Mutant(
            'rows that wait for their turn leave no mark',
            'row_writer.py',
            '            if event.is_news and not self._is_marked:',
            '            if False:',
            f'{ROWS}rows_that_wait_for_their_turn_when_the_process_ends_are_written_by_the_next[again]',
        ),
        Mutant(
            'rows of what a run has fetched leave no mark',
            'store.py',
            '            event.is_news = any(run_result.nested for run_result in run_results)\n',
            '',
            f'{ROWS}rows_that_wait_for_their_turn_when_the_process_ends_are_written_by_the_next[nested]',
        ),
        Mutant(
            'the mark of rows that are written stays',
            'row_writer.py',
            '                    self._base.unmark_unwritten()\n',
            '                    pass\n',
            f'{ROWS}rows_that_are_written_in_time_leave_no_mark',
        ),
        Mutant(
            'a flush counts events, between two steps of which Ctrl-C may come',
            'row_writer.py',
            '            last = self._events[-1] if self._events else None',
            '            last = self._events[-1] if len(self._events) > 1 else None',
            f'{ROWS}ctrl_c_between_two_steps_loses_no_row_and_no_count[put]',
        ),
        Mutant(
            'what is tried again is forgotten before it is taken',
            'row_writer.py',
            '            self.put(item[1])\n            with contextlib.suppress(ValueError):'
            '  # all were left to the next process\n                self._later.remove(item)\n',
            '            self._later.remove(item)\n            self.put(item[1])\n',
            f'{ROWS}ctrl_c_between_two_steps_loses_no_row_and_no_count[_take_up]',
        ),
        Mutant(
            'a forked child writes the rows of its parent',
            'row_writer.py',
            '        super()._in_child()\n        self._make_new()',
            '        super()._in_child()',
            f'{ROWS}a_child_that_is_forked_while_rows_wait',
        ),
        Mutant(
            'what is wrong with the index is said again and again',
            'row_writer.py',
            '        self._said.add(sentence)\n',
            '',
            f'{ROWS}what_is_wrong_is_said_once',
        ),
        Mutant(
            'rows that wait are not shown',
            'store.py',
            '**({} if is_written else self.rows.unwritten())',
            '**{}',
            'test_full_disk.py::test_an_index_that_may_not_grow[by the next]',
        ),
    ],
    'closed descriptors': [
        Mutant(
            'a lock that was given back counts as closed by somebody else',
            'index/_lock.py',
            '        if self._fd < 0:  # it was we\n            return False\n',
            '',
            'test_forks_and_the_collector.py::test_a_fork_during_which_something_is_collected_returns[first-before]',
        ),
        Mutant(
            'a connection whose descriptors a function has closed stays, and no other has its locks',
            'index/_connection.py',
            '        if not self.is_open():\n',
            '        if False:\n',
            'test_low_descriptors.py::test_a_function_that_closes_all_of_its_callers_descriptors',
        ),
        Mutant(
            'closing such a connection closes what others have opened since',
            'index/_connection.py',
            '            os.dup2(copy, fd, is_inherited)\n',
            '            pass\n',
            'test_low_descriptors.py::test_a_connection_that_was_closed_under_sqlite_closes_nobody_elses',
        ),
    ],
    'asked in passing': [
        Mutant(
            'who asks for the revision leaves files beside the index',
            'upgrade.py',
            '    if is_whole:',
            '    if False:',
            'test_upgrade.py::test_who_asks_for_the_revision_leaves_nothing_beside_the_file[foreign]',
        ),
        Mutant(
            'a revision that waits in the -wal is overlooked',
            'upgrade.py',
            "            if found.st_size and part in ('-wal', '-journal'):",
            '            if False:',
            'test_upgrade.py::test_a_revision_that_waits_in_the_wal_is_seen',
        ),
        Mutant(
            'an address that is none is met only where something is to be computed',
            'engine/dispatcher.py',
            'not (host and port.isdigit()):',
            'False:',
            'test_shown_on_terminals.py::test_an_executor_that_is_none_is_refused_at_the_call[dask:nothing]',
        ),
    ],
    'registered': [
        Mutant(
            'the same cell with another lambda is another function',
            'registry.py',
            '        if known and not is_run_again and not',
            '        if known and not',
            'test_one_function.py::test_the_same_cell_may_be_run_again_with_another_lambda',
        ),
        Mutant(
            'a second function of one running of a cell takes the place of the first',
            'registry.py',
            ' and cell.run != before.run',
            '',
            'test_one_function.py::test_the_same_cell_may_be_run_again_with_another_lambda',
        ),
        Mutant(
            'what cannot be called is registered',
            'registry.py',
            '        if not callable(collection.function):',
            '        if False:',
            'test_one_function.py::test_what_cannot_be_called_is_refused_at_once[3]',
        ),
    ],
    'readings of one run': [
        Mutant(
            'a folder is read without a look at whether it is still the same run',
            'handle.py',
            '        if after == before:',
            '        if True:',
            'test_readings_of_one_run.py::test_a_run_that_comes_while_a_folder_is_read[walked]',
        ),
        Mutant(
            'a row that was written while check looked is a disagreement',
            'reindex.py',
            "        if now is None or now.raw('changed') != row.raw('changed'):",
            '        if False:',
            'test_readings_of_one_run.py::'
            'test_a_run_that_comes_while_check_looks_is_no_disagreement[read_status]',
        ),
        Mutant(
            'show gives up where a resource is computed anew',
            'cli/show.py',
            'reversed(range(LOOKS))',
            'reversed(range(1))',
            'test_readings_of_one_run.py::test_a_run_that_comes_while_one_is_shown',
        ),
        Mutant(
            'a log is printed over two runs',
            'cli/show.py',
            '            if run == self._run:',
            '            if True:',
            'test_readings_of_one_run.py::test_a_run_that_comes_while_its_log_is_printed',
        ),
    ],
    'no workers': [
        Mutant(
            'workers need memory to share with their caller',
            'executors/template.py',
            '            with contextlib.suppress(OSError):  # files may',
            '            with contextlib.suppress(TemplateError):  # files may',
            'test_last_words.py::test_a_worker_without_such_memory',
        ),
        Mutant(
            'a machine that gives no workers is a mistake in usage',
            'errors.py',
            '    """The executor cannot run anything."""\n\n    exit_code = 5',
            '    """The executor cannot run anything."""\n\n    exit_code = 2',
            'test_cli_running.py::test_exit_codes_of_executors',
        ),
    ],
    'documented fetch': [
        Mutant(
            'who does not say where the index is makes another',
            'project/indexed.py',
            'self._index_path or self._base.index_elsewhere() or self._base.index_path',
            'self._index_path or self._base.index_path',
            'test_documented_fetch.py::test_an_index_elsewhere_is_found_again',
        ),
        Mutant(
            'a saved result is not served from its directory alone',
            'fetcher.py',
            '        return found.state, resource\n',
            "        return 'error', None\n",
            'test_architecture.py::test_cached_fetch_loads_no_sqlalchemy',
        ),
        Mutant(
            'recompute=True gives the saved result',
            'fetcher.py',
            "            how = 'yes' if asked.recompute else 'changed'",
            "            how = 'changed'",
            f'{FETCH}test_recompute_runs_again_in_an_empty_storage',
        ),
        Mutant(
            'a failed resource is not tried again',
            'reuse.py',
            "    if state != 'completed' or job.recompute == 'yes':",
            "    if job.recompute == 'yes':",
            f'{FETCH}test_error_is_stored_returned_and_tried_again',
        ),
        Mutant(
            'a retry without args forgets those of the last run',
            'store.py',
            '            record = self.record(collection, folder)\n',
            '            pass\n',
            f'{FETCH}test_stored_args_are_used_again',
        ),
        Mutant(
            'an int is no ident',
            'canonical.py',
            '    if isinstance(given, int) and not isinstance(given, bool):',
            '    if False:',
            f'{FETCH}test_int_idents_are_their_text',
        ),
        Mutant(
            'changed args pass without a warning',
            'registry.py',
            "        if policy in ('recompute', 'keep'):",
            "        if policy in ('recompute', 'keep', 'warn'):",
            f'{FETCH}test_changed_args_return_the_saved_result_with_a_warning',
        ),
        Mutant(
            'NaN is allowed in a result',
            'canonical.py',
            '_STANDARD = json.JSONEncoder(ensure_ascii=False, allow_nan=False,',
            '_STANDARD = json.JSONEncoder(ensure_ascii=False, allow_nan=True,',
            f'{FETCH}test_results_that_are_no_json_end_in_error',
        ),
        Mutant(
            'no encoder: paths, dates and enums in a result are refused',
            'canonical.py',
            '    return next((convert for kind, convert in _conversions() if isinstance(value, kind)), None)',
            '    return None',
            'test_canonical.py::TestResults::test_written',
        ),
        Mutant(
            'background work is not awaited when the program ends',
            'project/__init__.py',
            '            self._exit_hook = atexit.register(at_exit)',
            '            self._exit_hook = at_exit',
            f'{FETCH}test_interpreter_exit_waits_for_background_work',
        ),
    ],
    'asked for': [
        Mutant(
            'a result from the future never expires',
            'dependencies.py',
            '        return abs(time.time()',
            '        return (time.time()',
            f'{ASKED}a_result_from_another_time_expires[94608000]',
        ),
        Mutant(
            'a batch takes every run for its own',
            'engine/batch.py',
            'isinstance(run, str) and run.startswith(self._name)',
            'isinstance(run, str)',
            f'{ASKED}what_a_batch_is_asked_for_needs_no_clock[inline-300]',
        ),
        Mutant(
            'a batch does not know its own runs',
            'engine/batch.py',
            'isinstance(run, str) and run.startswith(self._name)',
            'False',
            f'{ASKED}what_a_batch_is_asked_for_needs_no_clock[inline-300]',
        ),
        Mutant(
            'a request to cancel is as old as its file',
            'basedir.py',
            '_first_seen.setdefault(made, time.monotonic()) > REQUEST_LIFE',
            'made[2] / 1e9 > REQUEST_LIFE',
            f'{ASKED}a_request_to_cancel_outlives_a_clock_that_is_wrong',
        ),
        Mutant(
            "background work takes somebody else's run for its own",
            'engine/dispatcher.py',
            "if self._keep or run_result.fresh or run_result.entry.status != 'completed':",
            'if True:',
            f'{ASKED}background_work_that_was_computed_meanwhile_is_computed_anew',
        ),
        Mutant(
            "a batch takes somebody else's run for its own",
            'engine/batch.py',
            '        if is_served and self',
            '        if False and self',
            f'{ASKED}the_policies_hold_for_a_run_that_was_waited_for[args-recompute-many]',
        ),
        Mutant(
            'who has waited takes whatever there is',
            'fetcher.py',
            "        if asked is not None and state == 'completed':",
            '        if False:',
            f'{ASKED}the_policies_hold_for_a_run_that_was_waited_for[args-warn-fetch]',
        ),
        Mutant(
            "somebody else's failure with other args is ours",
            'fetcher.py',
            "return asked.args is not None and (directory.recorded_args(record) or '{}') != asked.args",
            'return False',
            f'{ASKED}a_failure_with_other_args_is_not_ours',
        ),
        Mutant(
            'fetch_many is silent about a damaged result',
            'engine/batch.py',
            '            self._store.warn_of_damage(self._collection, ident, folder, found.damage)',
            '            pass',
            f'{ASKED}fetch_and_fetch_many_warn_alike_of_a_damaged_result[None]',
        ),
        Mutant(
            'what only the loop could run is waited for in its body',
            'project/in_flight.py',
            'return self._is_flying(collection, ident, even_stepped=False)',
            'return self._is_flying(collection, ident)',
            f'{ASKED}the_body_of_an_inline_loop_does_not_wait_for_its_own_retry[kept]',
        ),
        Mutant(
            'close() inside a function ends the batch',
            'project/__init__.py',
            '        self._refuse_inside()\n',
            '',
            f'{ASKED}close_inside_a_function_is_refused[inline]',
        ),
        Mutant(
            'a batch that was closed says nothing',
            'engine/batch.py',
            '        if self._cut:\n',
            '        if False:\n',
            f'{ASKED}a_batch_that_somebody_closes_says_so',
        ),
        Mutant(
            'an error that leaves the with block waits for background work',
            'project/__init__.py',
            'self.close(cancel=error is not None and not is_end)',
            'self.close()',
            f'{ASKED}leaving_a_with_block[ValueError()]',
        ),
        Mutant(
            'a dry run does not know --recompute',
            'cli/run.py',
            'given, recompute=how.recompute)',
            'given)',
            f'{ASKED}a_dry_run_says_what_the_run_does',
        ),
        Mutant(
            'explain does not know the policy that refuses',
            'fetcher.py',
            "policy == 'recompute', reason, code, policy == 'error')",
            "policy == 'recompute', reason, code)",
            f'{ASKED}explain_says_what_a_fetch_does[error-completed]',
        ),
        Mutant(
            'what cannot be changed stays pending for ever',
            'recover.py',
            '        if error.errno not in _LASTING:\n            return ended_in_error\n',
            '        return ended_in_error\n',
            'test_waiting_ends.py::test_on_a_base_that_can_only_be_read_waiting_ends',
        ),
        Mutant(
            'a warning points into the package',
            'errors.py',
            '    while frame.f_back is not None and _is_ours(frame.f_code.co_filename):',
            '    while False:',
            f'{ASKED}warnings_point_at_the_users_line',
        ),
    ],
    'fetching alike': [
        Mutant(
            'a fetch inside a function does not wait',
            'fetcher.py',
            '            wait = is_inside()',
            '            wait = False',
            f'{ALIKE}a_shared_dependency_gives_its_value_to_all[processes-fetch]',
        ),
        Mutant(
            'a thread of an inline function is outside of it',
            'context.py',
            '        if _alone and not is_ours():',
            '        if False:',
            f'{ALIKE}a_thread_that_an_inline_function_starts_is_inside_it',
        ),
        Mutant(
            'help that cannot be printed ends in a traceback',
            'cli/__init__.py',
            '    except OSError as error:  # the help',
            '    except BrokenPipeError as error:  # the help',
            f'{TOOLS}help_that_cannot_be_printed_is_one_sentence[-h]',
        ),
        Mutant(
            'who waits for whom is not looked at',
            'wait_graph.py',
            '            if step in self._chain:',
            '            if False:',
            f'{ALIKE}one_lock_for_looking_and_publishing',
        ),
        Mutant(
            'who waits is published without the lock',
            'wait_graph.py',
            '                fileops.lock_within(lock, PATIENCE)',
            '                pass',
            f'{ALIKE}one_lock_for_looking_and_publishing',
        ),
        Mutant(
            'what the dead waited for counts',
            'wait_graph.py',
            '            if fileops.is_locked(name, folder):',
            '            if True:',
            f'{ALIKE}what_the_dead_waited_for_counts_for_nothing',
        ),
        Mutant(
            'fetch_many inside a function waits in silence',
            'engine/batch.py',
            '        if running is None or not self._held_by_others:',
            '        if True:',
            f'{ALIKE}of_a_ring_exactly_one_ends_in_a_cycle_error[2-processes-many]',
        ),
        Mutant(
            'fetch_many of oneself waits for ever',
            'engine/batch.py',
            '        if submission.job.step in submission.job.chain:',
            '        if False:',
            f'{ALIKE}asking_for_itself_is_a_cycle_error[inline-many]',
        ),
        Mutant(
            'a chain ends where another base begins',
            'store.py',
            'chain=context.chain_of(running) if running else (),',
            'chain=context.chain_of(running) if isinstance(self, FilesOnly) else (),',
            f'{ALIKE}asking_for_itself_through_another_base_is_a_cycle_error',
        ),
        Mutant(
            'an attempt that failed is taken for the last',
            'fetcher.py',
            '        if collection.retries and isinstance(store, FilesOnly):',
            '        if False:',
            f'{ALIKE}a_flaky_dependency_is_not_given_up_between_its_attempts[fetch]',
        ),
        Mutant(
            'how a run was cut off is not told',
            'handle.py',
            "    kind = _FAILURES.get(entry.error_type or '', ResourceFailed)",
            '    kind = ResourceFailed',
            f'{ALIKE}how_it_was_cut_off_is_the_class_of_the_error',
        ),
        Mutant(
            'what the function raised is not kept',
            'compute.py',
            '    cause = None if in_worker or is_cancelled else error',
            '    cause = None',
            f'{ALIKE}the_cause_is_what_the_function_raised[value]',
        ),
    ],
    'the folder': [
        Mutant(
            'a function that could not be loaded is called, which begins the run',
            'compute.py',
            '    if isinstance(function, Unloadable):',
            '    if function is Unloadable:',
            f'{NOT_STARTED}a_function_that_cannot_be_loaded_begins_nothing[it raises-True]',
        ),
        Mutant(
            'who was in a folder before we locked it is not looked at',
            'compute.py',
            '            claim.created = False  # somebody',
            '            pass  # somebody',
            'test_first_runs.py::test_somebody_may_be_there_between_making_and_locking[computes it]',
        ),
        Mutant(
            'a record that is formatted ahead is another',
            'run_record.py',
            ' "run": "{job.run}",',
            ' "run":  "{job.run}",',
            'test_first_runs.py::test_the_records_of_a_run_are_those_of_its_rows',
        ),
        Mutant(
            'a folder that was made for a run that never began stays',
            'compute.py',
            '            claim.unmake()\n        claim.release()',
            '            pass\n        claim.release()',
            f'{NOT_STARTED}a_first_run_that_cannot_begin_leaves_no_folder',
        ),
        Mutant(
            'the reason why a run could not begin is looked for in the old error.log',
            'store.py',
            'run_result.traceback if run_result.not_started else None',
            'None',
            f'{NOT_STARTED}why_a_function_could_not_be_loaded_is_told_in_full',
        ),
        Mutant(
            'a recompute writes into the result that somebody reads',
            'directory/_ready.py',
            '            fileops.remove(RESULT, self._folder)  # not emptied: it may be read at this moment',
            '            pass',
            f'{OWN}nothing_of_the_last_run_is_left[inline-gone0-was completed-fails]',
        ),
        Mutant(
            'the record is not looked at again after the result was read',
            'handle.py',
            'directory.record_data(folder):\n        return None\n    is_of_it',
            'directory.record_data(folder):\n        pass\n    is_of_it',
            f'{ONE_VALUE}computed_again_between_two_readings[fetch-args1-record.json]',
        ),
        Mutant(
            'what is asked of a snapshot later is told of another run',
            'handle.py',
            'if seen.mark is None or seen.mark != self._seen.mark:',
            'if seen.mark is None:',
            f'{ONE_VALUE}what_is_asked_of_a_snapshot_later_is_of_its_run_or_refused',
        ),
        Mutant(
            "the traceback of another run is a snapshot's error",
            'handle.py',
            'return text if is_same and before ==',
            'return text if before ==',
            f'{ONE_VALUE}what_is_asked_of_a_snapshot_later_is_of_its_run_or_refused',
        ),
        Mutant(
            'a long result that is gone is told as completed',
            'store.py',
            "        if status == 'completed' and run_result.result is None:",
            "        if status == 'completed' and run_result.run is None:",
            f'{ONE_VALUE}a_long_result_that_is_no_more_when_its_outcome_is_told[removed-error]',
        ),
        Mutant(
            'what is computed again before it was read is an error',
            'engine/batch.py',
            "        if resource.status == 'pending':\n            return False",
            '        if resource.status is None:\n            return False',
            f'{ONE_VALUE}a_batch_waits_for_what_is_computed_again_before_it_was_read',
        ),
        Mutant(
            'a folder without a status keeps the logs of the last run',
            'directory/_ready.py',
            '            os.ftruncate(log, 0)',
            '            pass',
            f'{OWN}nothing_of_the_last_run_is_left[inline-gone1-was completed-completes]',
        ),
        Mutant(
            'a storage that is a link is found out after the old result is gone',
            'directory/_ready.py',
            '            self._refuse_link()',
            '            pass',
            f'{OWN}a_storage_that_is_a_link_is_refused_before_anything_is_touched[inline-symlink]',
        ),
        Mutant(
            'a removal that was killed is not completed',
            'reuse.py',
            "if on_disk == 'absent' and claim.completes_removal():",
            'if False:',
            f'{OWN}a_removal_that_is_killed_anywhere_leaves_nothing_to_a_later_run[True]',
        ),
        Mutant(
            'what a killed replacement left stays',
            'directory/_ready.py',
            '            if is_litter(name):',
            '            if False:',
            f'{OWN}what_a_killed_replacement_left_is_swept[False]',
        ),
        Mutant(
            'what a killed replacement left stays when its folder is settled',
            'recover.py',
            '            directory.sweep(folder)',
            '            pass',
            f'{OWN}what_a_killed_replacement_left_is_swept[True]',
        ),
        Mutant(
            'what is torn in the record is not put back',
            'fileops.py',
            '        write_all(fd, before)\n        os.ftruncate(fd, len(before))\n',
            '        pass\n',
            f'{DISK}a_record_that_has_no_room_to_grow_is_put_back',
        ),
        Mutant(
            'a recompute that was queued is not taken for one of a completed resource',
            'reuse.py',
            "    if found.effective_status == 'completed' or fileops",
            "    if found.on_disk != 'completed':\n        return False\n    if diskio",
            f'{DISK}a_recompute_that_was_queued_waits_for_the_disk_as_an_inline_one',
        ),
        Mutant(
            'a recompute does not try whether it has the descriptors that it needs',
            'directory/claim.py',
            'spare=_SPARE if self._was_completed else 0',
            'spare=0',
            f'{DISK}as_many_descriptors_as_a_run_needs_are_there_before_it_begins',
        ),
        Mutant(
            'what cannot be read for want of descriptors is not there',
            'handle.py',
            'fileops.is_no_file(error):\n        return NOTHING\n    raise error',
            'fileops.is_no_file(error):\n        pass\n    return NOTHING',
            f'{DISK}what_is_completed_and_cannot_be_read_is_not_an_error_of_it[get-24]',
        ),
        Mutant(
            'durable does not wait for storage',
            'directory/claim.py',
            '            durability.sync_storage(STORAGE, self.folder, self.path)',
            '            pass',
            f'{DISK}durable_waits_for_storage_and_for_the_names_above[True]',
        ),
        Mutant(
            'durable does not wait for the names above',
            'directory/claim.py',
            '                        durability.sync_above(collection_path)',
            '                        pass',
            f'{DISK}durable_waits_for_storage_and_for_the_names_above[False]',
        ),
        Mutant(
            'a lock file that is shared by hard links is locked',
            'directory/claim.py',
            "        fileops.replace(LOCK, b'', self.folder)\n        return True",
            '        return False',
            f'{OWN}a_lock_file_that_is_a_hard_link_is_locked_by_neither_for_the_other',
        ),
    ],
    'directory': [
        Mutant(
            'the final status is written before the result',
            'directory/claim.py',
            '        if result is not None:\n',
            '        self._switch(status, sync=sync)\n        if result is not None:\n',
            f'{TRUTH}test_status_is_switched_last',
        ),
        Mutant(
            'the record is written after the final status',
            'directory/claim.py',
            '        self.write_record(record)\n        if',
            '        self._switch(status, sync=sync)\n        self.write_record(record)\n        if',
            f'{TRUTH}test_status_is_switched_last',
        ),
        Mutant(
            'a recompute empties the old result before it says pending',
            'directory/claim.py',
            '        ready.is_status_changed = True\n',
            '        fileops.remove(RESULT, self.folder)\n',
            f'{TRUTH}test_cut_off_before_any_write[recompute]',
        ),
        Mutant(
            'a status.json that has another name elsewhere is written in place',
            'fileops.py',
            ' and now.st_nlink == 1\n',
            '\n',
            f'{TRUTH}test_a_hard_linked_copy_made_while_it_runs_keeps_its_bytes[True]',
        ),
        Mutant(
            'a log that has another name elsewhere is emptied',
            'fileops.py',
            '    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:',
            '    if stat.S_ISREG(found.st_mode):',
            f'{TRUTH}test_a_hard_linked_copy_keeps_its_bytes[fail]',
        ),
        Mutant(
            'logs are buffered in blocks',
            'capture.py',
            "'backslashreplace', line_buffering=True)",
            "'backslashreplace', line_buffering=False)",
            f'{TRUTH}test_logs_are_streamed_while_the_function_runs[inline]',
        ),
        Mutant(
            'the lock is not taken',
            'fileops.py',
            '        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)',
            '        pass',
            f'{TRUTH}test_computed_by_one_only[kept]',
        ),
        Mutant(
            'a forked child keeps the lock',
            'fileops.py',
            'os.register_at_fork(after_in_child=_close_in_child)',
            '',
            f'{TRUTH}test_the_lock_is_free_once_its_process_is_dead[fork]',
        ),
        Mutant(
            'a forked child unlocks instead of closing (LOCK_UN)',
            'fileops.py',
            '            if owner is None:\n                os.close(fd)',
            '            if owner is None:\n                fcntl.flock(fd, fcntl.LOCK_UN)',
            f'{TRUTH}test_closed_descriptors_are_borne[1]',
        ),
        Mutant(
            'the run id is not looked at: an order delivered twice runs twice',
            'reuse.py',
            "    ours = bool(record) and record.get('run') == job.run and",
            '    ours = False and',
            f'{TRUTH}test_an_order_delivered_twice_runs_once[yes]',
        ),
        Mutant(
            'settling takes a run that was begun for one that never was',
            'directory/__init__.py',
            "    return 'absent' if record is None or final == 'queued' else 'pending'",
            "    return 'absent'",
            f'{TRUTH}test_the_lock_is_free_once_its_process_is_dead[nothing]',
        ),
        Mutant(
            'settling believes a record that says completed, whatever the result is',
            'directory/__init__.py',
            "    if final == 'error' or (final == 'completed' and read_result(folder) is not None):",
            "    if final in ('error', 'completed'):",
            f'{TRUTH}test_a_pending_status_over_a_damaged_result_is_a_run_cut_off',
        ),
        Mutant(
            '/ stands for itself in a folder name',
            'canonical.py',
            "_UNSAFE = re.compile(r'[^A-Za-z0-9_.+=@,-]+')",
            "_UNSAFE = re.compile(r'[^A-Za-z0-9_.+=@,/-]+')",
            f'{FETCH}test_hostile_idents_have_folders_of_their_own',
        ),
        Mutant(
            'a leading . stands for itself in a folder name',
            'canonical.py',
            "    if encoded[0] in '.-':",
            "    if encoded[0] in '-':",
            f'{FETCH}test_hostile_idents_have_folders_of_their_own',
        ),
        Mutant(
            'a symlink in place of a result is followed',
            'fileops.py',
            'READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC',
            'READ = os.O_RDONLY | os.O_CLOEXEC',
            f'{TRUTH}test_no_link_is_followed[base/coll/one/result.json-after]',
        ),
        Mutant(
            'a symlink in place of a log is written through',
            'fileops.py',
            'flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)',
            'flags | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)',
            f'{TRUTH}test_no_link_is_followed[base/coll/one/stdout.log-after]',
        ),
        Mutant(
            'what a symlink in storage points to is emptied too',
            'trees.py',
            '        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]',
            '        entries = [(entry.name, entry.is_dir()) for entry in found]',
            f'{TRUTH}test_links_in_storage_are_removed_and_not_followed',
        ),
        Mutant(
            'a status.json that says two things is accepted',
            'directory/__init__.py',
            ' or sum(document.values()) != 1:',
            ':',
            f'{TRUTH}test_damaged_status[two true]',
        ),
        Mutant(
            'a status.json that is being written is called damaged at once',
            'directory/__init__.py',
            '_READINGS = 5 ',
            '_READINGS = 1 ',
            f'{TRUTH}test_a_torn_status_is_read_again',
        ),
        Mutant(
            'the front of a longer number is served as the result',
            'directory/__init__.py',
            "    if text[-1:] != '\\n' and isinstance(value, (int, float)) and not isinstance(value, bool):",
            '    if False:',
            f'{TRUTH}test_damaged_result[17]',
        ),
        Mutant(
            'Ctrl-C in a function is not raised again',
            'compute.py',
            '    again = error if isinstance(error, KeyboardInterrupt) and not (in_worker',
            '    again = error if False and not (in_worker',
            f'{TRUTH}test_ctrl_c_in_a_function_is_written_and_raised_again',
        ),
        Mutant(
            'a resource is removed while it runs',
            'recover.py',
            '    if claim is None:\n        raise ResourceError(',
            '    if claim is None:\n        return True\n        raise ResourceError(',
            f'{TRUTH}test_a_stopped_worker_is_not_dead',
        ),
    ],
    'nested fetch': [
        Mutant(
            'a resource may wait for itself',
            'fetcher.py',
            '            if step in chain:',
            '            if False:',
            'test_fetching_alike.py::test_asking_for_itself_is_a_cycle_error[inline-fetch]',
        ),
        Mutant(
            'rows of nested fetches are dropped',
            'context.py',
            '        running._nested.append(run_result.entry)',
            '        pass',
            f'{TRUTH}test_nested_fetch[processes]',
        ),
    ],
    'index': [
        Mutant(
            'a late final write of an earlier attempt wins',
            'index/_writes.py',
            "    'coalesce(resources.attempt, 0) <= coalesce(excluded.attempt, 0)'",
            "    '1'",
            f'{INDEX}a_late_final_write_is_dropped',
        ),
        Mutant(
            'queued overwrites a pending row',
            'index/_writes.py',
            "resources.status != 'pending' OR resources.session IS NULL",
            '1',
            f'{INDEX}queued_never_overwrites_a_pending_row',
        ),
        Mutant(
            'reindex overwrites what was written meanwhile',
            'index/_writes.py',
            "    f' WHERE {_KEY} AND changed = :was'",
            "    f' WHERE {_KEY} AND :was IS NOT NULL'",
            f'{INDEX}merge_writes_only_where_the_row_has_not_moved',
        ),
        Mutant(
            'a transaction of several statements is none',
            'index/_connection.py',
            "    driver.execute(f'BEGIN {how}')",
            '    pass',
            f'{INDEX}a_group_is_written_whole_or_not_at_all',
        ),
        Mutant(
            'DEFERRED for IMMEDIATE: a transaction locks late',
            'index/_connection.py',
            "    driver.execute(f'BEGIN {how}')",
            "    driver.execute('BEGIN DEFERRED')",
            f'{INDEX}a_transaction_keeps_other_writers_out_from_its_start',
        ),
        Mutant(
            'a deleted or replaced index is not noticed (no inode check)',
            'index/_connection.py',
            '        return signature == self.mark and signature != ()',
            '        return True',
            f'{OPENING}files_deleted_under_a_connection_are_noticed_before_the_next_write[deleted0]',
        ),
        Mutant(
            'a deleted -wal is not noticed',
            'index/_connection.py',
            '    return (main.st_dev, main.st_ino, wal.st_dev, wal.st_ino, shm.st_dev, shm.st_ino)',
            '    return (main.st_dev, main.st_ino)',
            f'{OPENING}files_replaced_under_a_connection_are_noticed[-wal]',
        ),
        Mutant(
            'a rebuild does not wait for the lock',
            'index/_opening.py',
            '        with contextlib.closing(lock), lock.owned():\n            yield',
            '        with contextlib.closing(lock):\n            yield',
            f'{OPENING}a_write_waits_until_the_index_is_replaced',
        ),
        Mutant(
            'a write does not wait for a rebuild',
            'index/_pool.py',
            '    if lock is not None:\n        lock.share()',
            '    if False:\n        lock.share()',
            f'{OPENING}a_write_waits_until_the_index_is_replaced',
        ),
        Mutant(
            'who waited for the lock does not look again, and builds once more',
            'index/_opening.py',
            '                if isinstance(outcome, PooledConnection):  # another process was faster\n',
            '                if isinstance(outcome, PooledConnection):\n'
            '                    self._rebuild(None)\n',
            f'{OPENING}who_waited_for_the_lock_looks_again',
        ),
        Mutant(
            'a missing index is made, and not filled from the directories',
            'index/__init__.py',
            '            fill=None if refill is None else partial(_fill, refill),',
            '            fill=None,',
            f'{OPENING}a_missing_index_is_built_from_the_directories',
        ),
        Mutant(
            'a damaged index is not built anew',
            'index/_opening.py',
            'is_damaged = is_damage(fault) or is_read',
            'is_damaged = is_read',
            f'{OPENING}damage_is_met_in_mid_life[write]',
        ),
        Mutant(
            "another program's SQLite file is taken for an index",
            'index/_validate.py',
            '    if application != APPLICATION_ID:',
            '    if False:',
            f'{OPENING}what_is_not_ours_is_refused_and_not_touched[tables]',
        ),
        Mutant(
            'a pending row is trusted though its session is dead',
            'store.py',
            '        return self.base.is_alive(row.session)',
            '        return True',
            f'{TRUTH}test_a_pending_row_of_a_dead_session_is_no_promise',
        ),
        Mutant(
            'what dead sessions left is not settled at the opening',
            'dead_sessions.py',
            '    if not dead:',
            '    if dead:',
            f'{TRUTH}test_cut_off_before_any_write[first]',
        ),
        Mutant(
            'a forked child gives back the lock of its parent',
            'index/_lock.py',
            '        self.close()\n\n    def __del__',
            '        self.release()\n        self.close()\n\n    def __del__',
            f'{OPENING}a_forked_child_never_gives_back_the_parents_lock',
        ),
        Mutant(
            'a forked child keeps the locks of threads that it does not have',
            'locks.py',
            'os.register_at_fork(after_in_child=_in_child)',
            '',
            'test_locks.py::test_a_child_that_is_forked_while_a_thread_opens_the_project[session]',
        ),
        Mutant(
            'threads enter SQLite while a fork waits for those inside',
            'index/_fork_guard.py',
            '            while self._forking and not own.depth:',
            '            while False:',
            'test_locks.py::test_nobody_enters_sqlite_while_a_fork_waits',
        ),
        Mutant(
            'a thread asks the index that another has just closed',
            'store.py',
            '                self._recover(self)\n        return index',
            '                self._recover(self)\n        return self._index',
            'test_locks.py::test_an_index_that_is_closed_as_soon_as_it_is_open',
        ),
        Mutant(
            'recovery deletes a row that was written meanwhile',
            'row_events.py',
            '[(*key, changed) for key, entry',
            "[(*key, index.get(*key).raw('changed')) for key, entry",
            'test_locks.py::test_recovery_leaves_a_row_that_was_written_meanwhile',
        ),
        Mutant(
            'files that are deleted while the index is opened are an error of the disk',
            'index/_opening.py',
            'if is_unreachable(fault) and self._inodes() != before:',
            'if False:',
            f'{OPENING}files_deleted_while_they_are_opened_are_opened_again',
        ),
        Mutant(
            'a forked child keeps a connection that a thread was just opening',
            'index/_connection.py',
            '        _opened.drivers.add(driver)',
            '        pass',
            f'{OPENING}a_forked_child_closes_what_a_thread_is_just_opening',
        ),
        Mutant(
            'a copied folder that is settled still tells of another resource',
            'recover.py',
            "            if record and record.get('ident') != self.ident:",
            '            if False:',
            f'{TRUTH}test_a_copied_folder_that_is_settled_tells_of_itself',
        ),
        Mutant(
            'a new run of a folder that was deleted is taken for a late one',
            'index/_writes.py',
            "    ' OR resources.finished_at < excluded.started_at'",
            '',
            f'{INDEX}a_run_that_began_after_the_stored_one_was_over_is_no_late_one',
        ),
        Mutant(
            'damage that SQLite describes in bytes that are no text is not taken for damage',
            'index/_validate.py',
            '    except FAULTS:\n        return True\n    return not stored',
            '    except FAULTS:\n        return False\n    return not stored',
            f'{OPENING}damage_that_is_met_in_mid_life_and_described_in_bytes_that_are_no_text',
        ),
        Mutant(
            'a statement that is refused in bytes that are no text is damage of the index',
            'index/_validate.py',
            'isinstance(fault, Altered)',
            'isinstance(fault, (UnicodeDecodeError, Altered))',
            f'{OPENING}a_statement_that_is_refused_in_bytes_that_are_no_text_is_no_damage',
        ),
    ],
    'many rows': [
        Mutant(
            'rows of all collections are counted as those of the largest',
            'index/_summary.py',
            "        counted[most]['completed'] -= rest\n",
            '',
            f'{ROWS_MANY}counts_are_those_of_group_by',
        ),
        Mutant(
            'a sample of durations passes for all of them',
            'index/_summary.py',
            '        sample = most if len(taken) > most else None',
            '        sample = None',
            f'{ROWS_MANY}durations_of_many_runs_are_those_of_the_last',
        ),
        Mutant(
            "a collection's folder stays open while the user's code runs",
            'engine/batch.py',
            'progress is not None or type(idents) not in (list, tuple, set, dict, range)',
            'progress is not None',
            'test_in_bulk.py::test_a_collection_that_the_users_code_replaces_is_looked_at_anew',
        ),
        Mutant(
            'who reads the rows of a statement slowly is stopped',
            'index/_sql.py',
            '            deadline = time.monotonic() + left\n',
            '',
            f'{ROWS_MANY}the_time_between_rows_of_sql_does_not_count',
        ),
        Mutant(
            'args of another hash are read by the pattern for records',
            'directory/record_pattern.py',
            '    if _hash_of(args) != known:',
            '    if False:',
            'test_records_as_we_write_them.py::test_what_is_nearly_ours_is_for_the_careful_reader[{"a":1}-{"a":2}]',
        ),
        Mutant(
            'a record is read by the pattern whatever status.json says',
            'scan.py',
            "        if state != known['status']:",
            '        if False:',
            'test_records_as_we_write_them.py::'
            'test_another_status_than_the_record_has_is_for_the_careful_reader',
        ),
        Mutant(
            'a row without a folder stays, since each folder has its row',
            'reindex.py',
            '        if rows == len(met):  # each that was met has its row by now',
            '        if True:',
            'test_cli_mending.py::test_reindex',
        ),
        Mutant(
            'what is not finished comes first from the end, too',
            'index/_statements.py',
            '                parts.reverse()',
            '                pass',
            f'{ROWS_MANY}pages_from_either_end_are_those_of_the_list[-finished_at-{{}}-{{}}]',
        ),
        Mutant(
            'a query that is iterated gives what passes its filters no more',
            'index/_statements.py',
            'again = [condition for condition in self._asked if not condition.asked_once]',
            'again: list[Condition] = []',
            f'{ROWS_MANY}what_is_written_during_an_iteration_is_given_once',
        ),
    ],
    'index faults': [
        Mutant(
            'only what SQLite calls damage is damage when an index is opened',
            'index/_validate.py',
            '        if not is_damage_at_opening(fault):',
            '        if not is_damage(fault):',
            f'{FAULTS}a_byte_changed_in_the_header_costs_a_rebuilding_at_most[stats]',
        ),
        Mutant(
            'a header that forbids to write is an error of the disk',
            'index/_opening.py',
            'is_damage(fault) or is_read_only_by_its_header(fault, self.path)',
            'is_damage(fault)',
            f'{FAULTS}a_byte_changed_in_the_header_costs_a_rebuilding_at_most[write]',
        ),
        Mutant(
            'cells of any type reach whoever asks',
            'index/_validate.py',
            '        if not _is_plainly(types, column) and not types.issuperset(map(type, column)):',
            '        if False:',
            f'{FAULTS}a_row_may_hold_anything[path-error]',
        ),
        Mutant(
            'a collection is known by its folder alone',
            'registry.py',
            ' or self._has_rows(name):',
            ':',
            f'{FAULTS}rows_without_a_folder_are_known_by_their_collection',
        ),
        Mutant(
            'without a temporary folder nothing can be read',
            'index/_readonly.py',
            '                built = self._built_in_memory()',
            '                raise',
            f'{FAULTS}where_nothing_can_be_written_rows_are_read_all_the_same[index]',
        ),
        Mutant(
            'building is tried again and again on a full disk',
            'index/_opening.py',
            '        if self._refusal is not None and time.monotonic() < self._refusal[0]:',
            '        if False:',
            f'{FAULTS}what_could_not_be_built_after_long_is_not_tried_at_once_again',
        ),
        Mutant(
            'what is closed during a rebuilding stays open',
            'index/__init__.py',
            '        close_kept_later()\n',
            '',
            f'{FAULTS}what_is_closed_during_a_rebuilding_is_closed_when_that_is_over',
        ),
    ],
    'whose index': [
        Mutant(
            'whatever stands where somebody puts the index is taken for a damaged one',
            'index/_validate.py',
            "        return self.is_own or mark == APPLICATION_ID.to_bytes(4, 'big')",
            '        return True',
            f'{WHOSE}a_file_that_is_not_ours_is_never_touched[text-given]',
        ),
        Mutant(
            'the index of another project is opened',
            'index/_validate.py',
            '    return number != mine and not (mine is None and place.is_own)',
            '    return False',
            f'{WHOSE}the_index_of_another_project_is_refused[elsewhere]',
        ),
        Mutant(
            'an index without a number is of another project',
            'index/_validate.py',
            '    if place.owner is None or number == 0:',
            '    if place.owner is None:',
            f'{WHOSE}an_index_of_an_earlier_release_gets_its_number[elsewhere]',
        ),
        Mutant(
            'a slip is remembered',
            'project/indexed.py',
            '            if path != self._base.index_path:\n',
            '            self._base.remember_index(path)\n            if path != self._base.index_path:\n',
            f'{WHOSE}a_file_that_is_not_ours_is_never_touched[text-given]',
        ),
        Mutant(
            'whoever wrote a note is believed',
            'basedir.py',
            '            if owner not in (os.geteuid(), base.st_uid):',
            '            if False:',
            f'{WHOSE}a_note_of_somebody_else_is_not_believed',
        ),
        Mutant(
            'hard links are written through',
            'index/_validate.py',
            'if status.st_nlink > 1 else',
            'if False else',
            f'{WHOSE}whatever_stands_in_its_place_costs_a_word_at_most[index.sqlite3-shm-hard link]',
        ),
        Mutant(
            'db current waits for a FIFO',
            'upgrade.py',
            '            if not stat.S_ISREG(found.st_mode):',
            '            if False:',
            f'{WHOSE}db_current_waits_for_no_fifo[index.sqlite3]',
        ),
        Mutant(
            'what a killed rebuilding left stays',
            'index/_opening.py',
            '                    _rebuild.sweep(self.path)',
            '                    pass',
            f'{WHOSE}what_a_killed_rebuilding_left_is_swept_away',
        ),
    ],
    'notes of ours': [
        Mutant(
            'a fetch mends the status of a copied folder, but not its record',
            'reuse.py',
            "        if record and record.get('ident') != job.ident:  # a copy made by hand",
            '        if False:',
            f'{CHECK}a_damaged_copy_of_a_long_name_stays_known_once_it_was_fetched',
        ),
        Mutant(
            'the lock of the index is made wherever a link in the place of .hadrosaur leads',
            'index/_lock.py',
            'fileops.opened(folder, fileops.LOOK)',
            'fileops.opened(folder, fileops.LOOK & ~os.O_NOFOLLOW)',
            f'{NOTES}a_link_that_is_put_in_the_place_of_dot_hadrosaur_leads_nowhere',
        ),
        Mutant(
            'a new index is built in .hadrosaur, where a link may stand by then',
            'index/_rebuild.py',
            "os.path.join(folder, f'.{name}.new')",
            "os.path.join(folder, f'.hadrosaur/{name}.new')",
            f'{NOTES}a_link_that_is_put_in_the_place_of_dot_hadrosaur_leads_nowhere',
        ),
        Mutant(
            'what a kill leaves of trying the disk has a name that nobody sweeps',
            'basedir.py',
            "        name = f'.{FORMAT_FILE}.{os.getpid()}.new'",
            "        name = f'.probe.{os.getpid()}.new'",
            'test_disk_faults.py::test_nothing_is_left_of_a_command_that_is_killed_while_it_tries_the_disk',
        ),
        Mutant(
            'a disk that refuses unlocking keeps the lock',
            'fileops.py',
            '        with contextlib.suppress(OSError):  # closing gives it back, too',
            '        if True:',
            f'{DISK}a_disk_that_refuses_unlocking_keeps_no_lock',
        ),
        Mutant(
            'the folder of sessions is listed by its path, where a link may stand by then',
            'basedir.py',
            '                names = os.listdir(sessions)',
            "                names = os.listdir(f'{self.hidden}/{SESSIONS}')",
            f'{NOTES}no_folder_is_listed_by_its_path',
        ),
        Mutant(
            'what is not a session is looked for, and removed, all the same',
            'basedir.py',
            '    if not _session_of(session):  # it came from a row',
            '    if False:  # it came from a row',
            f'{NOTES}a_row_names_no_file_as_its_session',
        ),
        Mutant(
            'recovery believes what a row says of its path',
            'dead_sessions.py',
            '        folder = directory.find_folder(path, entry.ident)',
            "        path, folder = f'{store.base.path}/{entry.path}'.rsplit('/', 1)",
            f'{NOTES}what_a_row_says_of_its_path_is_never_gone_after',
        ),
        Mutant(
            'sessions of another host are judged by their lock',
            'basedir.py',
            '    return session is not None and session[1] == HOST',
            "    return name.startswith(f'{HOST}-')",
            f'{NOTES}a_session_is_judged_by_its_own_host_alone',
        ),
        Mutant(
            'a deeply nested format.json is an error',
            'basedir.py',
            '        except (ValueError, RecursionError, FileNotFoundError):',
            '        except (ValueError, FileNotFoundError):',
            f'{NOTES}whatever_stands_for_format_json_is_replaced_or_named[deep]',
        ),
        Mutant(
            'a folder of ours may be a link',
            'private_files.py',
            '            fd = fileops.open_folder(name, fileops.LOOK, within=above)',
            '            fd = fileops.open_folder(name, fileops.LOOK & ~os.O_NOFOLLOW, within=above)',
            f'{NOTES}folders_of_ours_are_never_links',
        ),
        Mutant(
            'one bad request to cancel hides the others',
            'basedir.py',
            "rpartition('\\n')\n    except ValueError:\n",
            "rpartition('\\n')\n    except ZeroDivisionError:\n",
            f'{NOTES}one_bad_request_to_cancel_hides_no_other',
        ),
    ],
    'hard times': [
        Mutant(
            'what others have queued is computed here',
            'fetcher.py',
            'if not (store.queue([job], running=True) or retries) and store.is_queued(*job.key):',
            'if store.queue([job], running=True) is None:',
            f'{HARD}what_is_queued_is_pending_and_keeps_its_args',
        ),
        Mutant(
            'a row of our own that nobody carries out stops a fetch',
            'store.py',
            ' or row.session == self.base.known_session:',
            ':',
            f'{HARD}a_row_of_our_own_that_nobody_carries_out_stops_nobody',
        ),
        Mutant(
            'a request to cancel is for any later run',
            'executors/_chunk_host.py',
            '(job.path, job.queued_at) in requested}',
            'job.path in dict(requested)}',
            f'{HARD}a_cancel_request_is_for_the_run_that_was_meant',
        ),
        Mutant(
            'a child that was forked before the lock keeps it',
            'fileops.py',
            '            fcntl.flock(fd, fcntl.LOCK_UN)',
            '            pass',
            f'{HARD}a_child_that_has_a_copy_of_a_lock_does_not_keep_it',
        ),
        Mutant(
            'background work that somebody looked at is lost',
            'engine/dispatcher.py',
            '        if self._keep or run_result.entry.status',
            '        if True or run_result.entry.status',
            f'{HARD}a_lock_for_a_moment_does_not_lose_background_work',
        ),
        Mutant(
            'Ctrl-C at the end of a program stops nothing',
            'project/__init__.py',
            '        except KeyboardInterrupt:\n            self.close(cancel=True)',
            '        except ZeroDivisionError:\n            pass',
            f'{HARD}ctrl_c_while_the_program_waits_at_its_end',
        ),
        Mutant(
            'files that cannot be read for a moment are damaged',
            'fileops.py',
            '    return error.errno in _NO_FILE',
            '    return True',
            f'{HARD}what_cannot_be_read_for_a_moment_is_not_taken_for_lost',
        ),
        Mutant(
            'the row of a folder that cannot be read is deleted',
            'reindex.py',
            '            if found is None or (not found.is_unread and self._entry(found) is None):',
            '            if found is None or self._entry(found) is None:',
            f'{HARD}a_folder_that_cannot_be_read_keeps_its_row',
        ),
        Mutant(
            'too many open files count as a closed stdout',
            'capture.py',
            '        if error.errno == errno.EBADF:',
            '        if True:',
            f'{HARD}output_that_cannot_be_captured_leaves_the_programs_own_alone',
        ),
        Mutant(
            'no slot is made without the other',
            'executors/_scheduler.py',
            '            if not self._workers_alive:\n                raise',
            '            if True:\n                raise',
            f'{HARD}fewer_worker_processes_than_wanted',
        ),
        Mutant(
            'background work keeps workers that have failed',
            'engine/background.py',
            '        if dispatcher is not None and dispatcher.fault is not None:',
            '        if False:',
            f'{HARD}worker_processes_that_cannot_be_started',
        ),
        Mutant(
            'a nested fetch locks the folder where files are locked',
            'registry.py',
            '        return self._base.lock',
            "        return 'folder' if context.in_worker else self._base.lock",
            f'{LOCKFILE}what_is_computed_is_locked_everywhere',
        ),
        Mutant(
            'a lock file that was replaced counts',
            'directory/claim.py',
            'return fileops.is_same(self._lock, os.stat(LOCK, dir_fd=self.folder, follow_symlinks=False))',
            'return True',
            f'{LOCKFILE}a_lock_file_that_another_has_made_meanwhile_is_theirs',
        ),
        Mutant(
            'a copied base uses the index of the original',
            'basedir.py',
            'is_there = mine and os',
            'is_there = os',
            f'{FETCH}test_a_copied_base_leaves_the_index_of_the_original_alone',
        ),
        Mutant(
            'the first difference alone is judged',
            'registry.py',
            'self.strictest(whys)',
            'self.strictest(whys[:1])',
            f'{FETCH}test_of_several_differences_the_strictest_policy_counts',
        ),
        Mutant(
            'a child does not wait for its background work',
            'project/__init__.py',
            '        if self._exit_pid != os.getpid() and not context.in_worker:',
            '        if not self._exit_pid and not context.in_worker:',
            'test_locks.py::test_background_work_of_a_forked_child_is_waited_for',
        ),
        Mutant(
            "a child asks its parent's batch",
            'engine/batch.py',
            '        return self._dispatcher if os.getpid() == self._process else None',
            '        return self._dispatcher',
            'test_locks.py::test_a_forked_child_asks_nothing_of_its_parents_batch',
        ),
        Mutant(
            'a stand-in for stdout takes itself for the original',
            'capture.py',
            '        if standing is not router:',
            '        if True:',
            'test_locks.py::test_a_child_that_is_forked_during_a_capture_prints',
        ),
        Mutant(
            'a session that cannot be looked at is dead',
            'fileops.py',
            '        return not (isinstance(error, FileNotFoundError) or is_no_file(error))',
            '        return False',
            f'{HARD}a_session_that_cannot_be_looked_at_lives',
        ),
        Mutant(
            'a lock that cannot be taken keeps descriptors',
            'directory/claim.py',
            '            fileops.unlock(held)\n            if held != folder:',
            '            if held != folder:',
            f'{HARD}a_lock_that_cannot_be_taken_keeps_no_descriptor',
        ),
        Mutant(
            'a queued recompute forgets a result without a record',
            'compute.py',
            '    _record_as_it_is(claim, job, state, record)\n',
            '',
            f'{HARD}a_recompute_that_is_withdrawn_leaves_a_result_without_a_record',
        ),
        Mutant(
            'a recompute that is cut off forgets a result without a record',
            'compute.py',
            '        _record_as_it_is(claim, job, found.on_disk, found.record)\n',
            '        pass\n',
            f'{HARD}a_recompute_that_is_withdrawn_leaves_a_result_without_a_record',
        ),
        Mutant(
            'an executor that takes no more is told to nobody',
            'executors/futures.py',
            '            self._guard.notify_all()\n        self._pump()\n',
            '            self._guard.notify_all()\n',
            f'{HARD}an_executor_that_is_shut_down_in_mid_batch',
        ),
        Mutant(
            'the driver waits though it is to end',
            'executors/processes.py',
            'self._scheduler.select(wait=not (self._inbox or self._closing))',
            'self._scheduler.select(wait=not self._inbox)',
            f'{HARD}closing_while_the_driver_is_about_to_wait',
        ),
        Mutant(
            'a thread of ours fails unheard',
            'executors/threads.py',
            '                self._tell.failed(error)',
            '                pass',
            f'{HARD}a_thread_in_which_our_own_code_fails',
        ),
        Mutant(
            'what a function has changed is put back after its files are written',
            'compute.py',
            '            put_back()  # before anything of ours',
            '            pass  # before anything of ours',
            f'{SIBLINGS}[a limit of file sizes]',
        ),
        Mutant(
            'what a function leaves as root logger stays',
            'executors/worker_state.py',
            '            root.handlers[:] = handlers',
            '            pass',
            'test_siblings.py::test_logging_of_a_function_works_in_a_worker_as_anywhere',
        ),
        Mutant(
            'a worker that cannot be put back goes on',
            'executors/_worker_main.py',
            'if self._is_spoiled or self._runs >= most:',
            'if self._runs >= most:',
            'test_siblings.py::test_a_worker_whose_state_cannot_be_put_back_is_replaced',
        ),
        Mutant(
            'idle workers are killed at the end',
            'executors/_scheduler.py',
            '                worker.close_after_fork()',
            '                worker.kill()',
            'test_siblings.py::test_workers_are_let_go_as_programs_end',
        ),
        Mutant(
            'an exception group is its own cause',
            'fingerprint.py',
            '        if isinstance(inner, BaseExceptionGroup):',
            '        if False:',
            'test_failures_by_cause.py::test_what_is_in_an_exception_group_is_the_cause[inline]',
        ),
        Mutant(
            'workers of the background go on with a module as it was',
            'executors/processes.py',
            '        if is_changed or (len',
            '        if (len',
            'test_code_of_now.py::test_a_module_that_was_loaded_again',
        ),
        Mutant(
            'background work computes what a function was at first',
            'executors/processes.py',
            '        self._packed.clear()\n        code',
            '        code',
            'test_code_of_now.py::test_what_a_script_changes_about_its_functions',
        ),
        Mutant(
            'workers of other code are not let go',
            'executors/_scheduler.py',
            '            self._let_go_of_others(generation)',
            '            pass',
            'test_code_of_now.py::test_a_module_that_was_loaded_again',
        ),
        Mutant(
            'classes of a script are nowhere in a worker',
            'executors/_function_source.py',
            '        vars(module).update(things)',
            '        pass',
            'test_code_of_now.py::test_classes_of_a_script_in_a_worker',
        ),
        Mutant(
            'modules that no worker finds go by reference',
            'executors/_function_source.py',
            '            if self._by_value[name] and module is not None:',
            '            if False:',
            'test_code_of_now.py::test_functions_of_modules_that_no_name_finds[by_hand]',
        ),
        Mutant(
            'the front of an unfinished line is lost with its worker',
            'executors/_scheduler.py',
            "'last_words': worker.last_words(), ",
            '',
            f'{LAST}unfinished_lines_are_in_the_logs_of_what_was_killed[os._exit(3)]',
        ),
        Mutant(
            'what was flushed is told again',
            'capture.py',
            '        super().flush()\n        if _last_words is not None:',
            '        super().flush()\n        if False:',
            f'{LAST}lines_are_kept_whole_and_told_once',
        ),
        Mutant(
            'a forked child writes into the memory of its parent',
            'capture.py',
            '    _last_words, _is_child = None, True',
            '    _is_child = True',
            f'{LAST}a_forked_child_of_a_function_has_words_of_its_own',
        ),
        Mutant(
            'threads that stay write where their streams led once',
            'capture.py',
            '                    stream.lead_elsewhere(fileops.out_of_reach(os.dup(log)))',
            '                    pass',
            f'{LAST}threads_that_stay_write_to_the_log_of_their_resource',
        ),
        Mutant(
            'threads that stay print to the log of another',
            'capture.py',
            '        if not _in_worker or not _left_alive:',
            '        if True:',
            f'{LAST}threads_that_stay_write_to_the_log_of_their_resource',
        ),
        Mutant(
            'between two runs a thread that stays prints into nothing, or into the next log',
            'capture.py',
            'return _routers if _in_worker and _left_alive else self._stdio',
            'return self._stdio',
            f'{LAST}a_thread_that_stays_prints_while_a_later_run_begins_and_ends',
        ),
        Mutant(
            'a stream that a function has detached is used again',
            'capture.py',
            '                _ours.clear()\n        flush_c()',
            '                pass\n        flush_c()',
            f'{LAST}whatever_a_function_does_to_its_streams[processes]',
        ),
        Mutant(
            'what a function puts in the place of a router stays',
            'capture.py',
            '        _routing.restore(mine)',
            '        pass',
            f'{LAST}whatever_a_function_does_to_its_streams[threads]',
        ),
        Mutant(
            'a worker keeps the environment of its template',
            'executors/template.py',
            "    os.environb.update(state['environ'])",
            "    os.environ['HADROSAUR_OLD'] = 'yes'",
            'test_template.py::test_a_worker_is_what_its_program_is_now',
        ),
        Mutant(
            'a template that is given up does not wait for its workers',
            'executors/template.py',
            '                sources.remove(control.fileno())',
            '                return None',
            'test_template.py::test_a_template_that_is_given_up_still_tells_how_its_workers_ended',
        ),
        Mutant(
            'the second template that is killed takes the batch with it',
            'executors/_worker_process.py',
            'reversed(range(_TEMPLATES))',
            'reversed(range(2))',
            'test_template.py::test_templates_that_are_killed_one_after_the_other',
        ),
        Mutant(
            'a worker that nobody was told of keeps its connection',
            'executors/_worker_process.py',
            '            ours.close()\n            if not',
            '            ours.detach()\n            if not',
            'test_template.py::test_a_worker_that_nobody_was_told_of_takes_no_orders',
        ),
        Mutant(
            'a template never ends by itself',
            'executors/template.py',
            '        elif len(sources) == 1 or time.monotonic() - idle_since >= IDLE:',
            '        elif len(sources) == 1:',
            'test_template.py::test_an_idle_template_ends',
        ),
        Mutant(
            'a worker is waited for although its template was killed',
            'executors/template.py',
            '            self.returncode = -signal.SIGKILL',
            '            pass',
            'test_template.py::test_a_template_that_is_killed',
        ),
        Mutant(
            'pidfd is used where the kernel has none',
            'executors/_worker_process.py',
            '    except (AttributeError, OSError):',
            '    except AttributeError:',
            f'{HARD}a_kernel_that_knows_no_pidfd',
        ),
        Mutant(
            'the driver spins while a worker dies',
            'executors/_scheduler.py',
            '        if worker.loading or worker.kill_reason:  # it',
            '        if worker.loading:  # it',
            f'{HARD}the_driver_rests_while_a_killed_worker_takes_its_time',
        ),
        Mutant(
            'an import may hang for ever',
            'executors/_scheduler.py',
            '                if timeout and now - worker.head_since',
            '                if False and now - worker.head_since',
            f'{HARD}an_import_that_hangs_ends',
        ),
        Mutant(
            'a folder in the place of a file stays on macOS',
            'fileops.py',
            '        except (IsADirectoryError, PermissionError) as error:  # macOS',
            '        except IsADirectoryError as error:  # macOS',
            f'{HARD}a_folder_where_a_file_should_be_goes_everywhere',
        ),
        Mutant(
            'a thread of a function belongs to what another fetches',
            'context.py',
            '            return _in_worker[0] if _in_worker else None',
            '            return _in_worker[-1] if _in_worker else None',
            f'{MANY}test_a_function_may_fetch_from_threads_of_its_own',
        ),
        Mutant(
            'rows of another project travel',
            'store.py',
            '        if self._running is not None and context.base_of(self._running) == self.base.path:',
            '        if self._running is not None:',
            f'{MANY}test_a_function_may_fetch_from_another_project',
        ),
        Mutant(
            'the same name in two projects is a circle',
            'records.py',
            'return (self.spec.base, self.spec.collection, self.ident)',
            "return ('', self.spec.collection, self.ident)",
            f'{MANY}test_a_function_may_fetch_from_another_project',
        ),
        Mutant(
            'files of dead sessions stay',
            'basedir.py',
            '                    fileops.remove(other, sessions)',
            '                    pass',
            f'{MANY}test_files_of_sessions_that_are_over_go',
        ),
        Mutant(
            'a project that is sent to a spawned process forgets the script',
            'registry.py',
            '        return _is_spawning()',
            '        return False',
            f'{MANY}test_fetch_as_the_target_of_a_process',
        ),
        Mutant(
            'a path of an index is read as a URL',
            'upgrade.py',
            "URL.create('sqlite', database=str(Path(path).absolute()))",
            "f'sqlite:///{Path(path).absolute()}'",
            'test_upgrade.py::test_a_path_is_no_url',
        ),
        Mutant(
            'a dropped project keeps its session',
            'basedir.py',
            '        self._forget = end\n',
            '        end.detach()\n',
            f'{HARD}a_project_that_is_dropped_gives_its_session_back',
        ),
        Mutant(
            'requests to cancel expire unread',
            'basedir.py',
            "if name[0] != '.' and (request := _request(name, folder)):",
            'if made in _first_seen and (request := _request(name, folder)):',
            f'{HARD}old_requests_to_cancel_are_read_before_they_go',
        ),
        Mutant(
            'a folder is looked for without end',
            'directory/claim.py',
            '            for _ in range(_TRIES):',
            '            while True:',
            f'{HARD}a_folder_that_is_another_each_time_is_given_up',
        ),
        Mutant(
            'another ident is served where upper is lower case',
            'handle.py',
            '        if not fileops.has_name(opened, folder):',
            '        if False:',
            f'{HARD}a_disk_that_does_not_tell_upper_from_lower_case',
        ),
        Mutant(
            'sending to a slot that hangs waits for it',
            'executors/_worker_process.py',
            '                del self.unsent[: self.connection.send(self.unsent, socket.MSG_DONTWAIT)]',
            '                del self.unsent[: self.connection.send(self.unsent)]',
            f'{HARD}sending_to_a_slot_never_waits',
        ),
        Mutant(
            'retired slots pile up',
            'executors/_scheduler.py',
            '            self._retired[0].kill()',
            '            pass',
            f'{HARD}slots_whose_threads_never_end_are_not_kept_for_ever',
        ),
        Mutant(
            'a cancelled order that comes back is run',
            'executors/_scheduler.py',
            '        self._put_back(work_items)\n        self._workers_alive.remove(worker)',
            '        self._waiting.extendleft(reversed(work_items))\n'
            '        self._workers_alive.remove(worker)',
            f'{HARD}what_was_cancelled_behind_a_slot_that_retires_is_not_run',
        ),
        Mutant(
            'a batch that ends closes the slots of another',
            'executors/_chunk_host.py',
            '        ended = [key for key, host in _hosts.items() if owner in (None, host.owner)]',
            '        ended = list(_hosts)',
            f'{HARD}a_batch_that_ends_leaves_another_ones_workers_alone',
        ),
        Mutant(
            'orders are handed over under the lock of retries',
            'engine/dispatcher.py',
            '        # Without the lock: an executor',
            '        with self._changing:\n            self._hand_over(submissions, 0.0)\n'
            '            return\n'
            '        # Without the lock: an executor',
            f'{HARD}an_outcome_may_be_told_while_orders_are_handed_over',
        ),
        Mutant(
            'a retry that the index refuses ends the batch',
            'store.py',
            "self.rows.put(Event('queue', [_queued(",
            "self.index.queue([_queued(job, 'queued')]), (Event('queue', [_queued(",
            f'{HARD}an_index_that_is_locked_when_a_run_is_tried_again',
        ),
        Mutant(
            'a batch that is dropped is ended on the spot',
            'engine/batch.py',
            'self._ender.ask(partial(self._end, interrupt=False))',
            'self._end(interrupt=False)',
            f'{HARD}a_batch_dropped_while_its_locks_are_held',
        ),
        Mutant(
            'a failed run that is tried again counts as done',
            'fetcher.py',
            "        is_tried_again = state == 'absent' or bool(collection.retries)",
            "        is_tried_again = state == 'absent'",
            f'{HARD}a_fetch_waits_for_the_last_try',
        ),
    ],
    'query': [
        Mutant(
            'filter: exact values (collection, ident, error type and group) give the others',
            'index/_filters.py',
            'return compiled(is_in(column, marks(number)))',
            'return compiled(not_(is_in(column, marks(number))))',
            f"{FILTER}[{{'collection': ['c', 'd']}}]",
        ),
        Mutant(
            'filter: status gives the others',
            'index/_filters.py',
            '    tests = [ROW.status == literal_column',
            '    tests = [ROW.status != literal_column',
            f"{FILTER}[{{'status': 'error'}}]",
        ),
        Mutant(
            'filter: only the head of an ident pattern counts',
            'index/_filters.py',
            'ROW.ident < ANY, _IS_LIKE)',
            'ROW.ident < ANY, ANY.is_not(None))',
            f"{FILTER}[{{'ident': 'a?b*'}}]",
        ),
        Mutant(
            'filter: the upper bound of an ident pattern is dropped by one',
            'index/_filters.py',
            '    return head[:-1] + chr(following)',
            '    return head',
            f"{FILTER}[{{'ident': 'a*'}}]",
        ),
        Mutant(
            'filter: an ident pattern that begins with a star needs its text further on',
            'index/_filters.py',
            'func.instr(ROW.ident, ANY) > NEVER',
            "func.instr(ROW.ident, ANY) > literal_column('1')",
            f"{FILTER}[{{'ident': '[!a]*'}}]",
        ),
        Mutant(
            'filter: error tells upper from lower case',
            'index/_functions.py',
            '    folded = message.casefold()',
            '    folded = message',
            f"{FILTER}[{{'error': 'bad'}}]",
        ),
        Mutant(
            'filter: args take 0 for False',
            'index/_functions.py',
            '    if type(stored) is not type(wanted):\n        return False',
            '    if stored == wanted:\n        return True',
            f"{FILTER}[{{'args': [{{'b': 2}}, {{'a': False}}]}}]",
        ),
        Mutant(
            'filter: args that are missing are null',
            'index/_functions.py',
            'return args.get(name, MISSING)',
            'return args.get(name)',
            f"{FILTER}[{{'args': [{{'b': 2}}, {{'nothing': None}}]}}]",
        ),
        Mutant(
            'filter: since leaves out its own moment',
            'index/_filters.py',
            'ROW.finished_at >= ANY',
            'ROW.finished_at > ANY',
            f"{FILTER}[{{'since': '2026-01-01T00:00:20+00:00'}}]",
        ),
        Mutant(
            'filter: since leaves out what is not finished',
            'index/_filters.py',
            '_UNFINISHED, ROW.started_at >= ANY',
            '_UNFINISHED, ROW.started_at >= ANY, ROW.started_at.is_(None)',
            f"{FILTER}[{{'since': '2026-01-01T00:00:20+00:00'}}]",
        ),
        Mutant(
            'filter: until leaves out what is not finished',
            'index/_filters.py',
            'ROW.started_at <= ANY)',
            'ROW.started_at <= ANY, ROW.started_at.is_(None))',
            f"{FILTER}[{{'until': '2026-01-02'}}]",
        ),
        Mutant(
            'filter: the least duration is left out',
            'index/_filters.py',
            "_bound('min_duration', ROW.duration >= ANY",
            "_bound('min_duration', ROW.duration > ANY",
            f"{FILTER}[{{'min_duration': 1}}]",
        ),
        Mutant(
            'uses: what is only read from the disk is not recorded',
            'fetcher.py',
            '        if inside is not None:\n            inside.note_use(resource)\n        return',
            '        return',
            'test_uses.py::test_saved_ones_are_recorded_too',
        ),
        Mutant(
            'uses: what a batch gives is not recorded',
            'engine/batch.py',
            '        self._store.note_use(resource)',
            '        pass',
            'test_uses.py::test_what_a_function_fetches_is_recorded[inline]',
        ),
        Mutant(
            'uses: one that the function computes again counts twice',
            'context.py',
            '        running._uses.pop((',
            '        ((',
            'test_uses.py::test_one_that_was_recomputed_in_between',
        ),
        Mutant(
            'uses: what a setup fetched the first run alone used',
            'compute.py',
            '    running._uses = {key: runs.copy() for key, runs in made.uses.items()}',
            '    pass',
            'test_uses.py::test_what_a_setup_fetches_every_run_uses',
        ),
        Mutant(
            'uses: rows that change keep what they used before',
            'schema.py',
            'CREATE TRIGGER uses_of_changed AFTER UPDATE OF uses ON resources WHEN OLD.uses IS NOT NEW.uses',
            'CREATE TRIGGER uses_of_changed AFTER UPDATE OF uses ON resources WHEN 0',
            'test_uses.py::test_rows_and_uses_go_together',
        ),
        Mutant(
            'stale: one that is being computed makes nothing stale',
            'index/_stale.py',
            "r.ident IS NULL OR r.status = 'pending' OR",
            'r.ident IS NULL OR',
            'test_stale.py::test_stale_is_what_an_oracle_says',
        ),
        Mutant(
            'stale: it goes no further than one step',
            'index/_stale.py',
            'FROM stale AS s JOIN uses AS u ON u.used_collection = s.collection',
            'FROM stale AS s JOIN uses AS u ON false AND u.used_collection = s.collection',
            'test_stale.py::test_stale_is_what_an_oracle_says',
        ),
        Mutant(
            'stale: a folder that is looked at tells nothing of what its upstream used',
            'dependencies.py',
            '        level = further\n    return None',
            '        break\n    return None',
            'test_stale.py::test_stale_is_what_an_oracle_says',
        ),
        Mutant(
            'stale: what is stale upstream, and kept, is a reason to compute again and again',
            'dependencies.py',
            '            if only_cured and len(chain) > 1 and not',
            '            if False and len(chain) > 1 and not',
            'test_stale.py::test_recompute_passes_over_what_a_fetch_would_give_as_it_is',
        ),
        Mutant(
            'stale: a worker takes what is stale for what was asked for',
            'reuse.py',
            '    if job.stale_run is not None and job.stale_run == directory.recorded_run(record):\n'
            '        return False\n',
            '',
            'test_stale.py::test_recompute_follows_the_policies_down[inline]',
        ),
        Mutant(
            'stale: what others used comes in no order',
            'dependencies.py',
            '        used.setdefault(key, set()).update(',
            '        used.setdefault(key, set()).difference(',
            'test_stale.py::test_one_collection_that_uses_itself',
        ),
        Mutant(
            'stale: two who find it compute it twice',
            'store.py',
            'is_stale = looks and bool(collection.causes(',
            'is_stale = looks or bool(collection.causes(',
            'test_stale.py::test_two_who_find_it_stale_compute_it_once',
        ),
        Mutant(
            'stale: idents of other collections are computed in the one that is named',
            'project/__init__.py',
            'for entry in self._query._rows() if entry.collection == self._collection}',
            'for entry in self._query._rows()}',
            'test_stale.py::test_fetch_many_of_what_is_stale_goes_from_the_leaves_up',
        ),
        Mutant(
            'inputs: a file that was written twice in a tick is the same',
            'inputs.py',
            'mtime_ns = found.st_mtime_ns if _is_settled(found) else _NO_TIME',
            'mtime_ns = found.st_mtime_ns',
            'test_inputs.py::test_what_is_written_twice_in_a_tick_of_the_clock_has_changed',
        ),
        Mutant(
            'inputs: a file that was only touched has changed',
            'inputs.py',
            'now.st_mtime_ns != mtime_ns and _digest(path, now) != digest',
            'now.st_mtime_ns != mtime_ns',
            'test_inputs.py::test_a_changed_file_makes_its_resource_stale[inline]',
        ),
        Mutant(
            'inputs: they are looked at after the run',
            'compute.py',
            '        files.extend(inputs.take(named, running.collection, running.ident, args))',
            '        files.extend([])',
            'test_inputs.py::test_a_change_while_it_runs_is_a_change',
        ),
        Mutant(
            'code: what an object wraps is not looked at',
            'codes.py',
            '        for each in [called, *held] if is_ours else held:',
            '        for each in [called] if is_ours else held:',
            'test_code_of.py::test_what_an_object_wraps_counts[an object]',
        ),
        Mutant(
            'code: a docstring is code',
            'codes.py',
            "        found['body'] = body[1:]",
            '        pass',
            'test_code_of.py::test_what_changes_nothing[docstring]',
        ),
        Mutant(
            'code: the type of a constant makes no difference',
            'codes.py',
            "        found['value'] = [type(node.value).__name__, repr(node.value)]",
            "        found['value'] = str(int(node.value or 0))",
            'test_code_of.py::test_what_changes_the_code[a type]',
        ),
        Mutant(
            'filter: no version is never stale',
            'index/_stale.py',
            'r.version IS NOT d.version',
            'r.version <> d.version',
            f"{FILTER}[{{'stale': True}}]",
        ),
        Mutant(
            'filter: what is not stale is what is stale',
            'index/_stale.py',
            'resources.ident) NOT IN',
            'resources.ident) IN',
            f"{FILTER}[{{'stale': False}}]",
        ),
        Mutant(
            'NULLs come first',
            'index/_statements.py',
            "        text += ' NULLS FIRST' if is_backward else ' NULLS LAST'",
            '        pass',
            f'{QUERY}every_column_orders_both_ways[{{}}--duration]',
        ),
        Mutant(
            'sql may change settings',
            'index/_sql.py',
            '    return sqlite3.SQLITE_DENY\n',
            '    return sqlite3.SQLITE_OK\n',
            f'{INDEX}sql_only_reads[PRAGMA query_only = OFF]',
        ),
        Mutant(
            'notebooks run what an ident says',
            'sanitize.py',
            '{escape(text)}</td>',
            '{text}</td>',
            'test_frames.py::test_notebooks_show_hostile_text_escaped[query]',
        ),
        Mutant(
            'frames have times without a zone',
            'dataframes.py',
            "moments.astype('datetime64[us, UTC]')",
            'moments.dt.tz_localize(None)',
            'test_frames.py::test_to_pandas',
        ),
    ],
    'fetch_many': [
        Mutant(
            'the idents are held whole',
            'engine/_items.py',
            'idents.items() if isinstance(idents, Mapping) else idents\n',
            'idents.items() if isinstance(idents, Mapping) else list(idents)\n',
            f'{MANY}test_idents_are_pulled_lazily[inline-200]',
        ),
        Mutant(
            'idents are pulled though nobody takes results',
            'engine/batch.py',
            '                if not self._is_hungry(1.0):',
            '                if False:',
            f'{MANY}test_idents_are_pulled_lazily[inline-200]',
        ),
        Mutant(
            'saved results are read ahead without end',
            'engine/batch.py',
            '        while len(self._ready) < GROUP:',
            '        while True:',
            f'{MANY}test_saved_results_are_not_held_whole',
        ),
        Mutant(
            'repeats are not merged',
            'engine/batch.py',
            '        if ident in self._in_flight:',
            '        if False:',
            f'{MANY}test_repeated_idents_are_merged[processes]',
        ),
        Mutant(
            'a death is blamed on the last order of a slot',
            'executors/_scheduler.py',
            '        elif work_items and not self._blamed(worker, work_items[0]):',
            '        elif work_items and not self._blamed(worker, work_items[-1]):',
            f'{MANY}test_a_death_costs_exactly_its_own_resource',
        ),
        Mutant(
            'what waited behind a dead one is lost',
            'executors/_scheduler.py',
            'item for item in reversed(work_items) if not item.is_cancelled',
            '()',
            f'{MANY}test_a_death_costs_exactly_its_own_resource',
        ),
        Mutant(
            'files of the current folder are modules of a slot',
            'executors/_worker_process.py',
            "'import sys; sys.path[:] = sys.argv[2:]; '",
            "'import sys; sys.path += sys.argv[2:]; '",
            f'{MANY}test_files_of_the_callers_folder_are_no_modules_of_a_slot[unforked]',
        ),
        Mutant(
            'what runs here is polled for',
            'project/in_flight.py',
            '                dispatcher.wait_idle(collection, ident, seconds)\n                return\n',
            '                pass\n',
            f'{MANY}test_what_runs_here_is_awaited_without_polling',
        ),
        Mutant(
            'one who waits takes the news from another',
            'engine/dispatcher.py',
            '            self._told.notify_all()',
            '            self._told.notify()',
            f'{MANY}test_news_that_came_before_the_waiting_is_not_missed',
        ),
        Mutant(
            'news before the waiting is missed',
            'engine/dispatcher.py',
            '            self._told.wait_for(lambda: self.version != seen, seconds)',
            '            self._told.wait(seconds)',
            f'{MANY}test_news_that_came_before_the_waiting_is_not_missed',
        ),
        Mutant(
            'one resource on its way is looked for among all',
            'engine/dispatcher.py',
            '        if collection is not None and ident is not None:\n            submission',
            '        if ident == 0:\n            submission',
            f'{MANY}test_one_among_many_in_the_background_is_found_by_its_name',
        ),
        Mutant(
            'a worker needs descriptor 2 of its caller',
            'executors/_worker_process.py',
            'stderr=None if _is_inherited(2) else subprocess.DEVNULL',
            'stderr=None',
            f'{MANY}test_slots_start_where_descriptors_are_closed[unforked-own]',
        ),
        Mutant(
            'what else is in sys.path goes to the worker',
            'executors/base.py',
            'for entry in sys.path if isinstance(entry, str))',
            'for entry in sys.path)',
            f'{MANY}test_slots_start_whatever_an_embedding_program_left',
        ),
        Mutant(
            'a frozen program is started as a worker',
            'executors/processes.py',
            '        require_python()\n',
            '',
            f'{MANY}test_a_program_that_is_no_python_starts_no_workers',
        ),
        Mutant(
            'orders of workers that failed stay pending',
            'engine/dispatcher.py',
            '            self._store.unqueue(jobs)  # nobody',
            '            pass  # nobody',
            f'{MANY}test_workers_that_failed_leave_nothing_pending',
        ),
        Mutant(
            'the script of a spawned process goes by its name',
            'executors/_function_source.py',
            'isinstance(module, ModuleType) and not self',
            "name != '__mp_main__' and isinstance(module, ModuleType) and not self",
            f'{MANY}test_functions_of_a_script_in_a_process_that_was_spawned',
        ),
        Mutant(
            'a worker that others collected exited with status 0',
            'executors/_worker_process.py',
            '    if not code:',
            '    if False:',
            f'{MANY}test_a_worker_that_was_collected_by_others',
        ),
        Mutant(
            'a group that the umask lets in cannot write the index',
            'index/_rebuild.py',
            'os.O_CLOEXEC, 0o666))',
            'os.O_CLOEXEC, 0o644))',
            f'{FETCH}test_a_group_may_write_the_index_where_the_umask_lets_it',
        ),
        Mutant(
            'who reads an index leaves files beside it',
            'index/_readonly.py',
            "        if os.path.exists(f'{path}-shm') or not os.access(os.path.dirname(path), os.W_OK):",
            '        if True:',
            f'{OPENING}who_only_reads_leaves_nothing_in_a_folder_that_he_may_write',
        ),
        Mutant(
            'revoked orders still run',
            'executors/_worker_main.py',
            '        self._orders = deque(job for job in jobs if job[1][0] not in revoked)',
            '        pass',
            f'{MANY}test_an_order_that_is_sent_again_can_be_revoked_again',
        ),
        Mutant(
            'what waits behind one that hangs is not handed over',
            'executors/_scheduler.py',
            '                self._hand_over(worker)\n',
            '                pass\n',
            f'{MANY}test_a_hanging_head_loses_its_queue',
        ),
        Mutant(
            'what was never begun stays pending after a cancel',
            'engine/dispatcher.py',
            '        self._store.unqueue(jobs)\n        if self._keep',
            '        if self._keep',
            f'{MANY}test_cancelling_keeps_an_old_result_that_was_not_begun',
        ),
        Mutant(
            'Ctrl-C ends nothing: what runs goes on',
            'engine/batch.py',
            '            self._dispatcher.stop(interrupt=interrupt)',
            '            pass',
            f'{MANY}test_ctrl_c_leaves_nothing_pending[]',
        ),
        Mutant(
            'Ctrl-C kills at once, and is called a cancel',
            'executors/processes.py',
            '            self._scheduler.cancel(set(self._tickets), signal.SIGINT)',
            '            self._scheduler.cancel(set(self._tickets), signal.SIGKILL)',
            f'{MANY}test_ctrl_c_leaves_nothing_pending[]',
        ),
        Mutant(
            'slots are left alive at the end',
            'executors/_scheduler.py',
            '            worker.discard(max(0.0, deadline - time.monotonic()))',
            '            pass',
            f'{MANY}test_nothing_is_left_afterwards',
        ),
        Mutant(
            'two callers do the same work twice',
            'reuse.py',
            "    return job.recompute == 'no' or not differs(record or {}, job.args, job.spec)",
            '    return False',
            f'{MANY}test_two_callers_share_the_work',
        ),
        Mutant(
            'what threads print that a function has left lands in the next log',
            'capture.py',
            '        if new:',
            '        if False:',
            f'{MANY}test_a_function_that_leaves_threads',
        ),
        Mutant(
            'a batch that was never started is dropped in silence',
            'engine/batch.py',
            "        if self._dispatcher is None and not self._tally['total']:",
            '        if False:',
            f'{MANY}test_a_dropped_batch_warns',
        ),
    ],
    'commands': [
        Mutant(
            'run exits with 0 though some failed',
            'cli/run.py',
            '    return FAILED if counts.error else DONE',
            '    return DONE',
            'test_cli_running.py::test_run_with_failures',
        ),
        Mutant(
            'check exits with 0 though something is left',
            'cli/maintenance.py',
            '    return DISAGREE if report.remaining else DONE',
            '    return DONE',
            'test_cli_mending.py::test_check_finds_and_fixes',
        ),
        Mutant(
            'an interrupted command exits with 0',
            'cli/exit_codes.py',
            '        return INTERRUPTED',
            '        return DONE',
            'test_cli.py::test_faults_become_exit_codes[KeyboardInterrupt-int]',
        ),
        Mutant(
            'a refusal exits with 1, whatever was wrong',
            'cli/exit_codes.py',
            '    return error.exit_code',
            '    return FAILED',
            'test_cli.py::test_exit_codes',
        ),
        Mutant(
            '--json is no JSON',
            'cli/output.py',
            '    print(json_text(value, indent=2))',
            '    print(value)',
            'test_cli_mending.py::test_check_deep_finds_what_was_edited',
        ),
        Mutant(
            'messages go to stdout',
            'cli/output.py',
            '    print(printable(text), file=sys.stderr, flush=True)',
            '    print(printable(text), flush=True)',
            'test_cli_mending.py::test_check_finds_nothing',
        ),
        Mutant(
            'a CSV cell is a formula',
            'cli/output.py',
            """    return f"'{text}" if text.startswith(FORMULA) else text""",
            '    return text',
            'test_cli_tools.py::test_csv_cells_are_inert',
        ),
        Mutant(
            'an escape sequence in an ident reaches the terminal',
            'sanitize.py',
            "    return ''.join(char if char.isprintable() else _escaped(char) for char in text)",
            '    return text',
            'test_cli_tools.py::test_visible_shows_what_would_not_print',
        ),
        Mutant(
            'rm -n says that it would delete what runs',
            'cli/maintenance.py',
            "    if project.get(collection, ident).status == 'pending':",
            '    if False:',
            'test_cli_mending.py::test_rm_refuses_what_runs',
        ),
        Mutant(
            'the progress line goes to stdout',
            'progress.py',
            '        print(self.sentence(counts), file=sys.stderr, flush=True)',
            '        print(self.sentence(counts), flush=True)',
            'test_progress.py::test_piped_progress_is_plain_lines',
        ),
        Mutant(
            'the last progress line is not shown',
            'progress.py',
            '        if self._counts is not None and self.says_end:\n            self.draw(self._counts)',
            '        pass',
            'test_progress.py::test_piped_progress_ends_with_the_final_counts',
        ),
        Mutant(
            'a view that the README shows is gone',
            'schema.py',
            'CREATE VIEW status_counts AS',
            'CREATE VIEW counts_by_status AS',
            'test_readme.py::test_shell_lines_run_on_the_tutorial',
        ),
    ],
    'architecture': [
        Mutant(
            'threads that are the first wait for each other to import SQLAlchemy',
            'index/_filters.py',
            'from sqlalchemy import and_',
            'from sqlalchemy.sql import and_',
            'test_architecture.py::test_sqlalchemy_is_imported_as_a_whole_first[_filters]',
        ),
        Mutant(
            'a module imports from a floor above',
            'fileops.py',
            '    from collections.abc import Callable, Iterator\n',
            '    from collections.abc import Callable, Iterator\n    from .store import Store\n',
            'test_architecture.py::test_imports_go_only_downward[fileops]',
        ),
        Mutant(
            '`import hadrosaur` loads SQLAlchemy',
            '__init__.py',
            'from .handle import Resource\n',
            'from . import schema as schema\nfrom .handle import Resource\n',
            'test_architecture.py::test_light_imports[import hadrosaur]',
        ),
        Mutant(
            'the worker loads SQLAlchemy',
            'executors/_worker_main.py',
            'from .. import capture, compute, context, fileops, stack_dump\n',
            'from .. import capture, compute, context, fileops, schema, stack_dump\n',
            'test_architecture.py::test_light_imports[import hadrosaur.executors._worker_main]',
        ),
        Mutant(
            'a saved result opens the index',
            'fetcher.py',
            "        if found.state != 'completed':\n            return found.state, None\n        if found",
            '        self._live.index.get(collection.name, ident)\n        if found',
            'test_architecture.py::test_cached_fetch_loads_no_sqlalchemy',
        ),
    ],
    'migrations': [
        Mutant(
            'an upgrade that is killed between two statements leaves one of them',
            'upgrade.py',
            "        connection.exec_driver_sql('BEGIN IMMEDIATE')",
            '        pass',
            'torture/p16_upgrade.py::test_killed_anywhere',
        ),
        Mutant(
            'a short write is taken for a whole one',
            'fileops.py',
            '    while done < len(data):',
            '    while False:',
            'torture/p6_faults.py::test_short_writes_and_no_space',
        ),
        Mutant(
            'a base whose notes cannot be read is a mistake in usage',
            'errors.py',
            'or are of a newer release."""\n\n    exit_code = 5',
            'or are of a newer release."""\n\n    exit_code = 2',
            'test_disk_faults.py::test_a_command_says_what_where_and_what_to_do[*/format.json-kinds1-5-words1]',
        ),
        Mutant(
            'a full disk is told without the next step',
            'cli/exit_codes.py',
            '    if error.errno in _NEXT_STEP:',
            '    if False:',
            'test_disk_faults.py::test_a_command_says_what_where_and_what_to_do[coll-kinds2-116-words2]',
        ),
        Mutant(
            'what is tried again and again is taken for progress, and waited for without end',
            'row_writer.py',
            '            if self._done - self._retried > done:',
            '            if self._done > done:',
            'test_disk_faults.py::test_what_is_tried_again_is_no_progress',
        ),
        Mutant(
            'what a killed process left of writing format.json stays for good',
            'basedir.py',
            '            private_files.sweep(FORMAT_FILE, hidden)',
            '            pass',
            'test_disk_faults.py::test_what_a_killed_process_left_of_format_json_is_swept_up',
        ),
        Mutant(
            'an index is built without the folders that no descriptor was left for',
            'registry.py',
            '            raise\n        return False\n\n\ndef _has_status',
            '            pass\n        return False\n\n\ndef _has_status',
            'test_disk_faults.py::test_without_descriptors_nothing_is_missing[coll]',
        ),
        Mutant(
            'a folder that cannot be read while the index is built is left out in silence',
            'reindex.py',
            '    if unread:',
            '    if False:',
            'test_disk_faults.py::test_an_index_built_without_a_folder_says_so',
        ),
        Mutant(
            'too many open files: every folder is called unreadable',
            'fileops.py',
            '    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)',
            '    return False',
            'test_disk_faults.py::test_reindex_without_descriptors_removes_no_row',
        ),
        Mutant(
            'an upgrade is no transaction',
            'upgrade.py',
            "        connection.exec_driver_sql('BEGIN IMMEDIATE')",
            '        pass',
            'test_upgrade.py::test_a_revision_that_fails_half_way_leaves_no_trace',
        ),
        Mutant(
            'DEFERRED for IMMEDIATE: an upgrade locks late',
            'upgrade.py',
            "        connection.exec_driver_sql('BEGIN IMMEDIATE')",
            "        connection.exec_driver_sql('BEGIN DEFERRED')",
            'test_upgrade.py::test_an_upgrade_keeps_other_writers_out_from_its_start',
        ),
        Mutant(
            'a newer index is not refused',
            'index/_validate.py',
            '    if stored[0] not in REVISIONS:',
            '    if False:',
            'test_upgrade.py::test_a_newer_index_is_refused_and_left_alone',
        ),
        Mutant(
            'a revision differs from schema.py',
            '../migrations/versions/0005_history.py',
            'ON resources (error_type, finished_at)',
            'ON resources (error_type)',
            'test_upgrade.py::test_replaying_all_revisions_equals_the_schema',
        ),
        Mutant(
            'the Core table differs from the text',
            'tables.py',
            "'INTEGER': Integer",
            "'INTEGER': Text",
            'test_schema.py::test_text_and_core_table_have_the_same_columns',
        ),
        Mutant(
            'the wheel has no migrations',
            '../pyproject.toml',
            '"migrations" = "hadrosaur/migrations"',
            '',
            'test_package.py::test_wheel_carries_the_migrations',
        ),
    ],
    'groups of failures': (
        Mutant(
            'groups: a class above the error is not compared',
            'index/_functions.py',
            'for end in _parsed(wanted) for name in names)',
            'for end in _parsed(wanted) for name in names[:1])',
            f'{G}::test_an_error_type_is_found_by_its_name_and_by_what_is_above_it[LookupError]',
        ),
        Mutant(
            'groups: what only ends alike is found',
            'index/_functions.py',
            "f'.{name}'.endswith(f'.{end}')",
            'name.endswith(end)',
            f'{G}::test_an_error_type_is_found_by_its_name_and_by_what_is_above_it[earer]',
        ),
        Mutant(
            'groups: a failure without a fingerprint is found by no group',
            'index/_filters.py',
            'ROW.error_group.is_(None)',
            'ROW.error_group.is_not(None)',
            f'{G}::test_a_failure_set_by_hand_is_a_group_by_its_type',
        ),
        Mutant(
            'groups: columns of a table may be as narrow as rich makes them',
            'cli/output.py',
            'for places, least in ((flexible, LEAST_CUT), (range(len(kept)), LEAST)):',
            'for places, least in ((flexible, 1), (range(len(kept)), LEAST)):',
            f'{G}::test_every_table_keeps_columns_wide_enough_to_read',
        ),
        Mutant(
            'groups: an upgraded index counts as filled',
            '../migrations/versions/0003_results_and_bases.py',
            "'session, changed'",
            "'session, changed, seen_mtime_ns'",
            f'{G}::test_an_upgraded_index_is_filled_by_reindex',
        ),
    ),
    'args as idents': (
        Mutant(
            'naming: text that reads as a number is written as it is',
            'args_idents.py',
            'and (is_key or not _LITERAL(value)):',
            'and (is_key or True):',
            'test_args_as_idents.py::test_golden_idents[a="1"]',
        ),
        Mutant(
            'naming: a key is written as it is, whatever it holds',
            'args_idents.py',
            'if isinstance(value, str) and _BARE(value) and (',
            'if isinstance(value, str) and (is_key or _BARE(value)) and (',
            'test_args_as_idents.py::test_golden_idents["a=x,b"=2]',
        ),
        Mutant(
            'naming: args in the place of an ident get the common args instead',
            'engine/_items.py',
            'yield Item(item, None)',
            'yield Item(item, args)',
            'test_args_as_idents.py::test_args_given_twice',
        ),
        Mutant(
            'naming: a folder of the first grammar is not found',
            'canonical.py',
            'names = (_encoded(ident, _UNSAFE_BEFORE), raw_folder_name(ident))',
            'names = (raw_folder_name(ident),)',
            'test_args_as_idents.py::test_a_folder_under_its_old_name_is_found_and_kept[C=1,kernel=rbf]',
        ),
        Mutant(
            'naming: of two folders of one ident both are rows',
            'scan.py',
            'for newer in names[: names.index(name)] if name in names else names[:1]:',
            'for newer in names[:0]:',
            'test_args_as_idents.py::test_of_two_folders_of_one_ident_the_newer_name_counts',
        ),
    ),
    'provenance': (
        Mutant(
            'provenance: the first fetch waits for git and versions',
            'provenance.py',
            'SOON = 1.0',
            'SOON = -1.0',
            'test_provenance.py::test_the_first_fetch_waits_for_nothing_slow',
        ),
        Mutant(
            'provenance: a reindex does not read it',
            'directory/record_pattern.py',
            "values['provenance'] = told and told[1:-1]",
            "values['provenance'] = None",
            'test_provenance.py::test_one_note_tells_of_all_that_a_process_computes',
        ),
        Mutant(
            'provenance: any name in a record is read',
            'provenance.py',
            'if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):',
            'if not isinstance(digest, str):',
            'test_provenance.py::test_a_name_that_was_written_by_hand_leads_nowhere[../../coll/a/record]',
        ),
    ),
    'transfer': (
        Mutant(
            'transfer: what an archive holds need not be what its checksum says',
            'maintenance/archive.py',
            'if files.get(path) != self._files.get(path):',
            'if path not in files or path not in self._files:',
            f'{HOSTILE}[another checksum-file]',
        ),
        Mutant(
            'transfer: members of any type are taken for files',
            'maintenance/archive.py',
            "raise BadArchive(f'{_shown(member.name)} is no plain file or folder')",
            'pass',
            f'{HOSTILE}[an unknown type that is listed-file]',
        ),
        Mutant(
            'transfer: a resource may come in the folder of another ident',
            'maintenance/archive.py',
            'or expected != place or',
            'or',
            f'{HOSTILE}[an ident in the folder of another-file]',
        ),
        Mutant(
            'transfer: an archive need not have an end',
            'maintenance/archive.py',
            "raise BadArchive(f'its end is missing, behind {count} resources')",
            'return',
            'test_hostile_archives.py::test_an_archive_that_was_cut_off_is_said_to_be[-1024]',
        ),
        Mutant(
            'transfer: what has come in from a pipe before a fault is not told',
            'project/keeping.py',
            'if count := arrival.report().resources:',
            'if count := 0:',
            'test_transfer.py::test_what_has_come_in_from_a_pipe_is_told[cut]',
        ),
        Mutant(
            'transfer: another base at the same path replaces a backup',
            'project/keeping.py',
            "is_ours = mine['of'] in (found['of'], target.identity())",
            'is_ours = True',
            'test_transfer.py::test_a_backup_is_of_one_base_and_not_of_a_path',
        ),
        Mutant(
            'transfer: what is pending makes an export fail',
            'maintenance/parcels.py',
            '        if found.entry is not None:',
            "        if found.entry is not None and found.entry.status != 'pending':",
            'test_transfer.py::test_what_is_pending_is_left_out',
        ),
        Mutant(
            'transfer: a resource that is computed anew meanwhile is carried as it was read',
            'maintenance/parcels.py',
            'if _mark(top) != mark:',
            'if not mark:',
            'test_transfer.py::test_a_resource_that_is_computed_anew_is_never_torn[3]',
        ),
        Mutant(
            'transfer: what a killed import has left stays for ever',
            'maintenance/incoming.py',
            'self._sweep(incoming)',
            'pass',
            'test_transfer_cut_off.py::test_a_kill_leaves_nothing_half[190-import]',
        ),
        Mutant(
            'transfer: a backup copies everything each time',
            'maintenance/transfer.py',
            'if quickly and self._is_as_it_was(origin):',
            'if not quickly and self._is_as_it_was(origin):',
            'test_transfer.py::test_a_backup_copies_what_has_changed',
        ),
    ),
    'hooks': (
        Mutant(
            'hooks: they are called before the row is written',
            'hooks.py',
            'self._flush()',
            'pass',
            'test_hooks.py::test_fetch_many_tells[processes]',
        ),
        Mutant(
            'hooks: each failed attempt is told of',
            'store.py',
            'if is_last and run_result.fresh and hooks.wants(status):',
            'if run_result.fresh and hooks.wants(status):',
            'test_hooks.py::test_fetch_tells',
        ),
        Mutant(
            'hooks: nobody tells of background work',
            'engine/dispatcher.py',
            'self._store.hooks.call_soon()',
            'pass',
            'test_hooks.py::test_background_work_tells',
        ),
        Mutant(
            'hooks: what one raises reaches the fetch',
            'hooks.py',
            """            except Exception:
                _log(f'callback {function!r} for {event!r} failed')""",
            """            except ImportError:
                _log(f'callback {function!r} for {event!r} failed')""",
            'test_hooks.py::test_what_a_hook_raises_is_logged_and_nothing_else',
        ),
    ),
    'doctor': (
        Mutant(
            'doctor: a lock that is given twice holds',
            'maintenance/doctor.py',
            'is_held = fileops.try_lock(first) and not fileops.try_lock(second, shared=True)',
            'is_held = fileops.try_lock(first)',
            'test_doctor.py::test_locks_that_do_not_hold_are_a_fault[no_locks]',
        ),
        Mutant(
            'doctor: what a killed import has left is not found',
            'maintenance/doctor.py',
            "for name in _names(f'{base.hidden}/{INCOMING}')",
            "for name in _names(f'{base.hidden}/nowhere')",
            'test_doctor.py::test_leftovers_are_found',
        ),
    ),
    'keeping house': (
        Mutant(
            'gc: what was computed again since its row was read goes too',
            'project/keeping.py',
            'self._remove(known[each.collection], each.ident, each.row)',
            'self._remove(known[each.collection], each.ident)',
            'test_gc.py::test_what_is_under_way_or_changed_stays',
        ),
        Mutant(
            'gc: the newest go first',
            'maintenance/gc.py',
            "found.sort(key=lambda entry: entry.raw('finished_at'))",
            'pass',
            'test_gc.py::test_what_goes[wanted6-d0 d1 d2 d3 d4]',
        ),
        Mutant(
            'du: a file with two names counts twice',
            'maintenance/sizes.py',
            'seen.add(key)',
            'pass',
            'test_keeping_house.py::test_du_tells_what_takes_space',
        ),
        Mutant(
            'metrics: labels are written as they are',
            'activity.py',
            '{_escaped(text)}',
            '{text}',
            'test_keeping_house.py::test_metrics_are_what_prometheus_reads',
        ),
    ),
    'attempts': (
        Mutant(
            'attempts: a run that was cut off leaves no line',
            'directory/history.py',
            "if state in ('completed', 'error', 'begun'):",
            "if state in ('completed', 'error'):",
            'test_attempts.py::test_a_run_that_was_cut_off_is_a_line',
        ),
        Mutant(
            'attempts: reindex forgets them',
            'directory/__init__.py',
            "values['history'] = history_text(record.get('history'))",
            "values['history'] = None",
            'test_attempts.py::test_each_attempt_is_a_line',
        ),
        Mutant(
            'attempts: a record grows for ever',
            'directory/_cells.py',
            'else [])[-MOST_ATTEMPTS:]',
            'else [])[:]',
            'test_attempts.py::test_twenty_lines_are_kept',
        ),
        Mutant(
            'attempts: the oldest files are never removed',
            'directory/history.py',
            'for old in numbers[: max(0, len(numbers) - most)]:',
            'for old in numbers[:0]:',
            'test_attempts.py::test_the_files_of_the_last_attempts_are_kept',
        ),
        Mutant(
            'attempts: an upgrade forgets the indexes of declared columns',
            '../migrations/versions/0005_history.py',
            '*(part for (part,) in parts), ',
            '',
            'test_attempts.py::test_an_upgraded_index_gets_its_history_with_reindex',
        ),
    ),
    'results as columns': (
        Mutant(
            'parts: text is compared with numbers',
            'index/_filters.py',
            'return and_(is_of_type, cell.op(operator, is_comparison=True)(ANY))',
            'return cell.op(operator, is_comparison=True)(ANY)',
            R + "test_rows_are_found_by_parts_of_their_results[{'n': ('>', 1000000000000000000)}-[3]]",
        ),
        Mutant(
            'parts: a long result is in the row',
            'compute.py',
            'if len(result) <= job.spec.index_result else None',
            '',
            f'{R}test_a_row_holds_short_results_only',
        ),
        Mutant(
            'parts: reindex knows nothing of index_result=',
            'directory/_cells.py',
            "most = record.get('index_result', INDEXED_RESULT)",
            'most = INDEXED_RESULT',
            f'{R}test_a_row_holds_short_results_only',
        ),
        Mutant(
            'parts: results that are not in the index are not told of',
            'index/_explain.py',
            '            if is_missing:',
            '            if False:',
            f'{R}test_results_that_are_not_in_the_index_are_said',
        ),
        Mutant(
            'parts: the index of a declared column is written otherwise than what is sorted by',
            'index/__init__.py',
            "ON resources (collection, json_extract({path.column}, '{place}'))",
            "ON resources (collection, ({path.column} ->> '{place}'))",
            f'{R}test_a_declared_column_has_an_index_and_a_name',
        ),
        Mutant(
            'parts: an index stays when its column is declared no more',
            'index/__init__.py',
            'for name in there - wanted.keys():',
            'for name in ():',
            f'{R}test_what_is_declared_no_more_goes',
        ),
    ),
    'causes and check': [
        Mutant(
            'quoted text in a message is not masked',
            'fingerprint.py',
            "    line = _QUOTED.sub('<text>', line)",
            '    pass',
            'test_fingerprint.py::TestPatterns::test_what_is_masked',
        ),
        Mutant(
            'the frame of a cause is not the own one of the user',
            'fingerprint.py',
            "        if owner == 'user' or (owner == 'library' and found != 'user'):",
            "        if owner in ('user', 'library'):",
            'test_fingerprint.py::TestPlaces::test_libraries_are_passed_over',
        ),
        Mutant(
            'the type of the error is no part of its cause',
            'fingerprint.py',
            "    cause = '\\0'.join((exception_type, mask(message), frame or ''))",
            "    cause = '\\0'.join((mask(message), frame or ''))",
            'test_fingerprint.py::TestFingerprints::test_what_are_different_causes',
        ),
        *(
            Mutant(f'check: {name} is not found', 'reindex.py', old, 'pass', f'{FINDING}[{way}]')
            for name, old, way in (
                (
                    'a lost row',
                    "self._note('missing-row', entry.collection, ident, "
                    "f'the folder says {entry.status}, no row does')",
                    'lose_row',
                ),
                (
                    'a lost folder',
                    "self._note('missing-folder', row.collection, row.ident, what)",
                    'lose_folder',
                ),
                (
                    'a run that was cut off',
                    "self._note('cut-off', entry.collection, entry.ident, 'begun, and cut off half way')",
                    'cut_off',
                ),
                (
                    'a damaged status',
                    "self._note('damaged', found.collection, ident, found.problem)",
                    'damage_status',
                ),
                (
                    'a damaged result',
                    "self._note('damaged', entry.collection, entry.ident, "
                    "f'{directory.RESULT} does not parse')",
                    'damage_result',
                ),
                (
                    'an edited result',
                    "self._note('checksum', entry.collection, entry.ident, detail)",
                    'change_result',
                ),
                (
                    'a changed row',
                    'self._note(problem, entry.collection, entry.ident, detail)',
                    'change_status',
                ),
            )
        ),
        Mutant(
            'check: times are not compared',
            'reindex.py',
            "if name not in ('collection', 'ident', 'phase')",
            "if name not in ('collection', 'ident', 'phase', 'finished_at')",
            f'{FINDING}[change_times]',
        ),
        Mutant(
            'check: args are not compared',
            'reindex.py',
            "if name not in ('collection', 'ident', 'phase')",
            "if name not in ('collection', 'ident', 'phase', 'args')",
            f'{FINDING}[change_args]',
        ),
        Mutant(
            'check: a damaged record is not found',
            'scan.py',
            "    problem = f'{directory.RECORD} is damaged' if record == {} else None",
            '    problem = None',
            f'{FINDING}[damage_record]',
        ),
        Mutant(
            'check: the record of a copied folder is not adopted',
            'reindex.py',
            '            recovered._adopt()\n',
            '            pass\n',
            f'{CHECK}what_can_be_mended_is[copy_folder]',
        ),
        Mutant(
            'check: what runs is called cut off',
            'reindex.py',
            '        if not self._store.is_locked(path, folder) and not self._is_under_way(row):',
            '        if not self._is_under_way(row):',
            f'{CHECK}what_runs_is_no_disagreement',
        ),
        Mutant(
            'reindex keeps the rows of folders that are gone',
            'index/_writes.py',
            "REMOVE = _statement(f'DELETE FROM resources WHERE {_KEY} AND changed = :was')",
            "REMOVE = _statement(f'DELETE FROM resources WHERE {_KEY} AND changed = :was AND pid = 0')",
            'test_cli_mending.py::test_reindex',
        ),
        Mutant(
            'reindex takes what was computed meanwhile for a row without a folder',
            'reindex.py',
            '            if found is None or (not found.is_unread and self._entry(found) is None):',
            '            if True:',
            f'{CHECK}what_comes_after_the_walk_is_no_row_without_a_folder',
        ),
        Mutant(
            'check takes what was computed meanwhile for a row without a folder',
            'reindex.py',
            '            if self._is_under_way(row) or _has_folder(base, row):',
            '            if self._is_under_way(row):',
            f'{CHECK}what_comes_after_the_walk_is_no_row_without_a_folder',
        ),
        Mutant(
            'reindex holds what it has read',
            'reindex.py',
            '                met.add(entry.collection, entry.ident)\n',
            '                met.add(entry.collection, entry.ident)\n                unreadable += [entry]\n',
            f'{CHECK}few_rows_are_held_at_once',
        ),
        Mutant(
            'reindex --changed-only reads nothing at all',
            'scan.py',
            '            if now.st_mtime_ns == known[1]:',
            '            if True:',
            f'{CHECK}reindex_with_changed_only_reads_what_was_written',
        ),
    ],
    'executors': [
        Mutant(
            'a module that another thread is just importing is looked at',
            'loaded.py',
            "return None if getattr(getattr(module, '__spec__', None), '_initializing', False) else module",
            'return module',
            'test_modules_half_loaded.py::test_a_module_that_is_just_being_imported_is_not_looked_at',
        ),
        Mutant(
            'a failed run is tried once more than asked for',
            'engine/dispatcher.py',
            '        if submission.retries >= submission.collection.retries:',
            '        if submission.retries > submission.collection.retries:',
            f'{CONTRACT}retries_count_attempts[processes]',
        ),
        Mutant(
            'a failed run is not tried again',
            'engine/dispatcher.py',
            '        if submission.retries >= submission.collection.retries:',
            '        if True:',
            f'{CONTRACT}retries_count_attempts[threads]',
        ),
        *(
            Mutant(
                f'a retry does not wait for its time ({kind})',
                f'executors/{file}.py',
                old,
                new,
                f'{CONTRACT}a_retry_waits_for_its_time[{kind}]',
            )
            for kind, file, old, new in (
                (
                    'inline',
                    'inline',
                    '        moment = time.monotonic() + delay if delay else 0.0',
                    '        moment = 0.0',
                ),
                (
                    'threads',
                    'threads',
                    '        moment = time.monotonic() + delay if delay else 0.0',
                    '        moment = 0.0',
                ),
                ('processes', '_scheduler', '        if not delay:\n', '        if True:\n'),
                ('ThreadPoolExecutor', 'futures', '            if delay:\n', '            if False:\n'),
            )
        ),
        Mutant(
            'retries that wait fill the queue and hold up the others',
            'engine/dispatcher.py',
            '        return len(self._submissions) - min(len(self._due), MOST_WAITING)',
            '        return len(self._submissions)',
            f'{CONTRACT}a_waiting_retry_holds_up_nobody[threads]',
        ),
        Mutant(
            'a timeout is not enforced',
            'executors/_scheduler.py',
            '            if limit and age >= limit:',
            '            if False:',
            f'{CONTRACT}timeout_kills_the_run_and_what_it_started[processes]',
        ),
        Mutant(
            'a timeout is silently ignored on threads',
            'executors/threads.py',
            '        if jobs[0].spec.needs_process:',
            '        if False:',
            f'{CONTRACT}timeout_is_refused_on_threads',
        ),
        Mutant(
            'what a killed function started lives on (its group is not killed)',
            'executors/_worker_process.py',
            '            os.killpg(self.process.pid, number)',
            '            os.kill(self.process.pid, number)',
            f'{MANY}test_timeout_kills_what_the_function_started',
        ),
        Mutant(
            'cancel is ignored by what runs',
            'executors/_scheduler.py',
            '            if number is not None and worker.queue and worker.queue[0].job.run in runs:',
            '            if False:',
            f'{CONTRACT}cancel_in_mid_run[processes]',
        ),
        Mutant(
            'cancel is ignored by what another process runs',
            'executors/_scheduler.py',
            '            self._look_at_requests()',
            '            pass',
            'test_cancel_elsewhere.py::test_cancel_a_whole_collection',
        ),
        Mutant(
            'cancel does not reach a foreign executor',
            'executors/futures.py',
            '                for job in wanted:\n                    basedir.request_cancel',
            '                for job in []:\n                    basedir.request_cancel',
            f'{CONTRACT}cancel_in_mid_run[ThreadPoolExecutor]',
        ),
        Mutant(
            'WorkerDied does not name the signal',
            'executors/_worker_process.py',
            '            name = signal.Signals(-code).name',
            "            name = 'a signal'",
            f'{CONTRACT}a_killed_process_costs_its_own_resource[processes]',
        ),
        Mutant(
            'what a foreign executor hands back is lost',
            'executors/futures.py',
            ' if job.run in result.unbegun and job.run not in dropped]',
            ' if False]',
            f'{CONTRACT}long_runs_among_many_short_ones[ThreadPoolExecutor]',
        ),
        Mutant(
            'a function that cannot be sent is not named',
            'executors/base.py',
            "            f'the function {name} cannot be sent",
            "            f'the function cannot be sent",
            f'{CONTRACT}an_unpicklable_function_names_the_culprit[processes]',
        ),
        Mutant(
            'the slots that a foreign executor hosted stay',
            'executors/futures.py',
            '        _chunk_host.close_hosts(self._owner)',
            '        pass',
            f'{CONTRACT}nothing_is_left[ThreadPoolExecutor]',
        ),
        Mutant(
            'the peak of memory is that of the process, not of the run',
            'metrics.py',
            "            os.pwrite(self._reset, b'5', 0)",
            '            pass',
            'test_metrics.py::test_peak_memory_is_of_each_run',
        ),
        Mutant(
            'processor time of subprocesses is not counted',
            'metrics.py',
            'own.ru_stime + children.ru_utime + children.ru_stime\n',
            'own.ru_stime\n',
            'test_metrics.py::test_processor_time_includes_children',
        ),
    ],
    'options': [
        Mutant(
            'an error is tried again whatever retry_on says',
            'compute.py',
            'wanted = None if job.spec.retry_on is None else',
            'wanted = True if job.spec.retry_on else',
            'test_options_of_a_collection.py::test_only_named_errors_are_tried_again',
        ),
        Mutant(
            'a class above the error counts for nothing',
            'retry_policy.py',
            'for each in kind.__mro__)',
            'for each in (kind,))',
            'test_options_of_a_collection.py::test_a_run_that_was_killed_is_tried_again_by_name',
        ),
        Mutant(
            'a delay grows without bounds',
            'registry.py',
            'return min(self.retry_delay * self.retry_backoff ** (retry - 1), most)',
            'return self.retry_delay * self.retry_backoff ** (retry - 1)',
            'test_options_of_a_collection.py::test_delays_grow_up_to_the_most',
        ),
        Mutant(
            'an integer of numpy names nothing',
            'canonical.py',
            "if hasattr(type(given), '__index__') and not isinstance(given, bool):",
            'if False:',
            'test_options_of_a_collection.py::test_numbers_of_numpy_are_numbers',
        ),
    ],
    'async functions': [
        Mutant(
            'a coroutine is a result',
            'compute.py',
            'if isinstance(value, Coroutine):',
            'if False:',
            'test_async_functions.py::test_one_that_does_not_end_is_killed_at_its_timeout',
        ),
        Mutant(
            'a running event loop is not noticed',
            'coroutines.py',
            'if _is_loop_running() else',
            'if False else',
            'test_async_functions.py::test_an_event_loop_may_be_running_already',
        ),
        Mutant(
            'what a thread fetches takes the output of the function that asked',
            'compute.py',
            'is_all = in_worker and threading.current_thread() is threading.main_thread()',
            'is_all = in_worker',
            'test_async_functions.py::test_what_a_coroutine_fetches_has_its_own_log',
        ),
        Mutant(
            'afetch blocks the loop',
            'project/__init__.py',
            'return await asyncio.to_thread(fetch)',
            'return fetch()',
            'test_async_functions.py::test_afetch_leaves_the_loop_running',
        ),
    ],
    'setups': [
        Mutant(
            'a setup is called by every run',
            'compute.py',
            '        if not made.is_made:',
            '        if True:',
            f'{SETUP}it_is_called_once_in_each_worker[inline]',
        ),
        Mutant(
            'each run calls a setup that fails',
            'compute.py',
            '            if made.error is not None:',
            '            if False:',
            f'{SETUP}its_failure_is_that_of_the_runs_and_costs_its_time_once[inline]',
        ),
        Mutant(
            'a setup that uses its project cannot be sent',
            'worker_setup.py',
            'if cloudpickle is None or _is_marking:',
            'if cloudpickle is None:',
            f'{SETUP}setups_that_fetch',
        ),
        Mutant(
            'each resource has a worker killed by its setup',
            'executors/_scheduler.py',
            '            if until > time.monotonic():',
            '            if False:',
            f'{SETUP}a_setup_that_kills_its_worker_is_not_called_for_each[processes]',
        ),
        Mutant(
            'the time of a setup counts as that of the run',
            'executors/_worker_process.py',
            'return max(timeout, LONGEST_SETUP) if timeout and self.is_preparing else timeout',
            'return timeout',
            f'{SETUP}a_setup_is_no_part_of_the_time_of_a_run',
        ),
        Mutant(
            'what a setup changes is put back',
            'executors/_worker_main.py',
            '            self._state = WorkerState()\n            self._send',
            '            self._state.put_back()\n            self._send',
            f'{SETUP}what_a_setup_changes_stays_in_its_worker[ThreadPoolExecutor]',
        ),
        Mutant(
            'a worker ends without the end of its generator',
            'worker_setup.py',
            '            next(generator)\n            raise',
            '            raise StopIteration\n            raise',
            f'{SETUP}a_generator_goes_on_when_the_worker_ends[processes]',
        ),
    ],
    'progress': [
        Mutant(
            'what a run says stays when it is over',
            'compute.py',
            '    running._end_report()\n',
            '',
            'contracts/test_says_how_far.py::test_it_is_seen_from_outside_while_it_runs[inline]',
        ),
        Mutant(
            'the words of another run are taken for those of this one, said',
            'run_progress.py',
            "or record.get('state') != 'begun' or record.get('run') != run:",
            "or record.get('state') != 'begun':",
            'contracts/test_says_how_far.py::test_words_of_another_run_are_not_taken_for_this_ones',
        ),
        Mutant(
            'a killed run leaves what it said',
            'directory/__init__.py',
            '|{re.escape(PROGRESS)}',
            '',
            'contracts/test_says_how_far.py::test_a_killed_run_says_nothing[processes]',
        ),
    ],
    'memory': [
        Mutant(
            'memory is not looked at',
            'executors/_scheduler.py',
            '            self._look_at_memory(limits)',
            '            pass',
            f'{MEMORY}what_takes_more_is_killed[processes]',
        ),
        Mutant(
            'what a run started in another session takes memory unseen',
            'executors/_memory.py',
            '    for _ in range(MOST_STEPS):',
            '    for _ in range(1):',
            f'{MEMORY}what_it_started_counts_too[new session]',
        ),
        Mutant(
            'what takes the memory in another session lives on',
            'executors/_scheduler.py',
            '                for each in processes:',
            '                for each in ():',
            f'{MEMORY}what_it_started_counts_too[new session]',
        ),
        Mutant(
            'memory that children share counts for each of them',
            'executors/_memory.py',
            'taken = sum(map(_proportional, members))',
            'taken = sum(map(own, members))',
            f'{MEMORY}what_is_not_its_own_does_not_count[forked]',
        ),
        Mutant(
            'a run is blamed for the memory that others left',
            'executors/_worker_main.py',
            'self._is_spoiled |= spec.memory is not None and self._is_full(spec.memory)',
            'pass',
            f'{MEMORY}a_run_is_not_blamed_for_what_others_left',
        ),
    ],
    'limits': [
        Mutant(
            'a place is had by several',
            'limits.py',
            '            if fileops.try_lock(fd):',
            '            if True:',
            f'{LIMITS}others_do_not_wait_with_it',
        ),
        Mutant(
            'a recursive function waits for its own place',
            'limits.py',
            'if spec.at_once is None or shares:',
            'if spec.at_once is None:',
            f'{LIMITS}a_resource_of_its_own_collection_shares_the_place',
        ),
        Mutant(
            'a retry has the place while it waits',
            'engine/dispatcher.py',
            '                self._turns.free(submission)\n                return False',
            '                return False',
            f'{LIMITS}a_retry_that_waits_keeps_nobody_from_running',
        ),
        Mutant(
            'starts are not counted against a rate',
            'limits.py',
            '            if not wait:\n',
            '            if False:\n',
            f'{LIMITS}any_stretch_of_time_counts',
        ),
        Mutant(
            'what waits for its turn cannot be cancelled from another process',
            'engine/dispatcher.py',
            '            self._drop_held({job.run})',
            '            pass',
            f'{LIMITS}what_waits_for_its_turn_can_be_cancelled',
        ),
        Mutant(
            'a place that cannot be had is waited for in the worker',
            'compute.py',
            '    if place is None:\n        return _put_off(job, later)',
            '    while place is None:\n        place = limits.take_place(job)',
            f'{LIMITS}others_do_not_wait_with_it',
        ),
    ],
    'shares of the machine': [
        Mutant(
            'each worker starts a thread for each processor',
            'cpu_count.py',
            'processors() // workers)',
            'processors())',
            'test_shares_of_the_machine.py::test_threads_of_libraries_are_divided_among_workers',
        ),
        Mutant(
            'the environment of the user is overwritten',
            'cpu_count.py',
            ' if wanted is not None or name not in os.environb}',
            '}',
            'test_shares_of_the_machine.py::test_what_the_environment_says_stays',
        ),
        Mutant(
            'only the own control group is asked',
            'cpu_count.py',
            'range(len(steps), -1, -1)',
            'range(len(steps), len(steps) - 1, -1)',
            'test_shares_of_the_machine.py::test_limits_of_control_groups_are_found',
        ),
        Mutant(
            'memory of subprocesses is not counted',
            'metrics.py',
            'children > self._children:',
            'children < self._children:',
            'test_shares_of_the_machine.py::test_memory_of_the_largest_subprocess_counts',
        ),
    ],
    'runs per worker': [
        Mutant(
            'a worker goes on after its last run',
            'executors/_worker_main.py',
            'if self._is_spoiled or self._runs >= most:',
            'if self._is_spoiled:',
            'test_runs_per_worker.py::test_each_run_has_a_process_of_its_own',
        ),
        Mutant(
            'a worker that others have used is new enough',
            'executors/_worker_main.py',
            'if self._runs < most:',
            'if True:',
            'test_runs_per_worker.py::test_a_worker_that_has_run_others_is_not_new',
        ),
    ],
    'random generators': [
        Mutant(
            'a generator travels unseen',
            'executors/base.py',
            '        _random_state.warn_of(part)\n',
            '        pass\n',
            'test_generators_that_travel.py::test_a_generator_that_travels_is_warned_of_once',
        ),
        Mutant(
            'the method of a generator is not looked behind',
            'executors/_random_state.py',
            'for each in (value, owner))',
            'for each in (value,))',
            'test_generators_that_travel.py::test_those_of_a_script_are_found_too',
        ),
    ],
}


def main(words: list[str]) -> int:
    """Try the mutants, print how each ended, and return the exit code."""
    chosen = [
        (part, mutant)
        for part, mutants in MUTANTS.items()
        for mutant in mutants
        if not words or any(word in f'{part} {mutant.broken} {mutant.file}' for word in words)
    ]
    if not chosen:
        print(f'no mutant has {" or ".join(words)} in its part, its file or what it breaks')
        print(f'parts: {", ".join(MUTANTS)}')
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='hadrosaur-mutants-') as folder:
        plain = Path(folder, 'plain')
        copy_of(ROOT, plain)
        tests = list(dict.fromkeys(mutant.test for _, mutant in chosen))
        print(f'{len(tests)} tests without a mutant …', flush=True)
        code, said = run_tests(plain, tests, limit=LONGEST)
        if code != 0:
            print(said)
            print('the named tests must pass before anything is broken')
            return 1
        took = durations(said)
        ends: dict[str, int] = {}
        last = ''
        for part, mutant in chosen:
            if part != last:
                print(f'\n{part}')
                last = part
            since = time.monotonic()
            limit = LEAST + TIMES * sum(s for test, s in took if is_of(test, mutant.test))
            end, said = fate(plain, Path(folder, 'mutant'), mutant, limit)
            ends[end] = ends.get(end, 0) + 1
            print(f'  {end:9} {time.monotonic() - since:4.1f} s  {mutant.broken}', flush=True)
            if end != 'killed':
                print(f'            {mutant.file}, {mutant.test}')
            if end == 'broken':
                print(said, flush=True)
    counted = ', '.join(f'{number} {end}' for end, number in sorted(ends.items()))
    print(f'\n{len(chosen)} mutants: {counted}; {time.monotonic() - began:.0f} s')
    return 0 if ends.keys() <= {'killed'} else 1


def misfits(known: set[str]) -> list[str]:
    """What is wrong with the list itself, one line each.

    Args:
        known: Node ids of tests, below tests/. Where one that a mutant names is not among them, the tests
            of its file are collected.
    """
    tests = known | {node.partition('[')[0] for node in known}
    mutants = [mutant for mutants in MUTANTS.values() for mutant in mutants]
    missing = sorted({mutant.test for mutant in mutants if mutant.test not in tests})
    if missing:
        found = collected({test.partition('::')[0] for test in missing})
        tests |= found | {node.partition('[')[0] for node in found}
    wrong = []
    seen: set[tuple[str, ...]] = set()
    for mutant in mutants:
        for why in _misfit(mutant, tests, seen):
            wrong.append(f'{mutant.broken!r} ({mutant.file}): {why}')
        seen.add(mutant[1:])
    return wrong


def _misfit(mutant: Mutant, tests: set[str], seen: set[tuple[str, ...]]) -> Iterator[str]:
    if mutant.test not in tests:
        yield f'there is no test {mutant.test}'
    if mutant[1:] in seen:
        yield 'it is there already'
    path = ROOT / 'hadrosaur' / mutant.file
    if not path.is_file():
        yield 'there is no such file'
        return
    text = path.read_text('utf-8')
    if (found := text.count(mutant.old)) != 1:
        yield f'{mutant.old!r} stands there {found} times, not once'
    elif path.suffix == '.py':
        try:
            ast.parse(text.replace(mutant.old, mutant.new))
        except SyntaxError as error:
            yield f'it is no Python then, which every test notices: {error}'


def collected(files: set[str]) -> set[str]:
    """The node ids of the tests in these files, below tests/."""
    command = [sys.executable, '-m', 'pytest', '--collect-only', '-q', '-p', 'no:cacheprovider']
    command += [f'tests/{file}' for file in sorted(files) if (ROOT / 'tests' / file).is_file()]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False).stdout
    return set(re.findall(r'^tests/(.+::.+)$', said, re.MULTILINE))


def copy_of(source: Path, target: Path) -> None:
    """Copy a checkout, without what its tools left in it; times stay, so that compiled files count."""
    left_out = shutil.ignore_patterns('.hypothesis', '.*_cache')
    target.mkdir()
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=left_out)
        else:
            shutil.copy2(source / name, target / name)


def fate(plain: Path, place: Path, mutant: Mutant, limit: float) -> tuple[str, str]:
    """How a mutant ends (killed, survived, or broken: it proves nothing), and what its test said."""
    shutil.rmtree(place, ignore_errors=True)
    copy_of(plain, place)
    path = place / 'hadrosaur' / mutant.file
    text = path.read_text('utf-8')
    found = text.count(mutant.old)
    if found != 1:
        return 'broken', f'the text that is to be changed stands there {found} times, not once'
    path.write_text(text.replace(mutant.old, mutant.new), 'utf-8')
    for compiled in path.parent.glob(f'__pycache__/{path.stem}.*'):
        compiled.unlink()  # one of the same second and size would be taken for the mutant's
    code, said = run_tests(place, [mutant.test], limit=limit)
    if code in (1, None):
        return 'killed', said
    return ('survived' if code == 0 else 'broken'), said


def run_tests(place: Path, tests: list[str], *, limit: float) -> tuple[int | None, str]:
    """pytest's exit code (None: it took too long), and what it said; each test may take ``limit`` seconds."""
    mark = f'HADROSAUR_MUTANT={uuid.uuid4().hex}'
    name, _, value = mark.partition('=')
    command = [sys.executable, '-m', 'pytest', '-vv', '--durations=0', '--durations-min=0', '--tb=short']
    # Differences of long lists are not wanted, and take longer than the tests.
    command += ['--assert=plain', '-p', 'no:cacheprovider', f'--timeout={limit:.1f}']
    command += [f'--basetemp={place}-tmp']  # else pytest may clean up for minutes after other runs
    command += [f'tests/{test}' for test in tests]
    with tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace') as said:
        process = subprocess.Popen(
            command,
            cwd=place,
            env={**os.environ, 'PYTHONPATH': str(place), name: value},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        try:
            code = process.wait(limit * len(tests) + GRACE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # its fixtures end what they have started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            end_strays(mark)
        said.seek(0)
        return code, said.read()


def durations(said: str) -> list[tuple[str, float]]:
    """Seconds of each test and of its fixtures, from what pytest said."""
    found = re.findall(r'^([0-9.]+)s (?:setup|call|teardown) +tests/(.*)$', said, re.MULTILINE)
    return [(test, float(seconds)) for seconds, test in found]


def is_of(test: str, named: str) -> bool:
    """Is it the named test, or one of its parameters?"""
    return test == named or test.startswith(f'{named}[')


def end_strays(mark: str) -> None:
    """Kill what a broken package has left running: the processes that bear the mark of this very run."""
    for at in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            if mark.encode() in (at / 'environ').read_bytes().split(b'\0'):
                os.kill(int(at.name), signal.SIGKILL)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
