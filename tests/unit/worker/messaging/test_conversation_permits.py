"""Conversations leave threads for other tasks."""

import contextlib

from worker.messaging.conversation_permits import ConversationPermits


def test_permits_are_limited_and_returned() -> None:
    permits = ConversationPermits(2)
    with contextlib.ExitStack() as held:
        assert held.enter_context(permits.hold())
        assert held.enter_context(permits.hold())
        with permits.hold() as third:
            assert not third
        with permits.hold() as fourth:
            assert not fourth, "a refused holder returns nothing"
    with permits.hold() as again:
        assert again


def test_conversations_through_proxies_leave_permits_to_others() -> None:
    permits = ConversationPermits(16)
    with contextlib.ExitStack() as held:

        def hold(owner: str, tries: int) -> int:
            return sum(held.enter_context(permits.hold_proxied(owner)) for _ in range(tries))

        assert hold("anna", 20) == 4, "half of the half"
        assert hold("ben", 20) == 2
        assert hold("cleo", 1) == 1
    with permits.hold_proxied("anna") as again:
        assert again
    assert not permits._proxied


def test_a_single_permit_may_be_used_through_a_proxy() -> None:
    with ConversationPermits(1).hold_proxied("anna") as permitted:
        assert permitted
