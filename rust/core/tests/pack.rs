//! Every datapoint is sent exactly once and in order, no payload exceeds its limits, and none is closed too early.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use common::{Datapoint, NO_TS, any_value, uplink};
use proptest::prelude::*;
use serde_json::Value;
use tb_mqtt_core::group::Kind;
use tb_mqtt_core::pack::{Limits, Misfit, Packed, Part, pack, split};
use tb_mqtt_core::repack::repack;
use tb_mqtt_core::sink::Layout;
use tb_mqtt_core::uplink::{Extras, Identity, Metadata, Uplink};

const GATEWAY: Layout = Layout { kind: Kind::Timeseries, gateway: true };
const NOW: Option<i64> = Some(1_700_000_000_000);

/// A device, whether there is metadata, and datapoints.
type Call = (usize, bool, Vec<Datapoint>);

/// Uplinks of a few devices with few different keys and timestamps.
fn calls() -> impl Strategy<Value = Vec<Call>> {
    calls_of(3, any_value(), timestamps())
}

/// Uplinks of two devices with different names, with values that always fit in 200 bytes.
fn small_calls(timestamps: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Call>> {
    calls_of(2, any::<i64>().prop_map(Value::from), timestamps)
}

fn timestamps() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 0_i64..4, 1 => Just(NO_TS)]
}

fn calls_of(
    devices: usize,
    values: impl Strategy<Value = Value>,
    timestamps: impl Strategy<Value = i64>,
) -> impl Strategy<Value = Vec<Call>> {
    let datapoint = (timestamps, "[a-c\"é\\\\]{1,3}", values);
    prop::collection::vec((0..devices, any::<bool>(), prop::collection::vec(datapoint, 1..8)), 1..8)
}

fn limits() -> impl Strategy<Value = Limits> {
    (40_usize..400, 0_usize..6, 0_usize..3)
        .prop_map(|(size, datapoints, devices)| Limits::with_zero_as_unlimited(size, datapoints, devices))
}

fn uplinks(calls: &[Call]) -> Vec<Uplink> {
    // The last two share a name.
    let names = [("A", "default"), ("B\"", "default"), ("B\"", "other")];
    let devices = names.map(|(name, profile)| Arc::new(Identity::new(name, profile)));
    let made = calls.iter().map(|(device, metadata, datapoints)| {
        let uplink = uplink(Some(&devices[*device]), datapoints);
        if *metadata { with_metadata(uplink) } else { uplink }
    });
    made.collect()
}

fn with_metadata(uplink: Uplink) -> Uplink {
    let metadata = Some(Metadata::new("c", 5));
    Uplink { extras: Some(Box::new(Extras { metadata, ..Extras::default() })), ..uplink }
}

/// Datapoints of a payload: device name, timestamp, key, value.
fn read(payload: &[u8]) -> Vec<(String, i64, String, Value)> {
    let payload: Value = serde_json::from_slice(payload).expect("valid JSON");
    let mut found = Vec::new();
    for (device, records) in payload.as_object().expect("an object of devices") {
        for record in records.as_array().expect("a list of records") {
            let ts = record.get("ts").map_or(NO_TS, |ts| ts.as_i64().expect("a timestamp"));
            let values = record.get("values").unwrap_or(record).as_object().expect("an object of values");
            for (key, value) in values.iter().filter(|(key, _)| *key != "metadata") {
                found.push((device.clone(), ts, key.clone(), value.clone()));
            }
        }
    }
    found
}

/// Whether no key of a device has two values without a timestamp: the platform would keep one of them.
fn unstamped_differ(datapoints: &[(String, i64, String, Value)]) -> bool {
    let mut seen = HashSet::new();
    datapoints.iter().filter(|(_, ts, ..)| *ts == NO_TS).all(|(device, _, key, _)| seen.insert((device, key)))
}

/// Cut a payload by the first limits, and its parts by those that follow.
fn check_parts(whole: Part<Vec<u8>>, limits: &[Limits]) -> Result<(), TestCaseError> {
    let Some((&limits, tighter)) = limits.split_first() else { return Ok(()) };
    let text = whole.output.clone();
    let whole = whole.with_output(());
    let parts = repack(&text, GATEWAY, &whole, limits);
    let mut shared_out = vec![0; whole.attribution.sources().len()];
    for part in &parts {
        prop_assert!(part.output.len() <= limits.max_size || part.datapoints == 1);
        prop_assert!(part.datapoints <= limits.max_datapoints && part.devices <= limits.max_devices);
        part.attribution.sources().iter().for_each(|source| shared_out[source.uplink] += source.datapoints);
    }
    let given: Vec<_> = whole.attribution.sources().iter().map(|source| source.datapoints).collect();
    prop_assert_eq!(shared_out, given);
    let left: Vec<_> = parts.iter().flat_map(|part| read(&part.output)).collect();
    prop_assert_eq!(left, read(&text));
    parts.into_iter().try_for_each(|part| check_parts(part, tighter))
}

proptest! {
    /// No payload exceeds a limit, each has its stated size, and each datapoint is acknowledged exactly once.
    #[test]
    fn limits_and_sources(calls in calls(), limits in limits()) {
        let uplinks = uplinks(&calls);
        let references: Vec<_> = uplinks.iter().collect();
        let Packed { parts, oversized, .. } = pack(&references, GATEWAY, limits, NOW).expect("all have a device");
        let mut acknowledged = vec![0; uplinks.len()];
        for part in &parts {
            let datapoints = read(&part.output);
            prop_assert!(part.output.len() <= limits.max_size);
            prop_assert!(part.datapoints <= limits.max_datapoints && part.devices <= limits.max_devices);
            prop_assert_eq!(datapoints.len(), part.datapoints);
            prop_assert!(unstamped_differ(&datapoints));
            part.attribution.sources().iter().for_each(|source| acknowledged[source.uplink] += source.datapoints);
        }
        for refused in &oversized {
            prop_assert!(refused.size > limits.max_size);
            acknowledged[refused.uplink] += 1;
        }
        let given: Vec<_> = uplinks.iter().map(|uplink| uplink.timeseries.count()).collect();
        prop_assert_eq!(acknowledged, given);
    }

    /// Cutting a payload keeps its text in order, the limits, and each source's count; parts can be cut again.
    #[test]
    fn parts_of_a_payload(calls in calls(), limits in limits(), tighter in limits()) {
        let uplinks = uplinks(&calls);
        let references: Vec<_> = uplinks.iter().collect();
        let unlimited = Limits::with_zero_as_unlimited(usize::MAX >> 1, 0, 0);
        let Packed { parts: wholes, .. } = pack(&references, GATEWAY, unlimited, NOW).expect("all have a device");
        for whole in wholes {
            check_parts(whole, &[limits, tighter])?;
        }
    }

    /// For each device name, timestamp and key, the values are sent in their order, and the last one is always sent. Without a
    /// timestamp, all are sent.
    #[test]
    fn order_of_values(calls in small_calls(timestamps()), size in 200_usize..400) {
        let uplinks = uplinks(&calls);
        let references: Vec<_> = uplinks.iter().collect();
        let limits = Limits::with_zero_as_unlimited(size, 0, 0);
        let Packed { parts, oversized, .. } = pack(&references, GATEWAY, limits, NOW).expect("all have a device");
        prop_assert!(oversized.is_empty());
        let mut left: HashMap<_, Vec<Value>> = HashMap::new();
        for (device, ts, key, value) in parts.iter().flat_map(|part| read(&part.output)) {
            left.entry((device, ts, key)).or_default().push(value);
        }
        let mut given: HashMap<_, Vec<Value>> = HashMap::new();
        for (device, _, datapoints) in &calls {
            for (ts, key, value) in datapoints {
                let device = ["A", "B\""][*device].to_owned();
                given.entry((device, *ts, key.clone())).or_default().push(value.clone());
            }
        }
        prop_assert_eq!(left.len(), given.len());
        for (place, values) in given {
            let mut rest = values.iter();
            prop_assert!(left[&place].iter().all(|value| rest.any(|given| given == value)), "order of {place:?}");
            prop_assert_eq!(left[&place].last(), values.last());
            prop_assert!(place.1 != NO_TS || left[&place] == values);
        }
    }

    /// Within the limits there is one payload, in which each value is the last one given, if all datapoints have timestamps.
    #[test]
    fn one_payload_within_the_limits(calls in small_calls(0_i64..4)) {
        let uplinks = uplinks(&calls);
        let references: Vec<_> = uplinks.iter().collect();
        let limits = Limits::with_zero_as_unlimited(usize::MAX >> 1, 0, 0);
        let Packed { parts, .. } = pack(&references, GATEWAY, limits, NOW).expect("all have a device");
        prop_assert_eq!(parts.len(), 1);
    }

    /// Splitting makes uplinks that each fit in a payload, with every datapoint that was given.
    #[test]
    fn split_parts_fit(calls in calls(), limits in limits()) {
        let plain: Vec<_> = calls.into_iter().map(|(device, _, datapoints)| (device, false, datapoints)).collect();
        let uplinks = uplinks(&plain);
        let references: Vec<_> = uplinks.iter().collect();
        let parts = split(&references, GATEWAY, limits).expect("all have a device");
        let mut acknowledged = 0;
        for part in &parts {
            let Packed { parts: again, oversized, .. } = pack(&[&part.output], GATEWAY, limits, NOW).expect("a device");
            prop_assert_eq!(again.len() + oversized.len(), 1);
            prop_assert_eq!(part.output.timeseries.count(), part.datapoints);
            acknowledged += part.attribution.sources().iter().map(|source| source.datapoints).sum::<usize>();
        }
        prop_assert_eq!(acknowledged, uplinks.iter().map(|uplink| uplink.timeseries.count()).sum::<usize>());
    }
}

#[test]
fn a_gateway_payload_needs_devices() {
    let homeless = uplink(None, &[(1, "a".to_owned(), Value::from(1))]);
    let limits = Limits::with_zero_as_unlimited(100, 0, 0);
    assert_eq!(pack(&[&homeless], GATEWAY, limits, NOW).expect_err("no device"), Misfit::NoDevice(0));
}

#[test]
fn an_oversized_datapoint_is_alone() {
    let device = Arc::new(Identity::new("A", "default"));
    let large = Value::from("x".repeat(100));
    let datapoints = [(1, "a".to_owned(), 1.into()), (1, "big".to_owned(), large), (1, "b".to_owned(), 2.into())];
    let given = uplink(Some(&device), &datapoints);
    let limits = Limits::with_zero_as_unlimited(60, 0, 0);
    let Packed { parts, oversized, .. } = pack(&[&given], GATEWAY, limits, NOW).expect("a device");
    assert_eq!(oversized.len(), 1);
    assert_eq!(oversized[0].point.key(), b"\"big\"");
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].output, br#"{"A":[{"ts":1,"values":{"a":1,"b":2}}]}"#);
}

#[test]
fn an_uplink_with_metadata_has_records_of_its_own() {
    let device = Arc::new(Identity::new("A", "default"));
    let call = |key: &str, value: i64| uplink(Some(&device), &[(1, key.to_owned(), value.into())]);
    let calls = [call("a", 1), call("b", 2), with_metadata(call("a", 3)), call("a", 4), with_metadata(call("a", 5))];
    let references: Vec<_> = calls.iter().collect();
    let limits = Limits::with_zero_as_unlimited(1000, 0, 0);
    let Packed { parts, .. } = pack(&references, GATEWAY, limits, NOW).expect("a device");
    let metadata = r#""metadata":{"connector":"c","receivedTs":5,"publishedTs":1700000000000}"#;
    let expected = format!(
        r#"{{"A":[{{"ts":1,"values":{{"a":1,"b":2}}}},{{"ts":1,"values":{{"a":3}},{metadata}}},{{"ts":1,"values":{{"a":4}}}},{{"ts":1,"values":{{"a":5}},{metadata}}}]}}"#
    );
    assert_eq!(String::from_utf8(parts[0].output.clone()).expect("text"), expected);
    assert_eq!(parts[0].datapoints, 5);
}

#[test]
fn metadata_of_a_record_without_a_timestamp_are_its_last_member() {
    let device = Arc::new(Identity::new("A", "default"));
    let datapoints: Vec<_> = ["a", "b"].iter().map(|key| (NO_TS, (*key).to_owned(), Value::from(1))).collect();
    let calls = [uplink(Some(&device), &datapoints[..1]), with_metadata(uplink(Some(&device), &datapoints))];
    let references: Vec<_> = calls.iter().collect();
    let limits = Limits::with_zero_as_unlimited(1000, 0, 0);
    let Packed { parts, .. } = pack(&references, GATEWAY, limits, NOW).expect("a device");
    let metadata = r#""metadata":{"connector":"c","receivedTs":5,"publishedTs":1700000000000}"#;
    let written: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(&part.output)).collect();
    assert_eq!(written, [r#"{"A":[{"a":1}]}"#, &format!(r#"{{"A":[{{"a":1,"b":1,{metadata}}}]}}"#)]);
    let second = parts[1].clone();
    let cut = repack(&second.output, GATEWAY, &second.clone().with_output(()), Limits { max_datapoints: 1, ..limits });
    let written: Vec<_> = cut.iter().map(|part| String::from_utf8_lossy(&part.output)).collect();
    assert_eq!(written, ["a", "b"].map(|key| format!(r#"{{"A":[{{"{key}":1,{metadata}}}]}}"#)));
}

#[test]
fn metadata_need_the_time_of_publishing() {
    let device = Arc::new(Identity::new("A", "default"));
    let given = with_metadata(uplink(Some(&device), &[(1, "a".to_owned(), Value::from(1))]));
    let limits = Limits::with_zero_as_unlimited(1000, 0, 0);
    assert_eq!(pack(&[&given], GATEWAY, limits, None).expect_err("no time"), Misfit::NoPublishTime(0));
    assert_eq!(split(&[&given], GATEWAY, limits).expect_err("no time"), Misfit::NoPublishTime(0));
    let attributes = Layout { kind: Kind::Attributes, gateway: true };
    assert!(pack(&[&given], attributes, limits, None).expect("no attributes").parts.is_empty());
}
