"""What a failure means: one failed delivery, and what is decided."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from workpool.policy import (
    Fail,
    Park,
    ParkKey,
    Policy,
    Retry,
    RetryAfter,
    Skip,
    SkipEvent,
    Verdict,
    decide,
    require_policy,
)

EXACT = Retry(attempts=3, base=1, cap=60, jitter="none")
POLICIES: list[Policy] = [Fail(), Skip(), Park(), EXACT]


class TestDelay:
    def test_it_doubles_from_attempt_to_attempt_up_to_the_cap(self) -> None:
        policy = Retry(base=0.5, cap=3, jitter="none")
        assert [policy.delay(attempt, 0.1) for attempt in range(1, 6)] == [0.5, 1, 2, 3, 3]

    def test_full_jitter_waits_a_random_part_of_it(self) -> None:
        policy = Retry(base=2, cap=60)
        assert [policy.delay(3, random) for random in (0.0, 0.25, 1.0)] == [0, 2, 8]

    def test_it_is_a_float_whatever_was_given(self) -> None:
        """The core tells a delay from a policy by its type."""
        for policy in (Retry(base=120, cap=60, jitter="none"), Retry(base=1, cap=60, jitter="none"), Retry(base=0)):
            assert type(policy.delay(1, 0.5)) is float

    def test_it_has_an_end_however_often_an_event_was_tried(self) -> None:
        assert Retry(attempts=10**9, base=1e300, jitter="none").delay(10**8, 1.0) == 60
        assert Retry(base=0).delay(10**8, 1.0) == 0


class TestDecide:
    @pytest.mark.parametrize("policy", [Fail(), Skip(), Park()])
    def test_a_plain_policy_is_the_decision(self, policy: Policy) -> None:
        assert decide(policy, ValueError(), 7, 0.5) is policy

    def test_attempts_are_counted_in_all_and_then_comes_the_end(self) -> None:
        assert [decide(EXACT, ValueError(), attempt, 0.5) for attempt in (1, 2, 3, 4)] == [1, 2, Park(), Park()]

    @pytest.mark.parametrize("then", [Fail(), Skip(), Park()])
    def test_the_end_is_the_one_that_was_chosen(self, then: Any) -> None:
        assert decide(Retry(attempts=1, then=then), ValueError(), 1, 0.5) is then

    def test_an_error_that_is_worth_no_attempt_ends_them_at_once(self) -> None:
        policy = Retry(retry_on=(OSError, KeyError), then=Skip(), jitter="none")
        assert decide(policy, ConnectionError(), 1, 0.5) == 0.5
        assert decide(policy, KeyError(), 1, 0.5) == 0.5
        assert decide(policy, ValueError(), 1, 0.5) == Skip()

    @pytest.mark.parametrize("policy", POLICIES, ids=repr)
    @pytest.mark.parametrize("attempt", [1, 99])
    def test_a_verdict_decides_whatever_the_policy_and_the_attempt(self, policy: Policy, attempt: int) -> None:
        assert decide(policy, RetryAfter(7), attempt, 0.5) == 7.0
        assert decide(policy, SkipEvent("no use"), attempt, 0.5) == Skip()
        assert decide(policy, ParkKey(), attempt, 0.5) == Park()

    @pytest.mark.parametrize("policy", POLICIES, ids=repr)
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0), GeneratorExit(), BaseException()])
    def test_what_is_no_exception_fails_the_pool_under_any_policy(self, policy: Policy, error: BaseException) -> None:
        assert decide(policy, error, 1, 0.5) == Fail()

    def test_a_verdict_of_ones_own_is_an_error_like_any_other(self) -> None:
        class Mine(Verdict):
            pass

        class Later(RetryAfter):
            pass

        assert decide(Skip(), Mine(), 1, 0.5) == Skip()
        assert decide(Skip(), Later(3), 1, 0.5) == 3.0


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"attempts": 0}, ValueError, "attempts must be at least 1, and is 0"),
            ({"attempts": 2.0}, TypeError, "attempts must be a whole number, and 2.0 is not"),
            ({"base": "1"}, TypeError, "base must be a number of seconds, and '1' is not"),
            ({"base": True}, TypeError, "base must be a number of seconds"),
            ({"base": -1}, ValueError, "base must be a number of seconds of at least 0, and is -1"),
            ({"cap": float("inf")}, ValueError, "cap must be a number of seconds of at least 0, and is inf"),
            ({"cap": float("nan")}, ValueError, "cap must be"),
            ({"jitter": "half"}, ValueError, 'jitter must be "full" or "none", and is \'half\''),
            ({"retry_on": OSError}, TypeError, "retry_on must be a tuple of exception classes"),
            ({"retry_on": (OSError, "KeyError")}, TypeError, "retry_on must be a tuple of exception classes"),
            ({"retry_on": (KeyboardInterrupt,)}, TypeError, "retry_on must be a tuple of exception classes"),
            ({"then": Park}, TypeError, r"then must be Park\(\), Skip\(\) or Fail\(\)"),
            ({"then": Retry()}, TypeError, r"then must be Park\(\), Skip\(\) or Fail\(\)"),
        ],
    )
    def test_a_retry_that_cannot_be_is_refused_and_says_why(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Retry(**arguments)

    @pytest.mark.parametrize("seconds", ["1", None, -1, float("inf"), True])
    def test_a_time_that_cannot_be_is_refused_where_it_is_raised(self, seconds: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="seconds must be a number of seconds"):
            RetryAfter(seconds)

    @pytest.mark.parametrize("wrong", [None, Park, Retry, "park", ValueError])
    def test_what_is_no_policy_is_refused(self, wrong: object) -> None:
        with pytest.raises(TypeError, match=r"on_failure must be Retry\(...\), Skip\(\), Park\(\) or Fail\(\)"):
            require_policy(wrong)

    @pytest.mark.parametrize("policy", POLICIES, ids=repr)
    def test_a_policy_is_a_value(self, policy: Policy) -> None:
        assert require_policy(policy) is policy
        assert pickle.loads(pickle.dumps(policy)) == policy
        assert hash(policy) == hash(pickle.loads(pickle.dumps(policy)))


def test_a_verdict_says_what_it_is_and_travels_between_processes() -> None:
    for verdict, text in ((RetryAfter(2.5), "again in 2.5 s"), (SkipEvent("no use"), "no use"), (ParkKey(), "")):
        again = pickle.loads(pickle.dumps(verdict))
        assert (type(again), str(again), vars(again)) == (type(verdict), text, vars(verdict))
