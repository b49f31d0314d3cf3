"""Sets of (writer_id, seq), kept as runs: the same as a set of pairs, in less room."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.store.identities import Identities, identity_of

BATCHES = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=12), max_size=8
)


def table(pairs):
    schema = pa.schema([("writer_id", pa.string()), ("seq", pa.int64())])
    return pa.Table.from_pylist([{"writer_id": w, "seq": s} for w, s in pairs], schema=schema)


@given(BATCHES)
def test_the_same_as_a_set(batches):
    known, plain = Identities(), set()
    for pairs in batches:
        twice = known.add(table(pairs))
        assert twice == len(pairs) - len(set(pairs) - plain)
        plain.update(pairs)
    for writer in "abc":
        seqs = [seq for seq in range(32) if (writer, seq) in known]
        assert seqs == sorted(seq for who, seq in plain if who == writer)
        missing = [
            n for who, low, high in known.gaps() if who == writer for n in range(low, high + 1)
        ]
        assert missing == sorted(set(range(max(seqs, default=0))) - set(seqs))


@pytest.mark.parametrize(
    ("decision_id", "identity"),
    [
        ("0123456789abcdef-7", ("0123456789abcdef", 7)),
        ("a-b-12", ("a-b", 12)),
        ("7", None),
        ("a-", None),
        ("a-\u0661", None),
        ("a-" + "9" * 20, None),
        (None, None),
    ],
)
def test_the_identity_in_a_decision_id(decision_id, identity):
    assert identity_of(decision_id) == identity
