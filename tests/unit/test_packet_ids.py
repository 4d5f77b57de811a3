"""A packet id stays in use until the acknowledgement of its kind comes; other packets do not free it."""

import pytest
from played_connection import PlayedConnection, ack, puback

from engine_parts import take_ids_until
from tb_mqtt_client import BackpressureException
from tb_mqtt_client.common.mqtt.acknowledgements import PacketIds
from tb_mqtt_client.common.mqtt.packets import PacketType

PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK = 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0
SURPLUS = {"PUBREC": PUBREC, "PUBREL": PUBREL, "PUBCOMP": PUBCOMP, "SUBACK": SUBACK, "UNSUBACK": UNSUBACK}


def is_free(played, packet_id):
    """Return whether a publish gets this packet id when its turn comes again, 65,535 publishes after the last time."""
    take_ids_until(played.patches.packet_ids, packet_id - 1)
    return played.publish() == packet_id


@pytest.mark.parametrize("kind", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("refused", [False, True])
async def test_a_surplus_acknowledgement_leaves_a_publish_in_flight(kind, refused):
    """gmqtt frees the id: 65,535 publishes later two publishes would have it, and the result of one would be lost."""
    played = await PlayedConnection().open()
    in_flight = played.publish()
    played.say(ack(kind, in_flight, b"\x00\x80" if kind in {SUBACK, UNSUBACK} else bytes([0x80 if refused else 0, 0])))
    assert (played.acknowledged, played.confirmed, played.transport.aborted) == ([], [], False)
    assert not is_free(played, in_flight)
    played.say(puback(in_flight))
    assert played.acknowledged == [(in_flight, 0)]
    assert is_free(played, in_flight)


@pytest.mark.parametrize("awaited", [SUBACK, UNSUBACK])
@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBCOMP, SUBACK, UNSUBACK])
async def test_only_a_suback_or_unsuback_frees_the_id_of_its_packet(awaited, kind):
    played = await PlayedConnection().open()
    packet_id = played.client.subscribe("t", qos=1) if awaited == SUBACK else played.client.unsubscribe("t")
    played.say(ack(kind, packet_id))
    assert played.confirmed == ([(packet_id, (0,))] if kind == awaited else [])
    assert is_free(played, packet_id) == (kind == awaited)


@pytest.mark.parametrize("kind", [*SURPLUS.values(), PUBACK])
async def test_an_acknowledgement_of_an_unknown_id_changes_nothing(kind):
    """gmqtt stores a PUBREC for an unknown id as a publish; its missing PUBACK would end the connection."""
    played = await PlayedConnection().open()
    played.say(ack(kind, 4711) + ack(kind, 0))
    assert not played.transport.aborted
    assert played.patches.overdue(float("inf")) is None
    assert is_free(played, 4711)


async def test_ids_in_flight_are_skipped_when_the_ids_start_again():
    ids = PacketIds()
    for expected in range(1, 65_536):
        assert ids.next_id() == expected
        if expected not in {1, 2, 65_535}:
            assert ids.acknowledge(expected, PacketType.PUBACK)
    assert ids.next_id() == 3
    assert ids.acknowledge(1, PacketType.PUBACK)
    assert ids.next_id() == 4


async def test_a_publish_is_refused_while_all_ids_are_in_flight():
    ids = PacketIds()
    taken = [ids.next_id() for _ in range(65_535)]
    assert sorted(taken) == list(range(1, 65_536))
    with pytest.raises(BackpressureException, match="packet ids"):
        ids.next_id()
    assert ids.acknowledge(777, PacketType.PUBACK)
    assert not ids.acknowledge(777, PacketType.PUBACK)
    assert ids.next_id() == 777
