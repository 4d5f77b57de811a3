"""Tables of the libraries that docs/tables.md names, read through the Arrow C stream interface.

nanoarrow is installed with the tests; `make table-test` installs the others, which are large.
"""

import datetime

import nanoarrow
import pytest

from tb_mqtt_client._native import TableReader, pack_timeseries

TS = 1_700_000_000_000
TIMES = [datetime.datetime.fromtimestamp(TS / 1000 + row, datetime.UTC) for row in range(3)]
COLUMNS = {
    "level": [1.25, None, -0.5],
    "count": [7, 8, 9],
    "state": ["on", "off", "out of order: door open"],
    "alarm": [True, False, None],
}


def of_nanoarrow():
    types = {"level": nanoarrow.float64(), "count": nanoarrow.int64(), "state": nanoarrow.string(), "alarm": nanoarrow.bool_()}
    millis = [int(time.timestamp() * 1000) for time in TIMES]
    columns = {"time": nanoarrow.c_array(millis, nanoarrow.int64())}
    columns |= {name: nanoarrow.c_array(values, types[name]) for name, values in COLUMNS.items()}
    struct = nanoarrow.struct({name: column.schema for name, column in columns.items()})
    array = nanoarrow.c_array_from_buffers(struct, length=3, buffers=[None], children=list(columns.values()))
    return nanoarrow.ArrayStream(array)


def of_polars(polars):
    return polars.DataFrame({"time": TIMES} | COLUMNS)


def of_polars_with_categories(polars):
    return of_polars(polars).with_columns(polars.col("state").cast(polars.Categorical))


def of_pandas(pandas):
    return pandas.DataFrame({"time": TIMES} | {name: pandas.array(values) for name, values in COLUMNS.items()})


def of_duckdb(duckdb):
    """Return a relation, whose rows are computed while they are read."""
    rows = ", ".join(
        f"(TIMESTAMPTZ '{time.isoformat()}', {level}::DOUBLE, {count}, {state!r}, {alarm})"
        for time, level, count, state, alarm in zip(
            TIMES, *([("NULL" if one is None else one) for one in values] for values in COLUMNS.values()), strict=True
        )
    )
    return duckdb.connect().sql(f"SELECT * FROM (VALUES {rows}) AS made(time, level, count, state, alarm)")


def records_of(table):
    """Return the records of the payloads of a table."""
    reader = TableReader(table, "time")
    parts = []
    while (read := reader.read(1000)) is not None:
        parts += [uplink for _, _, uplink in read]
    [payload] = pack_timeseries(parts, gateway=False, max_size=10_000).payloads
    return payload.data


EXPECTED = (
    b'[{"ts":1700000000000,"values":{"level":1.25,"count":7,"state":"on","alarm":true}},'
    b'{"ts":1700000001000,"values":{"count":8,"state":"off","alarm":false}},'
    b'{"ts":1700000002000,"values":{"level":-0.5,"count":9,"state":"out of order: door open"}}]'
)


def test_a_table_of_nanoarrow():
    assert records_of(of_nanoarrow()) == EXPECTED


@pytest.mark.parametrize("make", [of_polars, of_polars_with_categories, of_pandas, of_duckdb])
def test_a_table_of_a_large_library(make):
    name = make.__name__.removeprefix("of_").split("_")[0]
    assert records_of(make(pytest.importorskip(name, reason="make table-test"))) == EXPECTED
