"""A listener of a conversation: pieces in any order, doubled or missing, make the text that the row has."""

import asyncio
import itertools
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from api.jobs.watcher import Watch


def listener() -> Watch:
    return Watch(uuid4(), with_text=True)


def test_pieces_in_order_make_the_text():
    watch = listener()
    watch.append_text(0, "Hel")
    watch.append_text(3, "lo")
    assert (watch.text, watch.text_incomplete) == ("Hello", False)


def test_a_doubled_piece_is_heard_once():
    watch = listener()
    watch.append_text(0, "Hel")
    watch.append_text(0, "Hel")
    watch.append_text(2, "llo")
    assert watch.text == "Hello"


def test_a_gap_waits_for_the_row():
    watch = listener()
    watch.append_text(0, "Hel")
    watch.append_text(5, " you")
    assert (watch.text, watch.text_incomplete) == ("Hel", True)
    watch.replace_text("Hello you")
    assert (watch.text, watch.text_incomplete) == ("Hello you", False)


def test_an_older_row_takes_nothing_back():
    watch = listener()
    watch.append_text(0, "Hello")
    watch.replace_text("Hel")
    assert watch.text == "Hello"


@given(st.text(max_size=60), st.data())
def test_whatever_is_lost_the_row_completes_it(text, data):
    watch = listener()
    edges = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=8))})
    pieces = list(itertools.pairwise(edges))
    for start, end in data.draw(st.permutations(pieces)):
        if data.draw(st.booleans()):
            watch.append_text(start, text[start:end])
        assert text.startswith(watch.text)
    watch.replace_text(text)
    assert watch.text == text


def test_one_bell_for_several_watches():
    async def ring() -> bool:
        event = asyncio.Event()
        first, second = Watch(uuid4(), event=event), Watch(uuid4(), event=event)
        second.update("running", 1)
        return await first.changed(1)

    assert asyncio.run(ring())
