"""Send a history of measurements that is in columns, in batches, so that only a few of them are in memory at a time.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. The program needs pyarrow (extra `table`). It
makes the rows itself: as many as its argument says, a second apart (100,000 by default). Data frames of polars and pandas,
relations of DuckDB, and the batches of a Parquet file (docs/tables.md) are sent in the same way.
"""

import math
import sys
import time
from collections.abc import Iterator

import pyarrow as pa

from tb_mqtt_client import DeviceClient, DeviceConfig, run

ROWS_A_BATCH = 10_000

SCHEMA = pa.schema(
    [
        ("measured_at", pa.timestamp("ms", tz="UTC")),
        ("temperature", pa.float64()),
        ("fan_rpm", pa.int32()),
        ("state", pa.string()),
    ]
)


def batches(rows: int, end_ms: int) -> Iterator[pa.RecordBatch]:
    """Make the rows before a time. The temperature is missing in every tenth row: nothing is sent for it."""
    for first in range(0, rows, ROWS_A_BATCH):
        seconds = range(first, min(first + ROWS_A_BATCH, rows))
        columns = [
            [end_ms - (rows - second) * 1000 for second in seconds],
            [round(20 + 5 * math.sin(second / 600), 2) if second % 10 else None for second in seconds],
            [1200 + second % 7 for second in seconds],
            ["running" if second % 3600 < 3000 else "idle" for second in seconds],
        ]
        yield pa.record_batch([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


async def main(rows: int) -> None:
    table = pa.RecordBatchReader.from_batches(SCHEMA, batches(rows, int(time.time() * 1000)))
    async with DeviceClient(DeviceConfig()) as client:
        began = time.perf_counter()
        result = await client.send_table(table, ts="measured_at")
        seconds = time.perf_counter() - began
        outcome = "acknowledged" if result.is_successful() else f"refused ({result.reason})"
        print(f"{outcome}: {result.datapoints_count:,} datapoints in {seconds:.1f} s")


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
