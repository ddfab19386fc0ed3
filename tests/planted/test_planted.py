"""The suite is proven by planted bugs: each, in a copy of the code, fails the test that it is aimed at.

A bug is one replacement of a text that occurs just once, so that a change of the code that leaves a bug without its
place is seen here too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

import workpool
from support import PATIENCE

TESTS = Path(__file__).parent.parent
SOURCE = Path(workpool.__file__).parent


@dataclass(frozen=True)
class Bug:
    """A fault to plant, and the test that has to see it."""

    name: str
    file: str
    old: str
    new: str
    aim: str


BUGS = [
    Bug("LIFO lane", "lanes.py", "behind.popleft()", "behind.pop()", "conformance/test_p02_order.py::test_equal_keys_are_one_key_whatever_object_they_are"),
    Bug("lane claimed twice", "lanes.py", "idle = len(lanes) > keys", "idle = True", "conformance/test_p02_order.py::test_equal_keys_are_one_key_whatever_object_they_are"),
    Bug("wake-up lost", "lanes.py", "return idle and self.wake()", "return False", "conformance/test_p05_wakeup.py::test_each_of_as_many_events_as_workers_finds_one"),
    Bug(
        "wake-up not passed on",
        "threads.py",
        "                if core.wake():\n                    wakeups.put(None)\n",
        "",
        "conformance/test_p05_wakeup.py::test_each_of_as_many_events_as_workers_finds_one",
    ),
    Bug(
        'wake-up of an add that was cut lost',
        'driver.py',
        'if core.waking or core.wake():',
        'if False:',
        'threads/test_p11_reentry.py::test_an_add_that_is_cut_at_any_line_is_accepted_or_not',
    ),
    Bug(
        'lane kept after a raise',
        'driver.py',
        'self._tell(core.fail(worker, None if ended or key is NOTHING else item, None if cancelled else error, ended))',
        'pass',
        'conformance/test_p06_failure.py::test_the_event_that_failed_heads_its_key_among_those_left',
    ),
    Bug(
        'failure not told',
        'driver.py',
        'logging.ERROR, "pool %r: %s raised at attempt %d, and the pool stops"',
        'logging.DEBUG, "pool %r: %s raised at attempt %d, and the pool stops"',
        'conformance/test_p06_failure.py::test_it_is_logged_once_with_key_attempt_and_traceback',
    ),
    Bug(
        "failed event lost",
        "lanes.py",
        "        self.ready.append(item)\n        self.holds",
        "        self.holds",
        "conformance/test_p06_failure.py::test_the_pool_stops_and_every_later_call_raises_an_error_of_its_own",
    ),
    Bug(
        "event dropped at stop",
        "lanes.py",
        "found.extend((key, event) for event in behind or ())",
        "pass",
        "conformance/test_p08_endings.py::test_stop_finishes_what_is_in_flight_and_returns_the_rest_in_order",
    ),
    Bug(
        "stop forgets the heads",
        "lanes.py",
        "found.append(heads[id(key)])",
        "pass",
        "conformance/test_p01_exactly_once.py::test_a_stop_splits_what_was_accepted_into_handled_and_returned",
    ),
    Bug(
        "add accepted after the end",
        "dispatch.py",
        "        self.limit = 0\n        return [",
        "        return [",
        "conformance/test_p08_endings.py::test_drain_refuses_outside_at_once_and_takes_from_handlers_to_the_last",
    ),
    Bug(
        "bound ignored",
        "lanes.py",
        "if waiting >= self.limit and not force:",
        "if self.limit == 0 and not force:",
        "conformance/test_p07_backpressure.py::test_the_bound_has_a_default_and_can_be_lifted",
    ),
    Bug(
        "waiting adders passed by",
        "dispatch.py",
        "        self.limit = 0  # Until",
        "        # Until",
        "core/test_dispatch.py::TestBackPressure::test_an_adder_waits_and_is_let_in_at_half_of_the_bound",
    ),
    Bug(
        'waiting adder forgotten',
        'driver.py',
        '        self._tell(self._core.admitted)\n        self._core.admitted.clear()\n',
        '        self._core.admitted.clear()\n',
        'conformance/test_p07_backpressure.py::test_waiting_adds_are_let_in_first_come_first_served',
    ),
    Bug(
        "handler waits for itself",
        "dispatch.py",
        "        if inside:\n            return self.submit(key, event, True)\n",
        "",
        "conformance/test_p07_backpressure.py::test_a_handler_that_adds_never_waits",
    ),
    Bug(
        "head-of-line scan",
        "lanes.py",
        "item = ready.popleft()\n                self.holds",
        "item = min(ready, key=len)\n                ready.remove(item)\n                self.holds",
        "conformance/test_original_faults.py::test_fault_08_choosing_an_event_examines_none_that_is_blocked",
    ),
    Bug(
        "head-of-line blocking",
        "lanes.py",
        "if not ready or not self.serving:",
        "if not ready or not self.serving or in_flight:",
        "conformance/test_p03_isolation.py::test_a_slow_key_delays_no_other",
    ),
    Bug(
        "a key keeps its worker",
        "lanes.py",
        "                ready.append((key, behind.popleft()))\n",
        "                ready.appendleft((key, behind.popleft()))\n",
        "conformance/test_p03_isolation.py::test_keys_take_turns",
    ),
    Bug(
        "handled event kept alive",
        "threads.py",
        "key, item, _result = item[0], None, None",
        "key, item = item[0], None",
        "conformance/test_p04_residue.py::test_a_handled_event_is_released_when_its_handler_has_returned",
    ),
    Bug("idle key kept", "threads.py", "del key  #", "#", "conformance/test_p04_residue.py::test_an_idle_key_is_released"),
    Bug("idle lane kept", "lanes.py", "del lanes[key]", "pass", "conformance/test_p04_residue.py::test_a_handled_event_is_released_when_its_handler_has_returned"),
    Bug(
        "dict that grew kept",
        "lanes.py",
        "                self.lanes = {}  #",
        "                pass  #",
        "conformance/test_p04_residue.py::test_many_keys_at_once_leave_the_pool_as_it_was",
    ),
    Bug(
        "thread left behind",
        "threads.py",
        "            thread.join()\n",
        "            pass\n",
        "threads/test_p08_threads.py::test_an_ending_returns_when_the_last_thread_has_ended",
    ),
    Bug(
        "sleeping worker left behind",
        "driver.py",
        "        self._step(self._wake)  # The next that sleeps may leave too.\n",
        "",
        "conformance/test_p08_endings.py::test_drain_finishes_all_that_was_accepted",
    ),
    Bug(
        "miscounted",
        "lanes.py",
        "            self.handled = handled + 1\n",
        "            self.handled += bool(behind)\n",
        "conformance/test_p10_stats.py::test_they_add_up_while_events_come_and_go",
    ),
    Bug(
        "half an add",
        "lanes.py",
        "                lanes.popitem()  #",
        "                pass  #",
        "threads/test_p11_reentry.py::test_an_add_that_is_cut_at_any_line_is_accepted_or_not",
    ),
    Bug(
        'an add inside the pool let in',
        'driver.py',
        '        require_outside(mutex)\n        gate = None\n',
        '        gate = None\n',
        'threads/test_p11_reentry.py::test_an_add_from_a_finalizer_under_the_collector_raises_and_never_deadlocks',
    ),
    Bug(
        'handled and returned',
        'driver.py',
        'None if ended or key is NOTHING else item, None if',
        'item, None if',
        'threads/test_p11_reentry.py::test_a_worker_that_is_cut_at_any_line_of_its_step_loses_nothing',
    ),
    Bug(
        'dropped at exit',
        'process.py',
        'atexit.register(drain_all)\n',
        '',
        'threads/test_p12_process.py::test_a_pool_that_is_forgotten_is_drained_at_the_end_of_the_process',
    ),
    Bug(
        'usable after a fork',
        'driver.py',
        '        self._mutex = Forked()\n',
        '        pass\n',
        'threads/test_p12_process.py::test_in_a_forked_child_every_call_raises_and_the_parent_goes_on',
    ),
    Bug(
        "block drained on an error",
        "threads.py",
        "            self._step(self._close, True)\n            self._wait(None)\n",
        "            self._step(self._close, False)\n            self._wait(None)\n",
        "conformance/test_p08_endings.py::test_a_block_drains_and_an_exception_in_it_stops",
    ),
    Bug(
        "block left at once on an error",
        "threads.py",
        "            self._wait(None)\n            self._note_left(error)\n",
        "            self._note_left(error)\n",
        "conformance/test_p08_endings.py::test_a_block_drains_and_an_exception_in_it_stops",
    ),
    Bug(
        "block not stopped by Ctrl-C in its drain",
        "driver.py",
        "            self._step(self._close, True)  # An",
        "            pass  # An",
        "threads/test_p08_threads.py::test_ctrl_c_while_the_end_of_a_block_drains_stops_the_pool",
    ),
    Bug(
        'drain that was given up dropped at exit',
        'process.py',
        'not in (State.OPEN, State.DRAINING)',
        'is not State.OPEN',
        'threads/test_p12_process.py::test_a_drain_that_was_given_up_goes_on_at_the_end_of_the_process',
    ),
    Bug(
        "inside for ever",
        "threads.py",
        "        self._inside.discard(get_ident())\n",
        "",
        "threads/test_p08_threads.py::test_a_thread_that_has_the_number_of_a_worker_that_left_is_no_handler",
    ),
    Bug(
        'finished before the last handler is',
        'dispatch.py',
        '(self.ready or self.in_flight or self.retrying)',
        '(self.ready or self.retrying)',
        'core/test_dispatch.py::TestEndings::test_a_draining_pool_refuses_outside_and_accepts_from_handlers',
    ),
    Bug(
        'wake-up that an add has asked for and not sent lost',
        'driver.py',
        'if core.waking or core.wake():',
        'if core.wake():',
        'threads/test_p11_reentry.py::test_an_add_that_is_cut_at_any_line_is_accepted_or_not',
    ),
    Bug(
        "end told to one only",
        "threads.py",
        "        if over:\n            self._ended.put(None)\n",
        "",
        "conformance/test_p08_endings.py::test_endings_are_idempotent_and_may_come_from_any_thread",
    ),
    Bug(
        "end lost by one that is cut",
        "threads.py",
        "            self._pass_on()  # Once more",
        "            pass  # Once more",
        "threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended",
    ),
    Bug(
        'what is left lost by an ending that is cut',
        'dispatch.py',
        '        left = self.unhandled()\n',
        '        left = self.unhandled()\n        self.lanes = {}\n',
        'threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended',
    ),
    Bug(
        "drain that is cut takes adds",
        "dispatch.py",
        "        adders = self._close()  # First: cut after this, an open pool only weighs again.\n"
        "        if self.state is State.OPEN:\n            self.state = State.DRAINING\n",
        "        if self.state is State.OPEN:\n            self.state = State.DRAINING\n"
        "        adders = self._close()\n",
        "threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended",
    ),
    Bug(
        "worker whose leaving is cut never leaves",
        "threads.py",
        "            self._leave(worker)  # Once more",
        "            pass  # Once more",
        "threads/test_p11_reentry.py::test_a_worker_that_is_cut_at_any_line_of_its_leaving_leaves",
    ),
    Bug(
        'adders let in one by one',
        'dispatch.py',
        '            wake = self._enter(self.adders) or wake\n',
        '            wake = self._enter(self.adders) or wake\n            break\n',
        'core/test_dispatch.py::TestBackPressure::test_adders_are_let_in_together',
    ),
    Bug(
        "adders not let in after a take",
        "threads.py",
        "                if core.adders and core.has_room():\n                    self._admit()\n"
        "                mutex.release()\n                while",
        "                mutex.release()\n                while",
        "conformance/test_p03_isolation.py::test_an_add_that_waits_goes_on_when_a_worker_has_taken_what_filled_the_pool",
    ),
    Bug(
        "adders wait for half although a worker sleeps",
        "dispatch.py",
        "self.waiting <= self.half or self.asleep > 0",
        "self.waiting <= self.half",
        "conformance/test_p03_isolation.py::test_an_add_that_waits_goes_on_as_soon_as_there_is_room_and_an_idle_worker",
    ),
    Bug(
        "key of an adder not looked at",
        "dispatch.py",
        "        hash(key)  #",
        "        #",
        "conformance/test_p07_backpressure.py::test_who_adds_a_key_that_cannot_be_hashed_to_a_full_pool_hears_of_it_at_once",
    ),
    Bug(
        'key of an adder fails the pool',
        'dispatch.py',
        'elif item is not None and isinstance(error, Exception):',
        'elif False:',
        'conformance/test_p07_backpressure.py::test_a_key_that_raises_when_it_is_let_in_is_its_adders_alone',
    ),
    Bug(
        'no look at the backlog between half and all',
        'dispatch.py',
        'self.look = min(self.max_backlog, self.waiting + max(1, self.max_backlog // 8))',
        'self.look = self.max_backlog',
        'core/test_dispatch.py::TestBackPressure::test_a_key_that_grows_after_half_is_seen_at_a_later_look',
    ),
    Bug(
        'only the deepest key counts as blocked',
        'dispatch.py',
        'sum(each for each, _ in depths) + held.blocked',
        'depth + held.blocked',
        'core/test_dispatch.py::TestBackPressure::test_half_of_the_bound_may_wait_behind_several_keys',
    ),
    Bug(
        "scan of the lanes",
        "lanes.py",
        "            behind = lanes[key]\n            if behind:",
        "            behind = next(behind for name, behind in lanes.items() if name == key)\n            if behind:",
        "conformance/test_original_faults.py::test_fault_08_choosing_an_event_examines_none_that_is_blocked",
    ),
    Bug(
        "start without a thread never ends",
        "driver.py",
        "        if not self._core.workers:\n            self._all_left()\n",
        "",
        "threads/test_p08_threads.py::test_where_a_thread_cannot_be_started_those_that_were_are_ended",
    ),
    Bug(
        "thread that comes too late let in",
        "driver.py",
        "        self._complete = False\n",
        "",
        "threads/test_p08_threads.py::test_an_interrupted_start_leaves_no_thread_and_returns_every_event",
    ),
    Bug(
        "backlog handled in a forked child",
        "threads.py",
        "                    if self._mutex is not mutex:\n                        return  #",
        "                    if False:\n                        return  #",
        "threads/test_p12_process.py::test_a_handler_that_forks_leaves_the_backlog_to_the_parent",
    ),
    Bug(
        "pool failed in a forked child",
        "threads.py",
        "            if self._mutex is not mutex:\n                raise",
        "            if False:\n                raise",
        "threads/test_p12_process.py::test_a_handler_that_forks_leaves_the_backlog_to_the_parent",
    ),
    Bug(
        "key of an error that cannot be told",
        "errors.py",
        "    except Exception as error:\n        return",
        "    except ImportError as error:\n        return",
        "conformance/test_p06_failure.py::test_it_is_told_whatever_the_texts_of_key_and_error_do",
    ),
    Bug(
        'pool that has ended entered',
        'driver.py',
        '        if self._core.state is not State.OPEN:\n            raise self._core.refusal("cannot be entered")\n',
        '',
        'conformance/test_p08_endings.py::test_a_block_takes_no_pool_that_has_ended',
    ),
    Bug(
        'pool that has ended kept',
        'threads.py',
        '        process.running.pop(self, None)\n',
        '',
        'threads/test_p12_process.py::test_a_pool_that_has_failed_is_free_to_go',
    ),
    Bug(
        'time-out told of a pool that has ended',
        'driver.py',
        '        if state is not State.ENDED:\n            raise StopTimeout',
        '        if True:\n            raise StopTimeout',
        'threads/test_p08_threads.py::test_a_stop_that_gives_up_as_the_pool_ends_returns_what_is_left',
    ),
    Bug(
        'add raises what logging raises',
        'driver.py',
        '        except Exception:\n            traceback',
        '        except ImportError:\n            traceback',
        'conformance/test_p03_isolation.py::test_a_warning_that_cannot_be_logged_is_no_error_of_its_add',
    ),
    Bug(
        "key told under the mutex",
        "driver.py",
        'f"the handler of key {describe(key)}"',
        'f"the handler of key {self._step(describe, key)}"',
        "conformance/test_p06_failure.py::test_it_is_told_whatever_the_texts_of_key_and_error_do",
    ),
    Bug(
        "cancelled call run all the same",
        "futures.py",
        "            if work is None or not self.set_running_or_notify_cancel():",
        "            if work is None:",
        "futures/test_cancelling.py::test_a_cancel_that_comes_as_it_starts_is_told_by_the_worker",
    ),
    Bug(
        "cancelled call kept in its lane",
        "futures.py",
        "pool._by_hand(pool._core.cancel, key, self)",
        "pass",
        "futures/test_cancelling.py::test_it_goes_at_once",
    ),
    Bug(
        "cancelled call keeps its arguments",
        "futures.py",
        'self.__dict__.pop("work", None)',
        'self.__dict__.get("work", None)',
        "futures/test_cancelling.py::test_its_function_and_arguments_are_free_to_go",
    ),
    Bug(
        "waiters of a cancelled future not told",
        "futures.py",
        "_told, work = self.set_running_or_notify_cancel(), None",
        "_told, work = False, None",
        "futures/test_cancelling.py::test_from_code_that_runs_inside_the_pool_it_is_never_run_all_the_same",
    ),
    Bug(
        "order lost on cancel",
        "held.py",
        "                return behind, at if first is event else -1 - at, key\n",
        "                behind.remove(event), behind.reverse(), behind.appendleft(event)\n"
        "                return behind, 0, key\n",
        "futures/test_cancelling.py::test_the_rest_keep_their_order",
    ),
    Bug(
        "head cancelled with its lane",
        "held.py",
        "                self._advance(key)\n            self.heed(key)\n            return",
        "                del self.lanes[key]\n            self.heed(key)\n            return",
        "core/test_cancel.py::test_where_a_head_goes_the_next_of_its_key_takes_a_new_turn",
    ),
    Bug(
        "cancel made known under another key",
        "held.py",
        "return (ready, at, head[0]) if head[1] is event else (ready, -1 - at, tail[0])",
        "return (ready, at, key) if head[1] is event else (ready, -1 - at, key)",
        "core/test_cancel.py::test_what_was_added_under_an_equal_key_is_left_to_a_stop_all_the_same",
    ),
    Bug(
        "cancel searches from one end",
        "held.py",
        "zip_longest(behind, reversed(behind), ready, reversed(ready),",
        "zip_longest(behind, (), ready, (),",
        "core/test_cancel.py::test_many_in_a_row_are_found_without_a_search",
    ),
    Bug(
        "adder not let in by a cancel",
        "held.py",
        "        if note is not None and note.line:\n            self._let_in(note)\n            self.strike",
        "        if note is not None and note.line:\n            self.strike",
        "core/test_cancel.py::test_who_waits_for_room_in_the_lane_comes_in",
    ),
    Bug(
        "shutdown drops calls",
        "futures.py",
        "self._step(self._close, cancel)",
        "self._step(self._close, True)",
        "futures/test_as_the_standard_library.py::TestWhole::test_whoever_submits_while_it_is_shut_down_is_refused_or_served",
    ),
    Bug(
        "shutdown of a view shuts all",
        "futures.py",
        "        self._shut = True\n",
        "        self._shut = True\n        self._executor.shutdown(wait=False)\n",
        "futures/test_keys.py::TestView::test_its_shutdown_refuses_on_it_only",
    ),
    Bug(
        "shutdown of a view waits for nothing",
        "futures.py",
        "            concurrent.futures.wait(futures)\n",
        "            pass\n",
        "futures/test_keys.py::TestView::test_its_shutdown_waits_for_its_own_only",
    ),
    Bug(
        "view accepts after its shutdown has looked",
        "futures.py",
        "        futures[future] = None  # First: a shutdown that comes now waits for it.\n",
        "",
        "futures/test_keys.py::TestView::test_its_shutdown_waits_for_its_own_only",
    ),
    Bug(
        "forgotten executor keeps its threads",
        "futures.py",
        "        self._forgotten = True\n",
        "",
        "futures/test_being_dropped.py::test_one_that_was_used_goes_with_its_pool_and_its_threads",
    ),
    Bug(
        "forgotten executor not told",
        "futures.py",
        "        self._forgotten = True\n        self._nudge()\n",
        "        self._forgotten = True\n",
        "futures/test_being_dropped.py::test_one_that_was_used_goes_with_its_pool_and_its_threads",
    ),
    Bug(
        "futures keep their executor",
        "futures.py",
        "        future = _Future(self._pool, key, fn, args, kwargs)\n",
        "        future = _Future(self._pool, key, fn, args, kwargs)\n        future.owner = self\n",
        "futures/test_being_dropped.py::test_one_that_is_forgotten_finishes_all_of_every_key_in_order",
    ),
    Bug(
        "error of a call swallowed",
        "futures.py",
        "                self.set_exception(error)\n            else",
        "                self.set_result(None)\n            else",
        "futures/test_as_the_standard_library.py::TestSubmit::test_what_cannot_be_called_is_an_error_of_the_call",
    ),
    Bug(
        "error of a call in a cycle",
        "futures.py",
        "            del self, work  #",
        "            del work  #",
        "futures/test_as_the_standard_library.py::TestReferences::test_a_function_is_released_when_its_call_has_failed_and_its_error_is_dropped",
    ),
    Bug(
        "done callback ends the pool",
        "futures.py",
        "        except BaseException:\n            _log",
        "        except ImportError:\n            _log",
        "futures/test_shutting_down.py::test_a_done_callback_that_ends_its_thread_ends_nothing",
    ),
    Bug(
        "future hangs after a failure",
        "futures.py",
        "        super()._fail(*args, **kwargs)\n        self._give_up()\n",
        "        super()._fail(*args, **kwargs)\n",
        "futures/test_shutting_down.py::TestBroken::test_where_a_worker_fails_every_future_ends_and_submit_says_so",
    ),
    Bug(
        "thread that cannot be started not told",
        "futures.py",
        "                if not self._complete:\n                    raise\n",
        "                pass\n",
        "futures/test_shutting_down.py::TestBroken::test_where_no_thread_can_be_started_submit_says_so_and_no_future_hangs",
    ),
    Bug(
        'retry lost',
        'held.py',
        '            self.ready.append(item)\n            del where[held.key]\n        except',
        '            del where[held.key]\n        except',
        'conformance/test_p09_policy.py::TestByHand::test_a_ready_key_is_parked_when_its_turn_comes',
    ),
    Bug(
        'retry not at the head',
        'held.py',
        '        item = (held.key, held.event)\n        try:\n',
        '        item = (held.key, held.event)\n        if behind := self.lanes[held.key]:\n            behind.append(held.event)\n            item = (held.key, behind.popleft())\n        try:\n',
        'conformance/test_p09_policy.py::TestRetry::test_no_event_of_its_key_passes_it_and_the_other_keys_go_on',
    ),
    Bug(
        'retry not told to the timekeeper',
        'driver.py',
        '            self._nudge()\n',
        '            pass\n',
        'conformance/test_p09_policy.py::TestRetry::test_an_event_is_delivered_again_when_it_is_due_with_the_number_of_the_attempt',
    ),
    Bug(
        'retry of no time where the cap is a whole number',
        'policy.py',
        'min(float(self.cap),',
        'min(self.cap,',
        'core/test_policy.py::TestDelay::test_it_is_a_float_whatever_was_given',
    ),
    Bug(
        'wake-up lost at release',
        'driver.py',
        '        if core.release(now):\n            self._wake()\n',
        '        core.release(now)\n',
        'conformance/test_p09_policy.py::TestRetry::test_an_event_is_delivered_again_when_it_is_due_with_the_number_of_the_attempt',
    ),
    Bug(
        'attempt not counted',
        'held.py',
        'note.failures, note.error = note.failures + 1, error',
        'note.failures, note.error = 1, error',
        'conformance/test_p09_policy.py::TestRetry::test_an_event_is_delivered_again_when_it_is_due_with_the_number_of_the_attempt',
    ),
    Bug(
        'attempts counted by key',
        'held.py',
        '            note.failures, note.error, note.failed = 0',
        '            _ = 0',
        'conformance/test_p09_policy.py::TestRetry::test_no_event_of_its_key_passes_it_and_the_other_keys_go_on',
    ),
    Bug(
        'verdict overruled by the policy',
        'policy.py',
        '        case SkipEvent():\n            decision = Skip()\n',
        '',
        'conformance/test_p09_policy.py::TestVerdicts::test_a_handler_decides_whatever_the_policy_says',
    ),
    Bug(
        'Ctrl-C retried',
        'policy.py',
        '        case _:\n            decision = Fail()',
        '        case _:\n            decision = policy',
        'core/test_policy.py::TestDecide::test_what_is_no_exception_fails_the_pool_under_any_policy',
    ),
    Bug(
        'parked key runs',
        'held.py',
        'return note is not None and note.parking',
        'return False',
        'conformance/test_p09_policy.py::TestByHand::test_they_work_before_the_start_and_from_a_handler',
    ),
    Bug(
        'parked key is retried all the same',
        'dispatch.py',
        'isinstance(decision, Park) or self.is_to_park(item[0])',
        'isinstance(decision, Park)',
        'conformance/test_p09_policy.py::TestByHand::test_a_key_in_flight_that_fails_is_parked_rather_than_retried',
    ),
    Bug(
        'resume forgets the wake-up',
        'driver.py',
        '        if core.wake():\n            self._wake()\n\n    def _admit',
        '        core.wake()\n\n    def _admit',
        'conformance/test_p09_policy.py::TestRetry::test_each_event_of_a_key_has_attempts_of_its_own',
    ),
    Bug(
        'dead not counted',
        'held.py',
        'None, NOTHING, self.dead + 1,',
        'None, NOTHING, self.dead,',
        'conformance/test_p10_stats.py::test_they_add_up_while_events_fail_and_keys_are_held',
    ),
    Bug(
        'dead list unbounded',
        'held.py',
        'while len(self.buried) > self.max_dead:',
        'while False:',
        'conformance/test_p09_policy.py::TestDead::test_the_newest_are_kept_the_oldest_first_and_the_others_counted',
    ),
    Bug(
        'dead event replayed twice',
        'dispatch.py',
        '            _, self.replayed = self.buried.pop(dead), self.replayed + 1\n        except',
        '            pass\n        except',
        'conformance/test_p09_policy.py::TestDead::test_a_replayed_event_is_a_new_one_at_the_end_of_its_lane',
    ),
    Bug(
        'max_lane ignored',
        'dispatch.py',
        '>= self.max_lane\n        except',
        '>= 10**9\n        except',
        'conformance/test_p09_policy.py::TestMaxLane::test_who_does_not_wait_is_told_which_key_it_is',
    ),
    Bug(
        'line of a lane not let in',
        'held.py',
        '            if note.line:\n                self._let_in(note)\n',
        '',
        'conformance/test_p09_policy.py::TestMaxLane::test_a_full_lane_makes_those_wait_who_add_to_it_and_nobody_else',
    ),
    Bug(
        'add that waits for a lane accepted by the end',
        'dispatch.py',
        '            self.adders.update(line)  #',
        '            pass  #',
        'core/test_dispatch.py::TestMaxLane::test_who_waits_in_a_line_when_the_ending_comes_has_added_nothing',
    ),
    Bug(
        'parked dropped at stop',
        'held.py',
        '((held.key, held.event) for held in self.held())',
        '((held.key, held.event) for held in self.retrying.values())',
        'conformance/test_p09_policy.py::TestVerdicts::test_a_handler_decides_whatever_the_policy_says',
    ),
    Bug(
        'retried during a stop',
        'dispatch.py',
        '        if not self.serving:\n            self.again(worker, item)\n        elif',
        '        if',
        'conformance/test_p09_policy.py::TestEndings::test_a_failed_attempt_during_a_stop_is_returned_whatever_the_policy',
    ),
    Bug(
        'drain waits for parked for ever',
        'dispatch.py',
        'not (self.ready or self.in_flight or self.retrying)',
        'not self.lanes',
        'conformance/test_p09_policy.py::TestVerdicts::test_a_handler_decides_whatever_the_policy_says',
    ),
    Bug(
        'drain does not wait for retries',
        'dispatch.py',
        'not (self.ready or self.in_flight or self.retrying)',
        'not (self.ready or self.in_flight)',
        'conformance/test_p09_policy.py::TestRetry::test_a_drain_waits_for_retries',
    ),
    Bug(
        'drain spins',
        'driver.py',
        '            return None  # It woke for nothing',
        '            self._wake()\n            return None  # It woke for nothing',
        'threads/test_p08_threads.py::test_a_worker_that_wakes_for_nothing_wakes_nobody',
    ),
    Bug(
        'error kept with its frames',
        'driver.py',
        'text = f"{type(error).__name__}: {describe(error, str)}"',
        'text = type("Text", (str,), {"error": error})(f"{type(error).__name__}: {describe(error, str)}")',
        'conformance/test_p09_policy.py::TestMemory::test_a_stored_error_is_text_and_keeps_nothing_alive',
    ),
    Bug(
        'watchdog logs twice',
        'dispatch.py',
        'key.told = True',
        'pass',
        'conformance/test_p09_policy.py::TestWatchdog::test_a_handler_that_runs_for_long_is_told_once_with_its_stack',
    ),
    Bug(
        'watchdog counts deliveries together',
        'dispatch.py',
        'return cast("K", key.key) if isinstance(key, Watched) else key',
        'return key',
        'core/test_dispatch.py::TestWatch::test_each_delivery_that_is_seen_for_long_is_told_once',
    ),
    Bug(
        'call by hand that was cut owes a wake-up',
        'driver.py',
        'if self._core.waking or self._core.wake():',
        'if False:',
        'threads/test_p11_reentry.py::test_a_call_by_hand_that_is_cut_at_any_line_is_made_or_not',
    ),
    Bug(
        "event lost with its executor",
        "executors.py",
        "                    if submitted:\n                        key",
        "                    break\n                    if submitted:\n                        key",
        "executors/test_lost.py::test_an_event_that_is_lost_is_delivered_again_before_any_later_one_of_its_key",
    ),
    Bug(
        "executor that broke not replaced",
        "executors.py",
        "            self._shut_down(executor, wait=bool(processes))\n            self._executor = None\n",
        "            self._shut_down(executor, wait=bool(processes))\n",
        "executors/test_lost.py::test_an_event_that_is_lost_is_delivered_again_before_any_later_one_of_its_key",
    ),
    Bug(
        "pool goes on with an executor that broke",
        "executors.py",
        "if self._factory is None and isinstance(error, ExecutorBroken):",
        "if False and isinstance(error, ExecutorBroken):",
        "executors/test_lost.py::test_an_executor_that_was_given_is_not_replaced_and_fails_the_pool",
    ),
    Bug(
        "executor left running",
        "executors.py",
        "            self._shut_down(self._executor, wait=True)  #",
        "            pass  #",
        "executors/test_in_process.py::test_what_a_factory_made_is_shut_down_once_and_what_was_given_never",
    ),
    Bug(
        "executor shut down before the last handler has ended",
        "executors.py",
        "        while self._core.workers != {TIMEKEEPER}:  #",
        "        while False:  #",
        "executors/test_in_process.py::test_a_pool_whose_clock_fails_shuts_its_executor_down_when_the_last_handler_has_ended",
    ),
    Bug(
        "poison delivered for ever",
        "executors.py",
        "for losses in range(1, _LOSSES + 1):",
        "for losses in itertools.count(_LOSSES + 1):",
        "executors/test_lost.py::test_after_three_losses_in_a_row_the_policy_decides",
    ),
    Bug(
        "handler elsewhere not inside",
        "executors.py",
        "            with self._from_inside():\n",
        "            with nullcontext():\n",
        "executors/test_in_process.py::test_a_handler_adds_over_the_bound_and_never_waits",
    ),
    Bug(
        "result sent back",
        "executors.py",
        "        handler(*arguments)\n    except",
        "        return handler(*arguments)  # type: ignore[return-value]\n    except",
        "executors/test_in_process.py::test_what_a_handler_returns_is_dropped",
    ),
    Bug(
        "handler's own broken executor taken for the pool's",
        "executors.py",
        "        if isinstance(error, (BrokenExecutor, CancelledError)):\n            return error\n",
        "",
        "executors/test_lost.py::test_what_a_handler_raises_by_itself_is_its_own_whatever_it_looks_like",
    ),
    Bug(
        "losses not counted as attempts",
        "executors.py",
        "                        delivery = Delivery(key, delivery.attempt + 1)\n",
        "",
        "executors/test_lost.py::test_deliveries_are_counted_in_what_the_handler_and_the_pool_tell_of_them",
    ),
    Bug(
        "losses not told",
        "executors.py",
        "self._step(self._core.fail_once, key, text, self._clock.now())",
        "pass",
        "executors/test_lost.py::test_a_retry_goes_on_counting",
    ),
    Bug(
        "bystanders blamed",
        "executors.py",
        "with self._last_chance if losses == _LOSSES else nullcontext():",
        "with nullcontext():",
        "executors/test_lost.py::test_what_was_only_beside_an_event_that_kills_is_not_blamed_for_it",
    ),
    Bug(
        "lost event delivered beside its lost delivery",
        "executors.py",
        "                each.kill()\n            self._shut_down(executor, wait=bool(processes))\n",
        "                each.terminate()\n            self._shut_down(executor, wait=False)\n",
        "executors/test_processes.py::test_a_process_that_is_killed_takes_nothing_with_it",
    ),
    Bug(
        "exception that cannot be made again breaks the executor",
        "executors.py",
        "if travels and not _can_travel(error):",
        "if False:",
        "executors/test_processes.py::test_what_a_handler_raises_or_returns_arrives_or_is_told",
    ),
    Bug(
        "equal calls",
        "executors.py",
        "get_ident(), next(self._calls))",
        "0, 0)",
        "executors/test_lost.py::test_no_two_calls_are_equal",
    ),
    Bug(
        "executor of a forgotten pool stopped before its drain",
        "executors.py",
        "threading._register_atexit(_drain_all)",
        "len([_drain_all])",
        "executors/test_process_end.py::test_a_pool_that_is_forgotten_is_drained_where_its_executor_has_begun",
    ),
    Bug(
        'wake-up lost on a loop',
        'asyncio.py',
        '                sleeper.set_result(None)  #',
        '                pass  #',
        'loop/test_loop_adding.py::test_cancelling_an_add_that_waits_adds_nothing',
    ),
    Bug(
        'wake-up with no sleeper lost on a loop',
        'asyncio.py',
        '        if again or not self._wakeups:\n            self._wakeups += 1\n',
        '',
        'loop/test_loop_reentry.py::test_an_add_between_a_workers_last_look_and_its_sleep_wakes_it',
    ),
    Bug(
        'sleeper lost by a wake-up that is cut',
        'asyncio.py',
        '            sleeper = self._sleepers[-1]\n',
        '            sleeper = self._sleepers.pop()\n            self._sleepers.append(sleeper)\n',
        'loop/test_loop_reentry.py::test_an_add_that_is_cut_at_any_line_is_accepted_or_not',
    ),
    Bug(
        'swallowed cancel ignored',
        'asyncio.py',
        '                    if cancelled():\n                        raise asyncio.CancelledError  #',
        '                    if False:\n                        raise asyncio.CancelledError  #',
        'loop/test_loop_cancelling.py::test_a_handler_that_swallows_its_cancel_has_handled_its_event_and_the_pool_stops',
    ),
    Bug(
        'cancel that became another error ignored',
        'asyncio.py',
        '                        if cancelled():\n                            raise asyncio.CancelledError from error',
        '                        if False:\n                            raise asyncio.CancelledError from error',
        'loop/test_loop_cancelling.py::test_a_handler_that_makes_another_error_of_its_cancel_does_not_keep_its_worker',
    ),
    Bug(
        'event lost on a cancel',
        'asyncio.py',
        'self._fail(worker, item, error, ended, is_asked)',
        'self._fail(worker, None if is_asked else item, error, ended, is_asked)',
        'loop/test_loop_cancelling.py::test_a_cancel_of_a_worker_puts_its_event_back_at_the_head_and_stops_the_pool',
    ),
    Bug(
        'worker cancelled before it began never leaves',
        'asyncio.py',
        'if worker in self._core.workers and not',
        'if False and not',
        'loop/test_loop_cancelling.py::test_a_worker_that_is_cancelled_before_it_began_ends_the_pool_too',
    ),
    Bug(
        'adder kept after its cancel',
        'asyncio.py',
        '        if not self.done():\n            self._pool._step(self._pool._strike, self)\n',
        '',
        'loop/test_loop_adding.py::test_an_add_that_is_cancelled_while_it_is_let_in_is_accepted_or_not',
    ),
    Bug(
        'adder that gave up counted as accepted',
        'asyncio.py',
        '            self._core.refused[gate] = refusal  #',
        '            pass  #',
        'loop/test_loop_adding.py::test_an_add_gives_up_when_its_time_is_over',
    ),
    Bug(
        'unasked cancel kills its worker',
        'asyncio.py',
        'except (Exception, asyncio.CancelledError) as error:',
        'except Exception as error:',
        'loop/test_loop_cancelling.py::test_a_cancelled_error_that_nobody_asked_for_fails_the_pool_and_says_what_it_was',
    ),
    Bug(
        'unasked cancel that does not tell',
        'asyncio.py',
        '            raise unasked\n',
        '            return False\n',
        'loop/test_loop_cancelling.py::test_a_cancelled_error_that_nobody_asked_for_fails_the_pool_and_says_what_it_was',
    ),
    Bug(
        'timer kept for an earlier retry',
        'asyncio.py',
        '            cast("asyncio.AbstractEventLoop", self._loop).call_soon(self._keep_time)\n',
        '            pass\n',
        'loop/test_loop_time.py::test_a_retry_that_is_due_before_the_others_sets_the_timer_forward',
    ),
    Bug(
        'a timer for each retry',
        'asyncio.py',
        '                self._timer.cancel()\n                self._timer = None\n',
        '                self._timer = None\n',
        'loop/test_loop_time.py::test_ten_thousand_keys_that_wait_for_a_retry_hold_no_task_and_one_timer',
    ),
    Bug(
        'task left behind',
        'driver.py',
        '        self._step(self._wake)  # The next that sleeps may leave too.\n',
        '',
        'loop/test_loop_endings.py::test_a_block_starts_the_pool_and_drains_it',
    ),
    Bug(
        'tasks of a start that failed left behind',
        'asyncio.py',
        '            self._take_back(me, self._tasks.values())\n',
        '            pass\n',
        'loop/test_loop_endings.py::test_where_a_task_cannot_be_made_those_that_were_are_ended',
    ),
    Bug(
        'background task inside',
        'asyncio.py',
        'asyncio.current_task() in self._tasks',
        'asyncio.current_task() in asyncio.all_tasks() and bool(self._core.in_flight)',
        'loop/test_loop_adding.py::test_a_task_that_a_handler_started_is_not_inside',
    ),
    Bug(
        'burst without end',
        'asyncio.py',
        'if burst > _BURST:',
        'if False:',
        'loop/test_loop_time.py::test_a_handler_that_never_awaits_does_not_starve_the_loop',
    ),
    Bug(
        'time-out ignored',
        'asyncio.py',
        'async with asyncio.timeout(self._timeout):',
        'async with asyncio.timeout(None):',
        'loop/test_loop_time.py::test_a_handler_that_takes_too_long_has_failed',
    ),
    Bug(
        'another loop let in',
        'asyncio.py',
        '        elif self._loop is not loop:',
        '        elif False:',
        'loop/test_loop_endings.py::test_a_call_on_another_loop_raises_before_the_start',
    ),
    Bug(
        'woken from another thread',
        'asyncio.py',
        '        if asyncio._get_running_loop() is not self._loop:\n            # From',
        '        if False:\n            # From',
        'loop/test_loop_threads.py::test_an_event_from_a_thread_wakes_a_loop_that_sleeps',
    ),
    Bug(
        "sleeping loop not told of a signal's add",
        'asyncio.py',
        '            loop.call_soon_threadsafe(_nothing)',
        '            pass',
        'loop/test_loop_reentry.py::test_what_a_signal_handler_adds_while_the_loop_sleeps_is_handled',
    ),
    Bug(
        'lost events of a loop that ends not told',
        'driver.py',
        'left = core.waiting + core.in_flight',
        'left = core.waiting',
        'loop/test_loop_cancelling.py::test_a_cancel_of_every_worker_leaves_everything_in_order',
    ),
    Bug(
        'block on a loop not stopped by a cancel in its drain',
        'driver.py',
        '            self._step(self._close, True)  # An',
        '            pass  # An',
        'loop/test_loop_endings.py::test_a_cancel_while_the_end_of_a_block_drains_stops_the_pool',
    ),
    Bug(
        'add outside the mutex',
        'driver.py',
        '            if not mutex.acquire(False):\n                give_way(mutex)\n            wake = core.submit(key, event)\n',
        '            wake = core.submit(key, event)\n            if not mutex.acquire(False):\n                give_way(mutex)\n',
        'threads/test_stress.py',
    ),
    Bug(
        'next event chosen outside the mutex',
        'threads.py',
        '                    item, ended = core.next(worker, key), False\n',
        '                    mutex.release()\n                    item, ended = core.next(worker, key), False\n                    mutex.acquire()\n',
        'threads/test_stress.py',
    ),
    Bug(
        'overlap not seen by the checker',
        'testing/checker.py',
        '            if others:\n                broken.append',
        '            if False:\n                broken.append',
        'testing/test_history.py',
    ),
    Bug(
        'loss not seen by the checker',
        'testing/checker.py',
        '        if accepted <= places <= times - life.refused:',
        '        if places <= times - life.refused:',
        'testing/test_history.py',
    ),
    Bug(
        'wrong order not seen by the checker',
        'testing/checker.py',
        '        if life.first < last:\n            break\n',
        '',
        'testing/test_history.py',
    ),
    Bug(
        'event of a coroutine handler kept by the history',
        'testing/history.py',
        '            del envelope\n',
        '',
        'testing/test_history.py',
    ),
    Bug(
        'shutdown of a view waits for itself',
        'futures.py',
        '        if wait and not pool._step(pool._is_inside):\n',
        '        if wait:\n',
        'futures/test_keys.py::TestView::test_its_shutdown_from_a_call_returns_at_once',
    ),
    Bug(
        'call accepted after the shutdown',
        'futures.py',
        '        if self._core.state is not State.OPEN:\n            raise self._core.refusal("takes no more calls")',
        '        if False:\n            pass',
        'futures/test_as_the_standard_library.py::TestWhole::test_a_call_that_submits_after_a_shutdown_is_refused',
    ),
    Bug(
        'result of a map kept',
        'futures.py',
        '_result(futures.popleft(),',
        '_result((given := futures.popleft()),',
        'futures/test_keys.py::TestMap',
    ),
    Bug(
        'error of a map in a cycle',
        'futures.py',
        '        del future  #',
        '        pass  #',
        'futures/test_keys.py::TestMap',
    ),
    Bug(
        'call run although it counts as lost',
        'executors.py',
        '    if pool is None or ended is None:\n        return None',
        '    if pool is None or ended is None:\n        return _run(handler, arguments, travels=False)',
        'executors/test_lost.py',
    ),
    Bug(
        'call that was taken and refused delivered again',
        'executors.py',
        '                        if not submitted:\n                            break\n',
        '',
        'executors/test_lost.py::test_a_call_that_an_executor_runs_and_refuses_has_been_run',
    ),
    Bug(
        'call that was lost delivered again beside itself',
        'executors.py',
        '                        raised = ended.get()\n                        if not',
        '                        if not',
        'executors/test_lost.py::test_a_call_that_is_lost_while_it_runs_here_is_not_delivered_again_beside_itself',
    ),
    Bug(
        'error that cannot be made again taken for the executor',
        'executors.py',
        '        if travels and not _can_travel(error):',
        '        if isinstance(error, (BrokenExecutor, CancelledError)):\n            return error\n        if travels and not _can_travel(error):',
        'executors/test_processes.py::test_what_a_handler_raises_or_returns_arrives_or_is_told',
    ),
    Bug(
        'executor that cannot start a process goes on',
        'executors.py',
        'describe(error, str).startswith(_SHUT_DOWN)',
        'not isinstance(error, BrokenExecutor)',
        'executors/test_lost.py::test_an_executor_that_cannot_start_a_process_is_replaced_and_what_it_has_is_ended',
    ),
    Bug(
        'another process taken for this one',
        'executors.py',
        'os.urandom(8).hex()',
        '""',
        'executors/test_lost.py',
    ),
    Bug(
        'interrupted call kept by its view',
        'futures.py',
        '            if future.cancel():\n                futures.pop(future, None)  #',
        '            if future.cancel():\n                pass  #',
        'futures/test_interrupts.py',
    ),
    Bug(
        'waiters not told after an interrupted cancel',
        'futures.py',
        '                self.work = work  #',
        '                pass  #',
        'futures/test_interrupts.py',
    ),
    Bug(
        'pool that is started at the end not drained',
        'process.py',
        '    while left := [pool for pool in running if isinstance(pool, kind) and pool not in seen]:\n        pool = left[-1]\n',
        '    for pool in reversed([pool for pool in running if isinstance(pool, kind)]):\n',
        'threads/test_p12_process.py',
    ),
]  # fmt: skip


class Runner:
    """A process of `runner.py`, which runs tests against one copy of the code after another."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("runner.py"))],
            env=os.environ
            | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
            | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "pycache")},
            cwd=TESTS.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, copy: Path, patience: float, *tests: str) -> tuple[int, str]:
        """The exit code of the tests, and what they printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = [str(copy), patience, [str(TESTS / test) for test in tests]]
        print(json.dumps(request), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        return code, (copy / "output").read_text(errors="replace")


class Runs:
    """The runs of all bugs, two for each processor at once: one that hangs leaves its processor to another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runners = [Runner(folder) for _ in range(2 * (os.cpu_count() or 1))]
        self.free: SimpleQueue[Runner] = SimpleQueue()
        for runner in self.runners:
            self.free.put(runner)
        self.executor = ThreadPoolExecutor(len(self.runners))
        self.of_none = self.executor.submit(self.run, None)
        self.of = {bug.name: self.executor.submit(self.run, bug) for bug in BUGS}

    def run(self, bug: Bug | None) -> tuple[int, str]:
        """Run the tests that a bug is aimed at with it, or those of all bugs without any."""
        copy = self.folder / (bug.name.replace(" ", "-") if bug else "none")
        shutil.copytree(SOURCE, copy / "workpool", ignore=shutil.ignore_patterns("__pycache__"))
        if bug:
            path = copy / "workpool" / bug.file
            text = path.read_text()
            assert text.count(bug.old) == 1, f"its place occurs {text.count(bug.old)} times in {bug.file}"
            path.write_text(text.replace(bug.old, bug.new))
        runner = self.free.get()
        try:
            return runner.run(copy, 2, bug.aim) if bug else runner.run(copy, PATIENCE, *sorted({b.aim for b in BUGS}))
        finally:
            self.free.put(runner)

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)
        for runner in self.runners:
            runner.process.communicate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(tmp_path_factory.mktemp("planted"))
    yield runs
    runs.close()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, runs: Runs) -> None:
    code, output = runs.of[bug.name].result()
    assert code == 1, f"{bug.name!r} is not caught by {bug.aim}, which ended with {code}:\n{output}"


def test_without_a_bug_they_pass(runs: Runs) -> None:
    """So it is the bugs that are caught, and not that the tests run in a fork and on a copy."""
    code, output = runs.of_none.result()
    assert code == 0, output
