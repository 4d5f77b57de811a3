"""Data of refused devices takes half of the queue at most, and counts while it is held back."""

from tb_mqtt_client._native import DeviceIdentity, EncodedUplink
from tb_mqtt_client.service.gateway.gate import DeviceGate, RefusedShare

A, B = DeviceIdentity("A"), DeviceIdentity("B")


def uplink(device, number=0):
    return EncodedUplink.timeseries({"a": 1}, 0, device), None, number, None


def test_half_of_the_queue_is_the_share():
    share = RefusedShare(10, 1000)
    share.update(1, 4, 0)
    assert not share.is_used_up
    share.update(1, 1, 0)
    assert share.is_used_up
    share.update(1, -5, 499)
    assert not share.is_used_up
    share.update(1, 0, 1)
    assert share.is_used_up


def test_each_send_is_checked_only_if_the_share_may_be_used_up_before_it_counts():
    looks = []
    share = RefusedShare(10_000, 2**40, at_once=500)
    share.on_change = looks.append
    for devices, messages in ((1, 0), (1, 4499), (1, 1), (1, -1), (0, -4499)):
        share.update(devices, messages, 0)
    assert looks == [False, False, True, False, False]
    small = RefusedShare(10, 2**40, at_once=500)
    small.on_change = looks.append
    small.update(1, 0, 0)
    assert looks[-1]
    small.update(0, 0, 0)
    assert not looks[-1]


async def test_held_data_of_refused_devices_counts_until_it_leaves():
    gate = DeviceGate(RefusedShare())
    size = uplink(A)[0].nbytes

    def counts(messages):
        assert (gate.share.messages, gate.share.bytes) == (messages, messages * size)

    gate.hold(A)
    gate.hold(B)
    assert gate.keep(A, uplink(A, 1))
    assert gate.keep(B, uplink(B, 2))
    counts(0)
    gate.fail(A)
    gate.fail(A)
    counts(1)
    assert gate.keep(A, uplink(A, 3))
    counts(2)
    gate.fail(B)
    counts(3)
    (_, number), take = gate.oldest(of_refused=True)
    assert (number, take()[0].device) == (1, A)
    counts(2)
    gate.release(B)
    counts(1)
    assert gate.oldest()[0][1] == 3
    gate.take_all()
    counts(0)
    assert gate.keep(A, uplink(A, 4))
    gate.move(A, B)
    counts(0)
    assert gate.oldest() is None
    assert not gate.keep(A, uplink(A))
