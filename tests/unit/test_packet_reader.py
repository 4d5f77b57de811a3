"""Bytes are read as packets, whatever the size of the received pieces."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.mqtt.packets import NotMqttError, PacketReader


def length_of(size):
    """Return a remaining length as it is encoded."""
    encoded = bytearray()
    while True:
        size, digit = divmod(size, 128)
        encoded.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(encoded)


def packet(first_byte, body):
    return bytes([first_byte]) + length_of(len(body)) + body


def read_all(reader, pieces):
    """Return the packets of all pieces."""
    return [one for piece in pieces for one in reader.read(piece)]


BODIES = st.sampled_from([0, 1, 2, 126, 127, 128, 129, 16_383, 16_384, 20_000]).map(bytes) | st.binary(max_size=300)
PACKETS = st.lists(st.tuples(st.integers(0, 255), BODIES), max_size=8)


@given(PACKETS, st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_packets_are_read_from_pieces_of_any_size(packets, sizes):
    whole = b"".join(packet(*one) for one in packets)
    reader, found, position, turn = PacketReader(2**20), [], 0, 0
    while position < len(whole):
        size = sizes[turn % len(sizes)]
        found += reader.read(whole[position : position + size])
        position, turn = position + size, turn + 1
    assert found == packets


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_any_bytes_are_packets_or_raise_not_mqtt_error(pieces):
    reader = PacketReader(1000)
    # Any other error fails the test.
    with suppress(NotMqttError):
        for piece in pieces:
            for first_byte, body in reader.read(piece):
                assert 0 <= first_byte <= 255
                assert type(body) is bytes


@pytest.mark.parametrize("pieces", [1, 100])
def test_a_packet_over_the_limit_is_refused_when_its_header_is_read(pieces):
    reader = PacketReader(1000)
    assert list(reader.read(packet(0x30, bytes(997)))) == [(0x30, bytes(997))]
    header = b"\x30" + length_of(998)
    with pytest.raises(NotMqttError, match="1,001 bytes is larger than the 1,000") as refused:
        read_all(reader, [header] if pieces == 1 else [header[at : at + 1] for at in range(3)])
    assert refused.value.reason_code == 0x95


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_length_of_more_than_four_bytes_is_malformed(cut):
    reader = PacketReader(2**30)
    endless = b"\x30\xff\xff\xff\xff\x01"
    with pytest.raises(NotMqttError, match="more than four bytes") as refused:
        read_all(reader, [endless[:cut], endless[cut:]])
    assert refused.value.reason_code == 0x81


class CountedBuffer(bytearray):
    """Counts the bytes that are copied into it and out of it."""

    copied = 0

    def __iadd__(self, data):
        self.copied += len(data)
        return super().__iadd__(data)

    def __bytes__(self):
        self.copied += len(self)
        return bytes(memoryview(self))


@pytest.mark.parametrize("piece", [1, 7, 1460])
@pytest.mark.parametrize("size", [10_000, 40_000, 160_000])
def test_the_work_for_a_packet_does_not_depend_on_the_number_of_its_pieces(size, piece):
    """If each piece copied all earlier ones, 16 MiB in small pieces would take a minute of CPU."""
    reader = PacketReader(2**30)
    reader.unread = CountedBuffer()
    looks, look = 0, reader.remaining_length

    def counted(data, position):
        nonlocal looks
        looks += 1
        return look(data, position)

    reader.remaining_length = counted
    whole = packet(0x30, bytes(size))
    found = read_all(reader, (whole[at : at + piece] for at in range(0, len(whole), piece)))
    assert found == [(0x30, bytes(size))]
    # Each byte is copied into the buffer once and out of it once, apart from the few bytes of the header.
    assert reader.unread.copied <= 2 * len(whole) + 20
    assert looks <= 10
