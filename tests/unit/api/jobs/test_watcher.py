"""A listener of a conversation: pieces in any order, doubled or missing, make the text that the row has."""

import asyncio
import itertools
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from api.jobs.watcher import Watch


def listener() -> Watch:
    return Watch(uuid4(), words=True)


def test_pieces_in_order_make_the_text():
    watch = listener()
    watch.hear(0, "Hel")
    watch.hear(3, "lo")
    assert (watch.said, watch.behind) == ("Hello", False)


def test_a_doubled_piece_is_heard_once():
    watch = listener()
    watch.hear(0, "Hel")
    watch.hear(0, "Hel")
    watch.hear(2, "llo")
    assert watch.said == "Hello"


def test_a_gap_waits_for_the_row():
    watch = listener()
    watch.hear(0, "Hel")
    watch.hear(5, " you")
    assert (watch.said, watch.behind) == ("Hel", True)
    watch.read("Hello you")
    assert (watch.said, watch.behind) == ("Hello you", False)


def test_an_older_row_takes_nothing_back():
    watch = listener()
    watch.hear(0, "Hello")
    watch.read("Hel")
    assert watch.said == "Hello"


@given(st.text(max_size=60), st.data())
def test_whatever_is_lost_the_row_completes_it(text, data):
    watch = listener()
    edges = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=8))})
    pieces = list(itertools.pairwise(edges))
    for start, end in data.draw(st.permutations(pieces)):
        if data.draw(st.booleans()):
            watch.hear(start, text[start:end])
        assert text.startswith(watch.said)
    watch.read(text)
    assert watch.said == text


def test_one_bell_for_several_watches():
    async def ring() -> bool:
        bell = asyncio.Event()
        first, second = Watch(uuid4(), bell=bell), Watch(uuid4(), bell=bell)
        second.tell("running", 1)
        return await first.changed(1)

    assert asyncio.run(ring())
