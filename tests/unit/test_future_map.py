"""``FutureMap`` resolves the future of a send once, after those of all its parts, with their combined result."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.async_utils import FutureMap
from tb_mqtt_client.common.publish_result import PublishResult


def result(reason_code=0, payload_size=10, datapoints=5):
    return PublishResult("topic", 1, 7, payload_size, reason_code, datapoints)


def future():
    return asyncio.get_running_loop().create_future()


async def test_parent_waits_for_all_children():
    futures, parent, children = FutureMap(), future(), [future(), future()]
    futures.register(parent, children)
    assert futures.get_parents(children[0]) == [parent]
    children[0].set_result(result())
    futures.child_resolved(children[0])
    assert not parent.done()
    children[1].set_result(result(payload_size=3, datapoints=2))
    futures.child_resolved(children[1])
    assert parent.result() == PublishResult("topic", 1, -1, 13, 0, 7)
    assert len(futures) == 0


@pytest.mark.parametrize("failing", [0, 1])
async def test_defect_03_a_send_fails_if_any_part_failed(failing):
    """In SDK 2.0, the last part alone decided."""
    futures, parent, children = FutureMap(), future(), [future(), future()]
    futures.register(parent, children)
    for index, child in enumerate(children):
        child.set_result(result(0x83 if index == failing else 0))
        futures.child_resolved(child)
    assert parent.result().reason_code == 0x83


async def test_parents_get_their_own_datapoints():
    """In SDK 2.0, every caller got the sums of the whole batch."""
    futures, first, second, child = FutureMap(), future(), future(), future()
    futures.register_shares(child, [(first, 2), (second, 3)])
    child.set_result(result())
    futures.child_resolved(child)
    assert (first.result().datapoints_count, second.result().datapoints_count) == (2, 3)
    assert first.result() is not second.result()


async def test_a_child_resolved_twice_counts_once():
    futures, parent, children = FutureMap(), future(), [future(), future()]
    futures.register(parent, children)
    children[0].set_result(result())
    futures.child_resolved(children[0])
    futures.child_resolved(children[0])
    assert not parent.done()


async def test_registering_again_does_not_wait_twice():
    futures, parent, child = FutureMap(), future(), future()
    futures.register(parent, [child])
    futures.register(parent, [child])
    child.set_result(result())
    futures.child_resolved(child)
    assert parent.done()


async def test_a_cancelled_parent_stays_cancelled():
    futures, parent, child = FutureMap(), future(), future()
    futures.register(parent, [child])
    parent.cancel()
    child.set_result(result())
    futures.child_resolved(child)
    assert parent.cancelled()
    assert len(futures) == 0


async def test_cancelled_children_count_as_done():
    futures, parent, children = FutureMap(), future(), [future(), future()]
    futures.register(parent, children)
    children[0].set_result(result())
    children[1].cancel()
    for child in children:
        futures.child_resolved(child)
    assert parent.result() == PublishResult("topic", 1, -1, 10, 0, 5)


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=6), st.randoms())
def test_every_parent_is_resolved_once_with_its_sums(ownership, random):
    """Each parent is resolved after its last child, and has the datapoints of its parts."""

    async def check():
        futures = FutureMap()
        parents = [future() for _ in range(6)]
        expected = dict.fromkeys(range(6), 0)
        children = []
        for owners in ownership:
            child = future()
            shares = [(parents[owner], index + 1) for index, owner in enumerate(dict.fromkeys(owners))]
            for index, owner in enumerate(dict.fromkeys(owners)):
                expected[owner] += index + 1
            futures.register_shares(child, shares)
            children.append(child)
        random.shuffle(children)
        for child in children:
            child.set_result(result())
            futures.child_resolved(child)
        for owner, parent in enumerate(parents):
            assert parent.done() == (expected[owner] > 0)
            if parent.done():
                assert parent.result().datapoints_count == expected[owner]
        assert len(futures) == 0

    asyncio.run(check())


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
    st.randoms(),
)
def test_whole_sends_have_the_results_of_sends_that_are_counted_one_by_one(messages, replaced, random):
    """Sends that are in one message each are registered together. Their messages may be split, lost or resolved in any order."""

    async def run(*, whole):
        futures = FutureMap()
        parents = [[future() for _ in counts] for counts in messages]
        children = [future() for _ in messages]
        for child, ours, counts in zip(children, parents, messages, strict=True):
            if not whole:
                futures.register_shares(child, list(zip(ours, counts, strict=True)))
            else:
                futures.register_whole_sends(child, list(ours), counts[0] if len(set(counts)) == 1 else list(counts))
            assert futures.shares_of(child) == list(zip(ours, counts, strict=True))
        assert len(futures) == sum(map(len, messages))
        datapoints = dict(zip(children, map(sum, messages), strict=True))
        for index in {index for index in replaced if index < len(messages)}:
            # One part has a datapoint of each send, the other one has the rest.
            counts, child = messages[index], children[index]
            parts = future(), future()
            rest = [(place, count - 1) for place, count in enumerate(counts) if count > 1]
            futures.replace_child(child, [(parts[0], [(place, 1) for place in range(len(counts))]), (parts[1], rest)])
            children[index] = None
            children += parts
            datapoints |= {parts[0]: len(counts), parts[1]: sum(count for _, count in rest)}
        parents[0][0].cancel()
        for child in shuffled([child for child in children if child is not None]):
            child.set_result(result(datapoints=datapoints[child]))
            futures.child_resolved(child)
            futures.child_resolved(child)
        assert len(futures) == 0
        assert parents[0][0].cancelled()
        return [one.result() for ours in parents for one in ours if not one.cancelled()]

    def shuffled(children):
        random.seed(len(messages))
        return random.sample(children, len(children))

    assert asyncio.run(run(whole=True)) == asyncio.run(run(whole=False))


async def test_whole_sends_of_a_message_without_a_result_get_none():
    futures, child, parents = FutureMap(), future(), [future(), future()]
    futures.register_whole_sends(child, list(parents), 2)
    child.cancel()
    futures.child_resolved(child)
    assert [parent.result() for parent in parents] == [None, None]
