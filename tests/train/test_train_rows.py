import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.train import rows

ids = st.lists(st.integers(0, 2**20), min_size=1, max_size=6)


def test_a_key_begins_with_the_key_of_its_beginning_and_with_no_other():
    # 256 is 00 00 01 00: as bytes of any width, 1 must not look like its beginning.
    assert rows.key([1, 2, 3]).startswith(rows.key([1, 2]))
    assert not rows.key([256, 2]).startswith(rows.key([1]))
    assert rows.ids_of(rows.key([5, 300, 70000])).tolist() == [5, 300, 70000]
    assert rows.length(rows.key([5, 300, 70000])) == 3


def test_a_growing_chat_is_one_row_and_equal_states_are_one_row():
    sequences = [[1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5], [7], [7], [1, 9]]
    held, row_of = rows.share([rows.key(one) for one in sequences])
    assert sorted(rows.ids_of(row).tolist() for row in held) == [[1, 2, 3, 4, 5], [1, 9], [7]]
    assert row_of[0] == row_of[1] == row_of[2]
    assert row_of[3] == row_of[4]


@given(st.lists(ids, max_size=12))
def test_every_sequence_begins_its_row_and_no_row_begins_another(sequences):
    keys = [rows.key(one) for one in sequences]
    held, row_of = rows.share(keys)
    assert all(held[row].startswith(key) for row, key in zip(row_of, keys, strict=True))
    for one in held:
        assert sum(other.startswith(one) for other in held) == 1


def test_a_chain_ends_where_a_prompt_does_not_go_on():
    # [1] answered [2] -> [1 2 8] goes on; then a template drops the history: [1 9].
    prompts = [[1], [1, 2, 8], [1, 9], [1, 9, 3, 4]]
    answers = [[2], [5], [3, 4], [1]]
    assert rows.chains(prompts, answers) == [range(2), range(2, 4)]
    assert rows.chains([], []) == []


def test_text_that_goes_on_in_other_tokens_starts_a_new_row():
    # Sampled as 6 7 but re-encoded as 8: what was sampled is not in the next prompt.
    assert rows.chains([[1], [1, 8, 2]], [[6, 7], [3]]) == [range(1), range(1, 2)]


@pytest.mark.parametrize(
    ("padded", "expected"),
    [
        # Longest first. Padded: 5 + 5 > 8 | 3 + 3 = 6, a third 3 would be 9 | 1 counts as 3 there.
        (True, [[1], [0, 3], [2]]),
        # Packed: 5 + 3 = 8 | 3 + 1.
        (False, [[1, 0], [3, 2]]),
    ],
)
def test_rows_are_cut_under_the_budget(padded, expected):
    assert rows.cut([3, 5, 1, 3], 8, padded=padded) == expected


def test_a_row_above_the_budget_is_a_batch_by_itself():
    assert rows.cut([4, 20], 8, padded=True) == [[1], [0]]
    assert rows.cut([], 8, padded=True) == []


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100), st.booleans())
def test_every_row_is_computed_once_and_budgets_hold(lengths, budget, padded):
    batches = rows.cut(lengths, budget, padded=padded)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        used = longest * len(batch) if padded else sum(lengths[i] for i in batch)
        assert used <= budget or len(batch) == 1
