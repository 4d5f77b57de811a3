"""From tables in Arrow's columns to payload bytes, and to the last PUBACK of a real broker."""

import asyncio
import random
from functools import partial

import orjson
import pyarrow as pa
import pytest

from corpora import FIRST_TS
from end_to_end import HandWritten, Ours, Subscriber
from tb_mqtt_client._native import TableReader, pack_timeseries

ROWS = 1_000_000
MAX_SIZE = 65_000
PART = 32_768


@pytest.fixture(scope="module", name="columns")
def columns_once():
    return make_columns()


def make_columns():
    """Return the columns of a table: readings with two decimal places, counters, states and a flag."""
    source = random.Random(1)
    repeated = ROWS // 100
    made = {f"temperature{number}": [round(source.uniform(-20, 80), 2) for _ in range(repeated)] * 100 for number in range(4)}
    made |= {f"counter{number}": [source.randrange(10**6) for _ in range(repeated)] * 100 for number in range(3)}
    made |= {f"state{number}": [source.choice(["on", "off", "idle"]) for _ in range(repeated)] * 100 for number in range(2)}
    made["alarm"] = [source.random() < 0.1 for _ in range(repeated)] * 100
    return {"ts": [FIRST_TS + row for row in range(ROWS)]} | made


def records_of(columns):
    names = [name for name in columns if name != "ts"]
    values = zip(*(columns[name] for name in names), strict=True)
    return [{"ts": ts, "values": dict(zip(names, one, strict=True))} for ts, one in zip(columns["ts"], values, strict=True)]


def payloads_of(table):
    """Write the payloads of a table, as a client does with the parts that it has accepted."""
    reader = TableReader(table, "ts")
    payloads = []
    while (parts := reader.read(PART)) is not None:
        packed = pack_timeseries([uplink for _, _, uplink in parts], gateway=False, max_size=MAX_SIZE)
        payloads += [payload.data for payload in packed.payloads]
    return payloads


def same_records(records, payloads):
    found = (record for payload in payloads for record in orjson.loads(payload))
    return all(one == other for one, other in zip(records, found, strict=True))


def pair(_case):
    """Return the functions that are measured in turns."""
    columns = make_columns()
    return partial(payloads_of, pa.table(columns)), partial(orjson.dumps, records_of(columns))


@pytest.mark.parametrize("peer", ["native", "orjson.dumps"])
def test_payloads(measure, columns, peer):
    case = "Arrow to payloads: device, 1,000,000 rows of 10 columns"
    records = records_of(columns)
    if peer == "native":
        work, correct = partial(payloads_of, pa.table(columns)), partial(same_records, records)
    else:
        work, correct = partial(orjson.dumps, records), lambda document: orjson.loads(document) == records
    in_turns_with = ("test_columns", "orjson.dumps") if peer == "native" else None
    measure(case, peer, work, correct, in_turns_with, datapoints=10 * ROWS)


class Checked(Subscriber):
    """Subscribes to telemetry, and compares each record with the row that has its time."""

    def __init__(self, broker, columns):
        super().__init__(broker)
        self._columns = columns
        self.is_same = True
        self._seen = bytearray(ROWS)

    async def until_complete(self):
        await self._complete.wait()
        return self.is_same

    def _receive(self, _client, _topic, payload, _qos, _properties):
        for record in orjson.loads(payload):
            row = record["ts"] - FIRST_TS
            self.is_same &= record["values"] == {name: self._columns[name][row] for name in self._columns if name != "ts"}
            self._seen[row] = 1
        if self._seen.count(1) == ROWS:
            self._complete.set()
        return 0


class BytesByHand(HandWritten):
    """Publishes payloads that are ready, and does nothing else."""

    async def send_payloads(self, payloads):
        for payload in payloads:
            await self.publish_when_open(payload)
        await self.settled()
        return 10 * ROWS


class Tables(Ours):
    """Sends a table with this package."""

    async def send_table(self, table):
        return (await self._client.send_table(table)).datapoints_count


@pytest.mark.parametrize("peer", ["native", "bytes by hand"])
def test_acknowledged(benchmark, broker, columns, peer):
    case = "Arrow to acknowledgements: device, 1,000,000 rows of 10 columns"
    table = pa.table(columns)
    with asyncio.Runner() as runner:
        program = Tables(broker) if peer == "native" else BytesByHand(broker)
        send = partial(program.send_table, table) if peer == "native" else partial(program.send_payloads, payloads_of(table))

        async def prepare():
            await program.start()
            async with Checked(broker, columns) as listener:
                await send()
                assert await listener.until_complete(), f"{peer} sent something else for {case}"

        runner.run(prepare())
        benchmark.group = case
        benchmark.extra_info.update(peer=peer, correct=True, datapoints=10 * ROWS)
        assert benchmark.pedantic(lambda: runner.run(send()), rounds=3, warmup_rounds=0) == 10 * ROWS
        runner.run(program.stop())
