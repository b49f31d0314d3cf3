from simtune.records import Decision, Episode
from simtune.train.staleness import FOREIGN, STALE, Versions, ancestry, staleness


def episode(*adapters):
    return Episode(
        episode_id="e", decisions=[Decision(decision_id=str(a), adapter=a) for a in adapters]
    )


def test_versions_count_what_was_published_since():
    versions = Versions([None])
    versions.alias("zero", 0)
    assert (versions.behind(None), versions.behind("zero")) == (0, 0)
    assert versions.publish("a") and versions.publish("b")
    assert [versions.behind(one) for one in (None, "zero", "a", "b", "c")] == [2, 2, 1, 0, None]


def test_weights_that_did_not_change_are_no_new_version():
    versions = Versions([None])
    versions.alias("zero", 0)
    assert not versions.publish("zero")
    assert versions.publish("a")
    assert not versions.publish("a")
    assert versions.current == 1


def test_what_training_continued_from_is_older_the_further_back_it_is():
    class Record:
        def __init__(self, name, parent):
            self.id, self.weights_sha256, self.parent = name, f"hash {name}", parent

    first, second = Record("first", None), Record("second", "first")
    found = ancestry(second, [first, second, Record("other", None)])
    assert found == ["hash second", "hash first", None]
    versions = Versions(found)
    versions.publish("own")
    assert [versions.behind(one) for one in ("own", *found)] == [0, 1, 2, 3]
    assert versions.behind("hash other") is None


def test_versions_are_the_same_after_a_restart():
    versions = Versions([None])
    versions.publish("a")
    again = Versions(["something else"])
    again.load_state_dict(versions.state_dict())
    assert (again.current, again.behind(None), again.behind("a")) == (1, 1, 0)
    assert again.behind("something else") is None


def test_one_decision_that_is_too_old_leaves_its_episode_out():
    versions = Versions([None])
    for adapter in "abc":
        versions.publish(adapter)
    assert staleness(episode("b", "c"), versions, 1) == ([1, 0], None)
    assert staleness(episode("a", "c"), versions, 1) == ([2, 0], STALE)
    assert staleness(episode("c", "unheard of"), versions, 9) == ([0], FOREIGN)
    assert staleness(episode("c", "b"), versions, 0) == ([0, 1], STALE)
