from hypothesis import given
from hypothesis import strategies as st

from simtune.policy.rows import Row, RowIds, common, packed

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(IDS, IDS)
def test_common_counts_leading_equal_tokens(first, second):
    expected = 0
    while expected < min(len(first), len(second)) and first[expected] == second[expected]:
        expected += 1
    assert common(packed(first), packed(second)) == expected


def test_a_prompt_goes_to_the_row_it_goes_on_from():
    rows = RowIds()
    assert rows.place([[1, 2], [3, 4, 5]]) == [Row(0, 0), Row(1, 0)]
    rows.hold(0, [1, 2, 9])
    rows.hold(1, [3, 4, 5, 9])
    assert rows.place([[3, 4, 5, 9, 6], [1, 2, 9, 7]]) == [Row(1, 4), Row(0, 3)]


def test_a_new_prompt_keeps_what_it_shares_with_a_free_row_but_never_its_last_token():
    rows = RowIds()
    rows.place([[1, 1, 5]])
    rows.hold(0, [1, 1, 5])
    assert rows.place([[1, 1, 7]]) == [Row(0, 2)]
    assert rows.place([[1, 1]]) == [Row(0, 1)]


@given(st.lists(IDS, min_size=1, max_size=6), st.lists(IDS, min_size=1, max_size=6))
def test_every_prompt_has_its_own_row_that_holds_what_it_says(held, prompts):
    rows = RowIds()
    for place, ids in zip(rows.place(held), held, strict=True):
        rows.hold(place.at, ids)
    places = rows.place(prompts)
    assert len({place.at for place in places}) == len(prompts)
    for place, prompt in zip(places, prompts, strict=True):
        assert place.kept < len(prompt)
        if place.kept:
            assert held[place.at][: place.kept] == prompt[: place.kept]
