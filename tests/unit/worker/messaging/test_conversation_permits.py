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
