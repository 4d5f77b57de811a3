//! Tables in Arrow's columns: forms, devices, and errors. Their values are compared with the reference by tests in Python.
#![cfg(feature = "arrow")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray};
use proptest::prelude::*;
use serde_json::Value;
use tb_mqtt_core::points::PointsBuilder;
use tb_mqtt_core::table::{DeviceRows, Roles, Table};

const TS: i64 = 1_700_000_000_000;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("columns of one length")
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Encode a batch in parts of some rows, and return the bytes of the points of each device.
fn encoded(batch: &RecordBatch, roles: Roles<'_>, rows: usize) -> Result<Vec<(Option<String>, String)>, String> {
    let table = Table::new(&batch.schema(), roles).map_err(|refusal| refusal.to_string())?;
    let mut builder = PointsBuilder::default();
    let mut found: Vec<(Option<String>, String)> = Vec::new();
    let mut start = 0;
    while start < batch.num_rows() {
        let end = batch.num_rows().min(start + rows);
        let parts = table.encode(batch, start..end, 100, &mut builder, true).map_err(|refusal| refusal.to_string())?;
        for DeviceRows { device, points, .. } in parts {
            let texts: Vec<String> = points
                .runs()
                .map(|(run, bytes)| {
                    format!("{}:{}", run.timestamp.millis().unwrap_or_default() - TS, String::from_utf8_lossy(bytes))
                })
                .collect();
            match found.iter_mut().find(|(known, _)| *known == device) {
                Some((_, known)) => known.push_str(&texts.concat()),
                None => found.push((device, texts.concat())),
            }
        }
        start = end;
    }
    Ok(found)
}

fn roles() -> Roles<'static> {
    Roles { ts: "t", ..Roles::default() }
}

#[test]
fn a_row_is_a_record_without_its_nulls() {
    let temperature: ArrayRef = Arc::new(Float64Array::from(vec![Some(21.5), None]));
    let alarm: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
    let batch = batch(vec![("a", temperature), ("t", ints([TS, TS + 1])), ("b", alarm)]);
    let expected = r#"0:"a":21.5,"b":true,1:"b":false,"#.to_owned();
    assert_eq!(encoded(&batch, roles(), 10), Ok(vec![(None, expected)]));
}

#[test]
fn rows_of_the_long_form_share_a_record_while_their_keys_differ() {
    let columns =
        vec![("t", ints([TS, TS, TS, TS + 1])), ("k", texts(&["a", "b", "a", "b"])), ("v", ints([1, 2, 3, 4]))];
    let roles = Roles { key_and_value: Some(("k", "v")), ..roles() };
    let expected = r#"0:"a":1,"b":2,0:"a":3,1:"b":4,"#.to_owned();
    assert_eq!(encoded(&batch(columns), roles, 10), Ok(vec![(None, expected)]));
}

#[test]
fn errors_name_the_column_and_the_row_of_the_table() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NAN]));
    let refusal = encoded(&batch(vec![("t", ints([TS, TS])), ("a", values)]), roles(), 1).expect_err("NaN is refused");
    assert!(refusal.starts_with("column \"a\", row 101: Invalid JSON value at $: nan"), "{refusal}");
    let refusal = encoded(&batch(vec![("a", ints([1]))]), roles(), 1).expect_err("no time");
    assert_eq!(refusal, "ts: the table has no column \"t\"; its columns: a");
}

/// Numbers as devices have them, and any others.
fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-1_000_000_000_000_i64..1_000_000_000_000, 0..7_u32).prop_map(|(units, places)| {
            #[expect(clippy::cast_precision_loss, reason = "decimals are wanted, not exact numbers")]
            let units = units as f64;
            units / f64::from(10_u32.pow(places))
        }),
        prop::num::f64::NORMAL | prop::num::f64::ZERO,
    ]
}

proptest! {
    #[test]
    fn values_of_all_lengths_are_written_as_json(
        rows in prop::collection::vec(
            (
                prop::option::of(floats()),
                prop::option::of(prop_oneof![any::<i64>(), -100_000_000_i64..100_000_000, -20_i64..20]),
                prop::option::of(prop_oneof!["[a-z\"\\\\\n\u{e9}\u{20ac}]{0,40}", "[ -~]{0,14}"]),
                prop::option::of(any::<bool>()),
            ),
            1..30,
        ),
        cut in 0..5_usize,
        key_length in 1..60_usize,
    ) {
        let long_key = "k".repeat(key_length);
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row.2.as_deref()).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("t", ints((TS..).take(rows.len()))),
            ("f", Arc::new(rows.iter().map(|row| row.0).collect::<Float64Array>())),
            ("i", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ("s", Arc::new(StringArray::from(texts.clone()))),
            ("w", Arc::new(StringViewArray::from(texts))),
            (&long_key, Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>())),
        ];
        // A slice has its values somewhere inside of the memory of its columns.
        let cut = cut.min(rows.len() - 1);
        let batch = batch(columns).slice(cut, rows.len() - cut);
        let table = Table::new(&batch.schema(), roles()).expect("columns of these types can be sent");
        let mut builder = PointsBuilder::default();
        let parts = table.encode(&batch, 0..batch.num_rows(), 0, &mut builder, false).expect("a sound table");
        let points = parts.iter().flat_map(|part| part.points.iter());
        let found: Vec<(i64, String)> = points
            .map(|(ts, point)| (ts.millis().unwrap_or_default(), String::from_utf8_lossy(point.bytes()).into_owned()))
            .collect();
        let mut expected = Vec::new();
        for ((float, int, text, flag), ts) in rows.iter().zip(TS..).skip(cut) {
            let json = [
                ("f", float.map(Value::from)),
                ("i", int.map(Value::from)),
                ("s", text.clone().map(Value::from)),
                ("w", text.clone().map(Value::from)),
                (&long_key, flag.map(Value::from)),
            ];
            expected.extend(json.into_iter().filter_map(|(key, value)| Some((ts, key, value?))));
        }
        prop_assert_eq!(found.len(), expected.len());
        for ((found_ts, point), (ts, key, value)) in found.iter().zip(expected) {
            prop_assert_eq!(*found_ts, ts);
            let json = point.strip_prefix(&format!("\"{key}\":")).and_then(|rest| rest.strip_suffix(','));
            let json = json.expect("a point of the key");
            if value.is_f64() {
                // The same float; which of its forms is the shortest is tested with the writer of floats.
                prop_assert_eq!(serde_json::from_str::<Value>(json).expect("a number"), value);
            } else {
                prop_assert_eq!(json, value.to_string());
            }
        }
    }

    #[test]
    fn parts_have_the_same_points_for_each_device(
        devices in prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 1..40),
        rows in 1_usize..50,
    ) {
        let count = i64::try_from(devices.len()).expect("few devices");
        let columns = vec![("t", ints((0..count).map(|row| TS + row))), ("d", texts(&devices)), ("a", ints(0..count))];
        let batch = batch(columns);
        let roles = Roles { device: Some("d"), ..roles() };
        let whole = encoded(&batch, roles, devices.len()).expect("a sound table");
        prop_assert_eq!(&encoded(&batch, roles, rows).expect("a sound table"), &whole);
        for (device, text) in whole {
            let own: Vec<String> = (0..count)
                .zip(&devices)
                .filter(|(_, name)| Some(**name) == device.as_deref())
                .map(|(row, _)| format!("{row}:\"a\":{row},"))
                .collect();
            prop_assert_eq!(text, own.concat());
        }
    }
}
