"""Files are read a few at a time, owners in turn: many files of one owner delay another's by at most one of them."""

from hypothesis import given
from hypothesis import strategies as st

from worker.core.media.isolation.fair_turns import FairTurns, Turn


def has_come(turn: Turn) -> bool:
    return turn.ready.done()


def test_one_owner_takes_at_most_half_of_the_places() -> None:
    turns = FairTurns(4, 2)
    greedy = [turns.enter("greedy", 1) for _ in range(30)]
    assert sum(map(has_come, greedy)) == 2
    assert has_come(turns.enter("other", 1))
    assert has_come(turns.enter("third", 1))


def test_callers_with_invented_session_ids_share_one_share() -> None:
    turns = FairTurns(4, 2)
    invented = [turns.enter(f"tokens:{n}", 2) for n in range(12)]
    assert sum(map(has_come, invented)) == 1
    user = turns.enter("user:1", 2)
    assert has_come(user)
    turns.leave(user)
    again = turns.enter("user:1", 2)
    assert has_come(again), "no session id passes a user"
    turns.leave(invented[0])
    assert [has_come(turn) for turn in invented[:3]] == [True, True, False], "session ids have turns among each other"
    for turn in [*invented[1:], again]:
        turns.leave(turn)
    assert not turns._groups
    assert not turns._group_served


def test_owners_get_places_in_turn() -> None:
    turns = FairTurns(4, 2)
    lines = {owner: [turns.enter(owner, 2) for _ in range(10)] for owner in ("a", "b", "c")}
    assert {owner: sum(map(has_come, line)) for owner, line in lines.items()} == {"a": 1, "b": 1, "c": 0}
    turns.leave(lines["a"][0])
    assert has_come(lines["c"][0]), "c has waited longer than a's second file"
    turns.leave(lines["b"][0])
    assert [has_come(lines[owner][1]) for owner in "abc"] == [True, False, False]


def test_large_file_does_not_wait_for_later_small_ones() -> None:
    turns = FairTurns(4, 2)
    running = [turns.enter(f"owner {n}", 1) for n in range(3)]
    large = turns.enter("large", 2)
    later = [turns.enter("small", 1) for _ in range(5)]
    assert not any(map(has_come, [large, *later]))
    turns.leave(running[0])
    assert has_come(large)
    turns.leave(running[1])
    assert has_come(later[0])


def test_who_leaves_the_line_takes_no_place() -> None:
    turns = FairTurns(2, 1)
    first, second, third = (turns.enter("a", 1) for _ in range(3))
    turns.leave(second)
    assert turns.waiting() == 1
    turns.leave(first)
    assert [has_come(turn) for turn in (first, second, third)] == [True, False, True]
    turns.leave(third)
    assert not turns._running
    assert not turns._waiting
    assert not turns._served


ENTER = st.tuples(st.sampled_from("abc"), st.integers(1, 2))


@given(st.lists(st.one_of(ENTER, st.integers(0, 20)), max_size=60))
def test_limits_hold_and_nothing_waits_beside_free_places(steps: list[tuple[str, int] | int]) -> None:
    turns, open_turns = FairTurns(4, 2), []
    for step in steps:
        if isinstance(step, tuple):
            open_turns.append(turns.enter(*step))
        elif open_turns:
            turns.leave(open_turns.pop(step % len(open_turns)))
        running = [turn for turn in open_turns if has_come(turn)]
        taken = {owner: sum(turn.weight for turn in running if turn.owner == owner) for owner in "abc"}
        assert sum(taken.values()) <= 4
        assert all(count <= 2 for count in taken.values())
        waiting = [turn for turn in open_turns if not has_come(turn)]
        if sum(taken.values()) <= 2:
            assert not [turn for turn in waiting if not taken[turn.owner]]
    while open_turns:
        running = [turn for turn in open_turns if has_come(turn)]
        assert running, "nobody can go on"
        turns.leave(running[0])
        open_turns.remove(running[0])
    assert not turns._running
    assert not turns._served
