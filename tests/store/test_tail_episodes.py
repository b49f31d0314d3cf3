"""Complete episodes come once, whenever the tail is stopped and begun again."""

import itertools

import pytest
from store_rows import OTHER, WRITER, decision, end, reward, segment_bytes, start, write_segment

from simtune.errors import OptionError
from simtune.store import compact, open_episodes, read
from simtune.store.cursor import Cursor
from simtune.store.tailing import tail


def episode(name, decisions=2, **ending):
    return [start(name), *(decision(name, step) for step in range(decisions)), end(name, **ending)]


def shown(episodes):
    return [(e.episode_id, len(e.decisions)) for e in episodes]


def test_an_episode_is_what_the_store_would_read(tmp_path):
    write_segment(tmp_path, episode("ep", terminated=True))
    (found,) = tail(tmp_path).episodes()
    assert found.terminated and found.ended
    assert found == read(tmp_path).episode("ep")


def test_it_comes_with_its_end_and_not_before(tmp_path):
    rows = episode("ep")
    path = write_segment(tmp_path, [], sealed=False)
    following = tail(tmp_path)
    for count in range(len(rows)):
        path.write_bytes(segment_bytes(rows[:count], sealed=False))
        assert list(following.episodes()) == []
    path.write_bytes(segment_bytes(rows, sealed=False))
    assert shown(following.episodes()) == [("ep", 2)]
    assert list(following.episodes()) == []


def test_episodes_come_in_the_order_of_their_ends(tmp_path):
    a, b = episode("a"), episode("b")
    write_segment(tmp_path, [*a[:2], *b[:2], b[2], b[3], a[2], a[3]])
    assert shown(tail(tmp_path).episodes()) == [("b", 2), ("a", 2)]


def test_the_cursor_after_each_episode_leaves_exactly_the_others(tmp_path):
    names = [f"ep{n}" for n in range(5)]
    write_segment(tmp_path, [row for name in names for row in episode(name)])
    following = tail(tmp_path)
    for count, found in enumerate(following.episodes(), 1):
        assert found.episode_id == names[count - 1]
        cursor = Cursor.from_json(following.cursor.to_json())
        assert shown(tail(tmp_path, cursor).episodes()) == [(name, 2) for name in names[count:]]
    assert following.cursor.episodes == []


def test_a_restart_after_each_episode_of_a_batch_repeats_none(tmp_path):
    write_segment(tmp_path, [row for n in range(5) for row in episode(f"ep{n}")])
    cursor, seen = Cursor(), []
    for _ in range(6):
        following = tail(tmp_path, cursor)
        seen += shown(itertools.islice(following.episodes(), 1))
        cursor = following.cursor
    assert seen == [(f"ep{n}", 2) for n in range(5)]
    assert cursor.episodes == []


def test_an_iteration_that_was_left_goes_on(tmp_path):
    write_segment(tmp_path, [*episode("a"), *episode("b"), *episode("c")])
    following = tail(tmp_path)
    taken = [next(following.episodes()).episode_id for _ in range(3)]
    assert taken == ["a", "b", "c"]


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_read_before_a_restart_are_found_again(tmp_path, compacted):
    rows = [*episode("a")[:3], reward(f"{WRITER}-1", 2.0, "a"), *episode("b")]
    write_segment(tmp_path, rows)
    first = tail(tmp_path)
    assert shown(first.episodes()) == [("b", 2)]
    if compacted:
        compact(tmp_path)
    write_segment(tmp_path, [end("a"), *episode("c")], segno=1, first_seq=len(rows))
    again = tail(tmp_path, first.cursor)
    found = list(again.episodes())
    assert shown(found) == [("a", 2), ("c", 2)]
    assert [d.reward for d in found[0].decisions] == [2.5, 0.5]
    # Without a restart it is the same, from memory.
    assert list(first.episodes()) == found


def test_a_late_reward_counts_if_it_was_read_with_the_end_or_before(tmp_path):
    rows = [start("a"), decision("a"), reward(f"{WRITER}-1", 1.0), end("a")]
    path = write_segment(tmp_path, [*rows, reward(f"{WRITER}-1", 4.0)], sealed=False)
    following = tail(tmp_path)
    assert [e.decisions[0].reward for e in following.episodes()] == [5.5]
    late = [*rows, reward(f"{WRITER}-1", 4.0), reward(f"{WRITER}-1", 8.0)]
    path.write_bytes(segment_bytes(late))
    assert list(following.episodes()) == []
    assert read(tmp_path).episode("a").decisions[0].reward == 13.5


def test_a_reward_read_before_its_decision_counts(tmp_path):
    write_segment(tmp_path, [reward(f"{OTHER}-1", 1.0, "elsewhere")])
    write_segment(tmp_path, episode("a", 1), writer=OTHER)
    following = tail(tmp_path)
    assert [e.decisions[0].reward for e in following.episodes()] == [1.5]


def test_the_end_that_counts_is_that_of_the_writer_who_began(tmp_path):
    write_segment(tmp_path, [decision("a", 1), end("a")], writer=OTHER)
    write_segment(tmp_path, [start("a"), decision("a", 0)])
    following = tail(tmp_path)
    assert list(following.episodes()) == []
    write_segment(tmp_path, [end("a"), end("a")], segno=1, first_seq=2)
    assert shown(following.episodes()) == [("a", 2)]
    write_segment(tmp_path, [end("a")], segno=1, first_seq=2, writer=OTHER)
    assert list(following.episodes()) == []
    assert list(tail(tmp_path, following.cursor).episodes()) == []


def test_decisions_outside_of_episodes_are_in_none(tmp_path):
    write_segment(tmp_path, [decision("alone"), *episode("a")])
    assert shown(tail(tmp_path).episodes()) == [("a", 2)]


def test_memory_is_bounded_and_what_was_let_go_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(open_episodes, "OPEN_ROWS", 10)
    names = [f"ep{n}" for n in range(9)]
    begun = [row for name in names for row in episode(name)[:3]]
    write_segment(tmp_path, begun)
    following = tail(tmp_path)
    assert list(following.episodes()) == []
    assert following._open._rows <= 10
    late = reward(f"{WRITER}-1", 1.0, "ep0")
    ends = [late, *(row for name in names for row in (decision(name, 2), end(name)))]
    write_segment(tmp_path, ends, segno=1, first_seq=len(begun))
    found = list(following.episodes())
    assert shown(found) == [(name, 3) for name in names]
    assert found == list(tail(tmp_path).episodes())
    assert found[0].decisions[0].reward == 1.5
    assert following._open._rows == 0


def test_one_tail_gives_batches_or_episodes(tmp_path):
    write_segment(tmp_path, episode("a"))
    following = tail(tmp_path)
    next(following.episodes())
    with pytest.raises(OptionError, match="hands out episodes"):
        next(iter(following))
