"""A watch of a conversation: chunks in any order, repeated or missing, give the text of the row."""

import asyncio
import itertools
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from api.jobs.watcher import Watch


def text_watch() -> Watch:
    return Watch(uuid4(), with_text=True)


def test_ordered_chunks_form_the_text():
    watch = text_watch()
    watch.append_text(0, "Hel")
    watch.append_text(3, "lo")
    assert (watch.text, watch.text_incomplete) == ("Hello", False)


def test_repeated_chunk_is_ignored():
    watch = text_watch()
    watch.append_text(0, "Hel")
    watch.append_text(0, "Hel")
    watch.append_text(2, "llo")
    assert watch.text == "Hello"


def test_gap_is_filled_from_the_row():
    watch = text_watch()
    watch.append_text(0, "Hel")
    watch.append_text(5, " you")
    assert (watch.text, watch.text_incomplete) == ("Hel", True)
    watch.replace_text("Hello you")
    assert (watch.text, watch.text_incomplete) == ("Hello you", False)


def test_older_row_does_not_shorten_the_text():
    watch = text_watch()
    watch.append_text(0, "Hello")
    watch.replace_text("Hel")
    assert watch.text == "Hello"


@given(st.text(max_size=60), st.data())
def test_row_completes_text_after_any_loss(text, data):
    watch = text_watch()
    edges = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=8))})
    chunks = list(itertools.pairwise(edges))
    for start, end in data.draw(st.permutations(chunks)):
        if data.draw(st.booleans()):
            watch.append_text(start, text[start:end])
        assert text.startswith(watch.text)
    watch.replace_text(text)
    assert watch.text == text


def test_several_watches_share_one_event():
    async def wake() -> bool:
        event = asyncio.Event()
        first, second = Watch(uuid4(), event=event), Watch(uuid4(), event=event)
        second.update("running", 1)
        return await first.changed(1)

    assert asyncio.run(wake())
