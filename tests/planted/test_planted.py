"""The suite is proven by planted bugs: each, in a copy of the code, fails the tests that it is aimed at.

A bug is one replacement of a text that occurs just once, so that a change of the code that leaves a bug without its
place is seen here too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import workpool

TESTS = Path(__file__).parent.parent
SOURCE = Path(workpool.__file__).parent


@dataclass(frozen=True)
class Bug:
    """A fault to plant, and the tests that have to see it."""

    name: str
    file: str
    old: str
    new: str
    aim: str


BUGS = [
    Bug("LIFO lane", "lanes.py", "behind.popleft()", "behind.pop()", "conformance/test_p02_order.py"),
    Bug("lane claimed twice", "lanes.py", "idle = len(lanes) > keys", "idle = True", "conformance/test_p02_order.py"),
    Bug("wake-up lost", "lanes.py", "return idle and self.wake()", "return False", "conformance/test_p05_wakeup.py"),
    Bug(
        "wake-up not passed on",
        "threads.py",
        "                if core.wake():\n                    wakeups.put(None)\n",
        "",
        "conformance/test_p05_wakeup.py",
    ),
    Bug(
        'wake-up of an add that was cut lost',
        'driver.py',
        'if core.waking or core.wake():',
        'if False:',
        'threads/test_p11_reentry.py',
    ),
    Bug(
        'lane kept after a raise',
        'driver.py',
        'self._tell(core.fail(worker, None if ended or key is NOTHING else item, None if cancelled else error, ended))',
        'pass',
        'conformance/test_p06_failure.py',
    ),
    Bug(
        'failure not told',
        'driver.py',
        'logging.ERROR, "pool %r: %s raised at attempt %d, and the pool stops"',
        'logging.DEBUG, "pool %r: %s raised at attempt %d, and the pool stops"',
        'conformance/test_p06_failure.py',
    ),
    Bug(
        "failed event lost",
        "lanes.py",
        "        self.ready.append(item)\n        self.holds",
        "        self.holds",
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "event dropped at stop",
        "lanes.py",
        "found.extend((key, event) for event in behind or ())",
        "pass",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "stop forgets the heads",
        "lanes.py",
        "found.append(heads[id(key)])",
        "pass",
        "conformance/test_p01_exactly_once.py",
    ),
    Bug(
        "add accepted after the end",
        "dispatch.py",
        "        self.limit = 0\n        return [",
        "        return [",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "bound ignored",
        "lanes.py",
        "if waiting >= self.limit and not force:",
        "if self.limit == 0 and not force:",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "waiting adders passed by",
        "dispatch.py",
        "        self.limit = 0  # Until",
        "        # Until",
        "core/test_dispatch.py",
    ),
    Bug(
        'waiting adder forgotten',
        'driver.py',
        '        self._tell(self._core.admitted)\n        self._core.admitted.clear()\n',
        '        self._core.admitted.clear()\n',
        'conformance/test_p07_backpressure.py',
    ),
    Bug(
        "handler waits for itself",
        "dispatch.py",
        "        if inside:\n            return self.submit(key, event, True)\n",
        "",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "head-of-line scan",
        "lanes.py",
        "item = ready.popleft()\n                self.holds",
        "item = min(ready, key=len)\n                ready.remove(item)\n                self.holds",
        "conformance/test_original_faults.py",
    ),
    Bug(
        "head-of-line blocking",
        "lanes.py",
        "if not ready or not self.serving:",
        "if not ready or not self.serving or in_flight:",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "a key keeps its worker",
        "lanes.py",
        "                ready.append((key, behind.popleft()))\n",
        "                ready.appendleft((key, behind.popleft()))\n",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "handled event kept alive",
        "threads.py",
        "key, item, _result = item[0], None, None",
        "key, item = item[0], None",
        "conformance/test_p04_residue.py",
    ),
    Bug("idle key kept", "threads.py", "del key  #", "#", "conformance/test_p04_residue.py"),
    Bug("idle lane kept", "lanes.py", "del lanes[key]", "pass", "conformance/test_p04_residue.py"),
    Bug(
        "dict that grew kept",
        "lanes.py",
        "                self.lanes = {}  #",
        "                pass  #",
        "conformance/test_p04_residue.py",
    ),
    Bug(
        "thread left behind",
        "threads.py",
        "            thread.join()\n",
        "            pass\n",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "sleeping worker left behind",
        "threads.py",
        "        self._wakeups.put(None)  # The next that sleeps may leave too.\n",
        "",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "miscounted",
        "lanes.py",
        "            self.handled = handled + 1\n",
        "            self.handled += bool(behind)\n",
        "conformance/test_p10_stats.py",
    ),
    Bug(
        "half an add",
        "lanes.py",
        "                lanes.popitem()  #",
        "                pass  #",
        "threads/test_p11_reentry.py",
    ),
    Bug(
        'an add inside the pool let in',
        'driver.py',
        '        require_outside(mutex)\n        gate = None\n',
        '        gate = None\n',
        'threads/test_p11_reentry.py',
    ),
    Bug(
        'handled and returned',
        'driver.py',
        'None if ended or key is NOTHING else item, None if',
        'item, None if',
        'threads/test_p11_reentry.py',
    ),
    Bug(
        'dropped at exit',
        'process.py',
        'atexit.register(drain_all)\n',
        '',
        'threads/test_p12_process.py',
    ),
    Bug(
        'usable after a fork',
        'driver.py',
        '        self._mutex = Forked()\n',
        '        pass\n',
        'threads/test_p12_process.py',
    ),
    Bug(
        "block drained on an error",
        "threads.py",
        "        self._step(self._close, True)\n        self._wait(None)\n",
        "        self._step(self._close, False)\n        self._wait(None)\n",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "block left at once on an error",
        "threads.py",
        "        self._wait(None)\n",
        "",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "block not stopped by Ctrl-C in its drain",
        "threads.py",
        "                self._step(self._close, True)  # An",
        "                pass  # An",
        "threads/test_p08_threads.py",
    ),
    Bug(
        'drain that was given up dropped at exit',
        'process.py',
        'not in (State.OPEN, State.DRAINING)',
        'is not State.OPEN',
        'threads/test_p12_process.py',
    ),
    Bug(
        "inside for ever",
        "threads.py",
        "        self._inside.discard(get_ident())\n",
        "",
        "threads/test_p08_threads.py",
    ),
    Bug(
        'finished before the last handler is',
        'dispatch.py',
        '(self.ready or self.in_flight or self.retrying)',
        '(self.ready or self.retrying)',
        'core/test_dispatch.py',
    ),
    Bug(
        'wake-up that an add has asked for and not sent lost',
        'driver.py',
        'if core.waking or core.wake():',
        'if core.wake():',
        'threads/test_p11_reentry.py',
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
        'core/test_dispatch.py',
    ),
    Bug(
        "adders not let in after a take",
        "threads.py",
        "                if core.adders and core.has_room():\n                    self._admit()\n"
        "                mutex.release()\n                while",
        "                mutex.release()\n                while",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "adders wait for half although a worker sleeps",
        "dispatch.py",
        "self.waiting <= self.half or self.asleep > 0",
        "self.waiting <= self.half",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "key of an adder not looked at",
        "dispatch.py",
        "        hash(key)  #",
        "        #",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        'key of an adder fails the pool',
        'dispatch.py',
        'elif item is not None and isinstance(error, Exception):',
        'elif False:',
        'conformance/test_p07_backpressure.py',
    ),
    Bug(
        'no look at the backlog between half and all',
        'dispatch.py',
        'self.look = min(self.max_backlog, self.waiting + max(1, self.max_backlog // 8))',
        'self.look = self.max_backlog',
        'core/test_dispatch.py',
    ),
    Bug(
        'only the deepest key counts as blocked',
        'dispatch.py',
        'sum(each for each, _ in depths) + held.blocked',
        'depth + held.blocked',
        'core/test_dispatch.py',
    ),
    Bug(
        "scan of the lanes",
        "lanes.py",
        "            behind = lanes[key]\n            if behind:",
        "            behind = next(behind for name, behind in lanes.items() if name == key)\n            if behind:",
        "conformance/test_original_faults.py",
    ),
    Bug(
        "start without a thread never ends",
        "threads.py",
        "        if not self._core.workers:\n            self._all_left()\n",
        "",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "thread that comes too late let in",
        "threads.py",
        "        self._complete = False\n",
        "",
        "threads/test_p08_threads.py",
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
        "conformance/test_p06_failure.py",
    ),
    Bug(
        'pool that has ended entered',
        'driver.py',
        '        if self._core.state is not State.OPEN:\n            raise self._core.refusal("cannot be entered")\n',
        '',
        'conformance/test_p08_endings.py',
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
        'conformance/test_p03_isolation.py',
    ),
    Bug(
        "key told under the mutex",
        "driver.py",
        'f"the handler of key {describe(key)}"',
        'f"the handler of key {self._step(describe, key)}"',
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "cancelled call run all the same",
        "futures.py",
        "            if work is None or not self.set_running_or_notify_cancel():",
        "            if work is None:",
        "futures/test_cancelling.py",
    ),
    Bug(
        "cancelled call kept in its lane",
        "futures.py",
        "work.pool._by_hand(work.pool._core.cancel, work.key, self)",
        "pass",
        "futures/test_cancelling.py",
    ),
    Bug(
        "cancelled call keeps its arguments",
        "futures.py",
        'self.__dict__.pop("work", None)',
        'self.__dict__.get("work", None)',
        "futures/test_cancelling.py",
    ),
    Bug(
        "waiters of a cancelled future not told",
        "futures.py",
        "            self.set_running_or_notify_cancel()\n            with",
        "            with",
        "futures/test_cancelling.py",
    ),
    Bug(
        "order lost on cancel",
        "held.py",
        "                return behind, at if first is event else -1 - at, key\n",
        "                behind.remove(event), behind.reverse(), behind.appendleft(event)\n"
        "                return behind, 0, key\n",
        "futures/test_cancelling.py",
    ),
    Bug(
        "head cancelled with its lane",
        "held.py",
        "                self._advance(key)\n            self.heed(key)\n            return",
        "                del self.lanes[key]\n            self.heed(key)\n            return",
        "core/test_cancel.py",
    ),
    Bug(
        "cancel made known under another key",
        "held.py",
        "return (ready, at, head[0]) if head[1] is event else (ready, -1 - at, tail[0])",
        "return (ready, at, key) if head[1] is event else (ready, -1 - at, key)",
        "core/test_cancel.py",
    ),
    Bug(
        "cancel searches from one end",
        "held.py",
        "zip_longest(behind, reversed(behind), ready, reversed(ready),",
        "zip_longest(behind, (), ready, (),",
        "core/test_cancel.py",
    ),
    Bug(
        "adder not let in by a cancel",
        "held.py",
        "        if note is not None and note.line:\n            self._let_in(note)\n            self.strike",
        "        if note is not None and note.line:\n            self.strike",
        "core/test_cancel.py",
    ),
    Bug(
        "shutdown drops calls",
        "futures.py",
        "self._step(self._close, cancel)",
        "self._step(self._close, True)",
        "futures/test_as_the_standard_library.py",
    ),
    Bug(
        "shutdown of a view shuts all",
        "futures.py",
        "        self._shut = True\n",
        "        self._shut = True\n        self._executor.shutdown(wait=False)\n",
        "futures/test_keys.py",
    ),
    Bug(
        "shutdown of a view waits for nothing",
        "futures.py",
        "            concurrent.futures.wait(futures)\n",
        "            pass\n",
        "futures/test_keys.py",
    ),
    Bug(
        "view accepts after its shutdown has looked",
        "futures.py",
        "        futures[future] = None  # First: a shutdown that comes now waits for it.\n",
        "",
        "futures/test_keys.py",
    ),
    Bug(
        "forgotten executor keeps its threads",
        "futures.py",
        "        self._forgotten = True\n",
        "",
        "futures/test_being_dropped.py",
    ),
    Bug(
        "forgotten executor not told",
        "futures.py",
        "        self._forgotten = True\n        self._nudge()\n",
        "        self._forgotten = True\n",
        "futures/test_being_dropped.py",
    ),
    Bug(
        "futures keep their executor",
        "futures.py",
        "        future = _Future(self._pool, key, fn, args, kwargs)\n",
        "        future = _Future(self._pool, key, fn, args, kwargs)\n        future.owner = self\n",
        "futures/test_being_dropped.py",
    ),
    Bug(
        "error of a call swallowed",
        "futures.py",
        "                self.set_exception(error)\n            else",
        "                self.set_result(None)\n            else",
        "futures/test_as_the_standard_library.py",
    ),
    Bug(
        "error of a call in a cycle",
        "futures.py",
        "            del self, work  #",
        "            del work  #",
        "futures/test_as_the_standard_library.py",
    ),
    Bug(
        "done callback ends the pool",
        "futures.py",
        "        except BaseException:\n            _log",
        "        except ImportError:\n            _log",
        "futures/test_shutting_down.py",
    ),
    Bug(
        "future hangs after a failure",
        "futures.py",
        "        super()._fail(*args, **kwargs)\n        self._give_up()\n",
        "        super()._fail(*args, **kwargs)\n",
        "futures/test_shutting_down.py",
    ),
    Bug(
        "thread that cannot be started not told",
        "futures.py",
        "                if not self._complete:\n                    raise\n",
        "                pass\n",
        "futures/test_shutting_down.py",
    ),
    Bug(
        'retry lost',
        'held.py',
        '            self.ready.append(item)\n            del where[held.key]\n        except',
        '            del where[held.key]\n        except',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'retry not at the head',
        'held.py',
        '        item = (held.key, held.event)\n        try:\n',
        '        item = (held.key, held.event)\n        if behind := self.lanes[held.key]:\n            behind.append(held.event)\n            item = (held.key, behind.popleft())\n        try:\n',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'retry not told to the timekeeper',
        'driver.py',
        '            self._nudge()\n',
        '            pass\n',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'retry of no time where the cap is a whole number',
        'policy.py',
        'min(float(self.cap),',
        'min(self.cap,',
        'core/test_policy.py',
    ),
    Bug(
        'wake-up lost at release',
        'driver.py',
        '        if core.release(now):\n            self._wake()\n',
        '        core.release(now)\n',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'attempt not counted',
        'held.py',
        'note.failures, note.error = note.failures + 1, error',
        'note.failures, note.error = 1, error',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'attempts counted by key',
        'held.py',
        '            note.failures, note.error, note.failed = 0',
        '            _ = 0',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'verdict overruled by the policy',
        'policy.py',
        '        case SkipEvent():\n            decision = Skip()\n',
        '',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'Ctrl-C retried',
        'policy.py',
        '        case _:\n            decision = Fail()',
        '        case _:\n            decision = policy',
        'core/test_policy.py',
    ),
    Bug(
        'parked key runs',
        'held.py',
        'return note is not None and note.parking',
        'return False',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'parked key is retried all the same',
        'dispatch.py',
        'isinstance(decision, Park) or self.is_to_park(item[0])',
        'isinstance(decision, Park)',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'resume forgets the wake-up',
        'driver.py',
        '        if core.wake():\n            self._wake()\n\n    def _admit',
        '        core.wake()\n\n    def _admit',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'dead not counted',
        'held.py',
        'None, NOTHING, self.dead + 1,',
        'None, NOTHING, self.dead,',
        'conformance/test_p10_stats.py',
    ),
    Bug(
        'dead list unbounded',
        'held.py',
        'while len(self.buried) > self.max_dead:',
        'while False:',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'dead event replayed twice',
        'dispatch.py',
        '            _, self.replayed = self.buried.pop(dead), self.replayed + 1\n        except',
        '            pass\n        except',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'max_lane ignored',
        'dispatch.py',
        '>= self.max_lane\n        except',
        '>= 10**9\n        except',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'line of a lane not let in',
        'held.py',
        '            if note.line:\n                self._let_in(note)\n',
        '',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'add that waits for a lane accepted by the end',
        'dispatch.py',
        '            self.adders.update(line)  #',
        '            pass  #',
        'core/test_dispatch.py',
    ),
    Bug(
        'parked dropped at stop',
        'held.py',
        '((held.key, held.event) for held in self.held())',
        '((held.key, held.event) for held in self.retrying.values())',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'retried during a stop',
        'dispatch.py',
        '        if not self.serving:\n            self.again(worker, item)\n        elif',
        '        if',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'drain waits for parked for ever',
        'dispatch.py',
        'not (self.ready or self.in_flight or self.retrying)',
        'not self.lanes',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'drain does not wait for retries',
        'dispatch.py',
        'not (self.ready or self.in_flight or self.retrying)',
        'not (self.ready or self.in_flight)',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'drain spins',
        'driver.py',
        '            return None  # It woke for nothing',
        '            self._wake()\n            return None  # It woke for nothing',
        'threads/test_p08_threads.py',
    ),
    Bug(
        'error kept with its frames',
        'driver.py',
        'text = f"{type(error).__name__}: {describe(error, str)}"',
        'text = type("Text", (str,), {"error": error})(f"{type(error).__name__}: {describe(error, str)}")',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'watchdog logs twice',
        'dispatch.py',
        'key.told = True',
        'pass',
        'conformance/test_p09_policy.py',
    ),
    Bug(
        'watchdog counts deliveries together',
        'dispatch.py',
        'return cast("K", key.key) if isinstance(key, Watched) else key',
        'return key',
        'core/test_dispatch.py',
    ),
    Bug(
        'call by hand that was cut owes a wake-up',
        'driver.py',
        'if self._core.waking or self._core.wake():',
        'if False:',
        'threads/test_p11_reentry.py',
    ),
    Bug(
        "event lost with its executor",
        "executors.py",
        "                    if submitted:\n                        key",
        "                    break\n                    if submitted:\n                        key",
        "executors/test_lost.py",
    ),
    Bug(
        "executor that broke not replaced",
        "executors.py",
        "            executor.shutdown(wait=bool(processes))\n            self._executor = None\n",
        "            executor.shutdown(wait=bool(processes))\n",
        "executors/test_lost.py",
    ),
    Bug(
        "pool goes on with an executor that broke",
        "executors.py",
        "if self._factory is None and isinstance(error, ExecutorBroken):",
        "if False and isinstance(error, ExecutorBroken):",
        "executors/test_lost.py",
    ),
    Bug(
        "executor left running",
        "executors.py",
        "            self._executor.shutdown()  #",
        "            pass  #",
        "executors/test_in_process.py::test_what_a_factory_made_is_shut_down_once_and_what_was_given_never",
    ),
    Bug(
        "executor shut down before the last handler has ended",
        "executors.py",
        "        while self._core.workers != {TIMEKEEPER}:  #",
        "        while False:  #",
        "executors/test_in_process.py",
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
        "executors/test_in_process.py",
    ),
    Bug(
        "result sent back",
        "executors.py",
        "            handler(*arguments)\n    except",
        "            return handler(*arguments)  # type: ignore[return-value]\n    except",
        "executors/test_in_process.py::test_what_a_handler_returns_is_dropped",
    ),
    Bug(
        "handler's own broken executor taken for the pool's",
        "executors.py",
        "    except (BrokenExecutor, CancelledError) as error:\n        return error\n",
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
        "executors/test_lost.py",
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
        "                each.kill()\n            executor.shutdown(wait=bool(processes))\n",
        "                each.terminate()\n            executor.shutdown(wait=False)\n",
        "executors/test_processes.py::test_a_process_that_is_killed_takes_nothing_with_it",
    ),
    Bug(
        "exception that cannot be made again breaks the executor",
        "executors.py",
        "if pool is None and not _can_travel(error):",
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
        "executors/test_process_end.py",
    ),
]  # fmt: skip


def run_with(bug: Bug, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests that a bug is aimed at, against a copy of the code with the bug in it."""
    copy = folder / bug.name.replace(" ", "-")
    shutil.copytree(SOURCE, copy / "workpool", ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "workpool" / bug.file
    text = path.read_text()
    assert text.count(bug.old) == 1, f"the place of {bug.name!r} occurs {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new))
    environment = os.environ | {"PYTHONPATH": str(copy), "WORKPOOL_TEST_COPY": str(copy), "WORKPOOL_TEST_PATIENCE": "2"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(TESTS / bug.aim)],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All runs, started at once on as many threads as there are processors."""
    folder = tmp_path_factory.mktemp("planted")
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield {bug.name: executor.submit(run_with, bug, folder) for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    result = runs[bug.name].result()
    assert result.returncode == 1, f"{bug.name} passed {bug.aim}\n{result.stdout}{result.stderr}"
