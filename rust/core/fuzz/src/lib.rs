//! Properties that hold for any input: one function for each fuzz target. It panics if its property does not hold.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use serde_json::Value;
use tb_mqtt_core::buckets::{Buckets, Window};
use tb_mqtt_core::group::Kind;
use tb_mqtt_core::json::{Output, write_str, write_value};
use tb_mqtt_core::key;
use tb_mqtt_core::numbers::{Conversions, Numbers};
use tb_mqtt_core::pack::{self, Limits, Packed, Part};
use tb_mqtt_core::points::{PointIter, Points, PointsBuilder, Timestamp};
use tb_mqtt_core::repack::repack;
use tb_mqtt_core::sink::Layout;
use tb_mqtt_core::uplink::{Extras, Identity, Metadata, Uplink};

#[path = "../../tests/common/tree.rs"]
mod tree;

use tree::{Tree, written};

#[path = "../../tests/common/simulated.rs"]
#[allow(dead_code, missing_docs, clippy::pedantic, reason = "shared with the tests of the store, which use all of it")]
mod simulated;

mod store;

pub use store::{Directory, store};

#[cfg(test)]
mod lock_order;

/// A value written as JSON is read as an equal value, and is found between other datapoints.
///
/// # Panics
/// When the property does not hold.
pub fn json(document: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(document) else { return };
    let bytes = written(&value);
    assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("valid JSON"), value);
    let Some(text) = value.as_str().filter(|text| key::validate(text).is_ok()) else {
        return points(b"\"key\"", &bytes);
    };
    let mut name = Vec::new();
    write_str(text, &mut name);
    points(&name, &bytes);
}

fn points(key: &[u8], value: &[u8]) {
    let encoded = [key, b":", value, b","].concat().repeat(2);
    let found: Vec<_> = PointIter(&encoded).map(|point| (point.key(), point.value())).collect();
    assert_eq!(found, [(key, value); 2]);
}

/// A float is written as the nearest one that the platform stores as a number, or is counted as text.
///
/// # Panics
/// When the property does not hold.
pub fn numbers(value: f64) {
    if !value.is_finite() {
        return;
    }
    let mut out = Output { numbers: Numbers::new(true), ..Output::default() };
    write_value(&Tree(Value::from(value)), &mut out).expect("a finite number");
    let text = String::from_utf8(out.bytes).expect("digits");
    let expected = match out.numbers.conversions() {
        Conversions { rounded: 1, as_text: 0 } => format!("{value:.16}").parse().expect("a number"),
        Conversions { rounded: 0, .. } => value,
        other => panic!("{other:?} of one value"),
    };
    assert_eq!(text.parse::<f64>().expect("a number").to_bits(), f64::to_bits(expected));
    assert!(out.numbers.conversions().rounded == 0 || expected.abs() >= 1e-11);
    let kept = expected.abs() < 2_f64.powi(63) && (expected.abs() >= 1e16 || places(&text) <= 16);
    assert_eq!(out.numbers.conversions().as_text == 0, kept);
}

/// Decimal places in plain notation.
fn places(text: &str) -> usize {
    let (digits, exponent) = text.split_once("e-").unwrap_or((text, "0"));
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    fraction + exponent.parse::<usize>().expect("an exponent")
}

/// Uplinks of some devices, and the limits of one payload.
#[derive(Debug, Arbitrary)]
pub struct Batch {
    calls: Vec<Call>,
    max_size: u16,
    max_datapoints: u8,
    max_devices: u8,
    attributes: bool,
}

#[derive(Debug, Arbitrary)]
struct Call {
    device: u8,
    main_ts: Option<i8>,
    metadata: bool,
    datapoints: Vec<(Option<i8>, u8, i64)>,
}

impl Batch {
    fn uplinks(&self, kind: Kind) -> Vec<Uplink> {
        // The last two share a name.
        let names = [("A", "default"), ("B\"", "default"), ("B\"", "other")];
        let devices = names.map(|(name, profile)| Arc::new(Identity::new(name, profile)));
        let uplink = |call: &Call| {
            let points = call.points();
            let (timeseries, attributes) = match kind {
                Kind::Timeseries => (points, Points::default()),
                Kind::Attributes => (Points::default(), points),
            };
            let metadata = call.metadata.then(|| Metadata::new("c\"", 5));
            let extras = Some(Box::new(Extras { attributes, metadata }));
            let device = Some(Arc::clone(&devices[usize::from(call.device) % devices.len()]));
            Uplink { device, timeseries, extras, main_timestamp: timestamp(call.main_ts) }
        };
        self.calls.iter().map(uplink).collect()
    }
}

impl Call {
    fn points(&self) -> Points {
        let mut builder = PointsBuilder::default();
        for &(ts, key, value) in &self.datapoints {
            // Few keys, so that they meet.
            let key = format!("\"k{}\"", key % 4);
            let point = format!("{key}:{value},");
            builder.push_encoded(timestamp(ts), key.as_bytes(), point.as_bytes()).expect("a few bytes");
        }
        builder.finish()
    }
}

fn timestamp(ts: Option<i8>) -> Timestamp {
    ts.and_then(|ts| Timestamp::new(i64::from(ts))).unwrap_or(Timestamp::NONE)
}

/// Every datapoint is acknowledged exactly once, no payload exceeds a limit, and each has the stated number of datapoints.
///
/// # Panics
/// When the property does not hold.
pub fn pack(batch: &Batch) {
    let kind = if batch.attributes { Kind::Attributes } else { Kind::Timeseries };
    let uplinks = batch.uplinks(kind);
    let references: Vec<_> = uplinks.iter().collect();
    let (max_datapoints, max_devices) = (usize::from(batch.max_datapoints), usize::from(batch.max_devices));
    let limits = Limits::with_zero_as_unlimited(usize::from(batch.max_size), max_datapoints, max_devices);
    let layout = Layout { kind, gateway: true };
    let Packed { parts, oversized, .. } = pack::pack(&references, layout, limits, Some(7)).expect("all have a device");
    let mut acknowledged = vec![0; uplinks.len()];
    for part in &parts {
        assert!(part.output.len() <= limits.max_size);
        assert!(part.datapoints <= limits.max_datapoints && part.devices <= limits.max_devices);
        let document: Value = serde_json::from_slice(&part.output).expect("valid JSON");
        assert_eq!(document.as_object().expect("an object of devices").len(), part.devices);
        assert_eq!(count(&document, kind), part.datapoints);
        assert!(kind == Kind::Attributes || unstamped_differ(&document));
        part.attribution.sources().iter().for_each(|source| acknowledged[source.uplink] += source.datapoints);
    }
    for refused in &oversized {
        assert!(refused.size > limits.max_size);
        acknowledged[refused.uplink] += 1;
    }
    let given: Vec<_> = uplinks.iter().map(|uplink| uplink.timeseries.count() + uplink.attribute_count()).collect();
    assert_eq!(acknowledged, given);
    let unlimited = Limits::with_zero_as_unlimited(usize::MAX >> 1, 0, 0);
    for whole in pack::pack(&references, layout, unlimited, Some(7)).expect("all have a device").parts {
        cut(whole, layout, limits);
    }
}

/// A payload is cut into parts within the limits that together acknowledge the same datapoints of each source.
fn cut(whole: Part<Vec<u8>>, layout: Layout, limits: Limits) {
    let text = whole.output.clone();
    let whole = whole.with_output(());
    let mut acknowledged: Vec<_> = whole.attribution.sources().iter().map(|source| source.datapoints).collect();
    for part in repack(&text, layout, &whole, limits) {
        assert!(part.output.len() <= limits.max_size || part.datapoints == 1);
        assert!(part.datapoints <= limits.max_datapoints && part.devices <= limits.max_devices);
        let document: Value = serde_json::from_slice(&part.output).expect("valid JSON");
        assert_eq!(count(&document, layout.kind), part.datapoints);
        part.attribution.sources().iter().for_each(|source| acknowledged[source.uplink] -= source.datapoints);
    }
    assert!(acknowledged.iter().all(|left| *left == 0));
}

/// Whether no key of a device has two values without a timestamp: the platform would keep one of them.
fn unstamped_differ(document: &Value) -> bool {
    document.as_object().expect("an object of devices").values().all(|entry| {
        let mut seen = HashSet::new();
        let unstamped = entry.as_array().expect("a list of records").iter().filter(|record| record.get("ts").is_none());
        let mut keys = unstamped.flat_map(|record| record.as_object().expect("an object of values").keys());
        keys.all(|key| key == "metadata" || seen.insert(key))
    })
}

fn count(document: &Value, kind: Kind) -> usize {
    let values = |record: &Value| {
        let values = record.get("values").unwrap_or(record).as_object().map_or(0, serde_json::Map::len);
        values - usize::from(record.get("values").is_none() && record.get("metadata").is_some())
    };
    let records = |entry: &Value| entry.as_array().expect("a list of records").iter().map(values).sum();
    let entries = document.as_object().expect("an object of devices").values();
    entries.map(|entry| if kind == Kind::Attributes { values(entry) } else { records(entry) }).sum()
}

/// Windows of a limit, and takes, each with the nanoseconds that pass before it.
#[derive(Debug, Arbitrary)]
pub struct Takes {
    windows: Vec<(u16, u32)>,
    takes: Vec<(u32, u16)>,
}

/// No window admits more than its capacity and its refill, and a take succeeds after exactly the returned wait.
///
/// # Panics
/// When the property does not hold.
pub fn buckets(takes: &Takes) {
    let window = |&(capacity, nanos): &(u16, u32)| Window {
        capacity: u64::from(capacity),
        duration: Duration::from_nanos(u64::from(nanos)),
    };
    let windows: Vec<_> = takes.windows.iter().map(window).collect();
    let Ok(mut buckets) = Buckets::new(&windows, 0) else { return };
    let (mut now, mut admitted) = (0_i64, Vec::new());
    for &(elapsed, amount) in takes.takes.iter().take(100) {
        now += i64::from(elapsed);
        match buckets.take(u64::from(amount), now) {
            Ok(None) => admitted.push((now, u128::from(amount))),
            Ok(Some(wait)) => {
                let due = now + i64::try_from(wait.nanos).expect("a few seconds");
                assert!(matches!(buckets.clone().take(u64::from(amount), due - 1), Ok(Some(_))));
                assert!(matches!(buckets.clone().take(u64::from(amount), due), Ok(None)));
            }
            Err(_) => assert!(windows.iter().any(|window| u64::from(amount) > window.capacity)),
        }
    }
    for window in &windows {
        let (capacity, nanos) = (u128::from(window.capacity), window.duration.as_nanos());
        for (first, &(from, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for &(to, amount) in &admitted[first..] {
                sum += amount;
                assert!(sum * nanos <= capacity * (nanos + u128::from(to.abs_diff(from))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libfuzzer_sys::arbitrary::{Arbitrary as _, Unstructured};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The properties hold for random inputs too, which checks the targets themselves.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), document in "\\PC*", value in any::<f64>()) {
            json(&bytes);
            json(document.as_bytes());
            json(&serde_json::to_vec(&document).expect("a string"));
            numbers(value);
            pack(&Batch::arbitrary_take_rest(Unstructured::new(&bytes)).expect("enough bytes for anything"));
            buckets(&Takes::arbitrary_take_rest(Unstructured::new(&bytes)).expect("enough bytes for anything"));
        }
    }
}
