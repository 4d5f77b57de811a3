//! `serde_json` values as nodes, and uplinks with such values.
#![allow(dead_code, unused_imports, missing_docs, reason = "each test file uses its own part")]

mod tree;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tb_mqtt_core::json;
use tb_mqtt_core::points::{PointsBuilder, Timestamp, TooLarge};
use tb_mqtt_core::uplink::{Identity, Uplink};

pub use tree::{Tree, written};

/// `"key":value,`
pub fn point(key: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    json::write_str(key, &mut out);
    out.push(b':');
    out.extend(written(value));
    out.push(b',');
    out
}

/// The timestamp of a datapoint without one.
pub const NO_TS: i64 = i64::MIN;

/// One datapoint of a test: timestamp, key, value.
pub type Datapoint = (i64, String, Value);

pub fn uplink(device: Option<&Arc<Identity>>, datapoints: &[Datapoint]) -> Uplink {
    let mut builder = PointsBuilder::default();
    for (ts, key, value) in datapoints {
        let point = point(key, value);
        let end = point.len() - written(value).len() - 2;
        let timestamp = Timestamp::new(*ts).unwrap_or(Timestamp::NONE);
        builder.push_encoded(timestamp, &point[..end], &point).unwrap_or_else(|TooLarge| panic!("too large"));
    }
    Uplink {
        device: device.map(Arc::clone),
        timeseries: builder.finish(),
        extras: None,
        main_timestamp: Timestamp::NONE,
    }
}

pub fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}
