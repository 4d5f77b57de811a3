//! `serde_json` values as nodes, and uplinks made of them.
#![allow(dead_code, missing_docs, reason = "each test file uses its own part")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tb_mqtt_core::json::{self, Node, Output, Shape, Text};
use tb_mqtt_core::points::{PointsBuilder, Timestamp, TooLarge};
use tb_mqtt_core::uplink::{Identity, Uplink};

pub struct Tree(pub Value);

impl Node for Tree {
    type Items = std::vec::IntoIter<Self>;
    type Pairs = std::vec::IntoIter<(Self, Self)>;

    fn shape(&self) -> Shape<'_, Self> {
        match &self.0 {
            Value::Null => Shape::Null,
            Value::Bool(value) => Shape::Bool(*value),
            Value::Number(number) => number.as_i64().map_or_else(
                || number.as_f64().filter(|_| number.is_f64()).map_or(Shape::Digits(number.to_string()), Shape::Float),
                Shape::Int,
            ),
            Value::String(text) => Shape::Text(text),
            Value::Array(items) => Shape::List(items.iter().cloned().map(Tree).collect::<Vec<_>>().into_iter()),
            Value::Object(pairs) => {
                let tree = |(key, value): (&String, &Value)| (Tree(Value::from(key.as_str())), Tree(value.clone()));
                Shape::Dict(pairs.iter().map(tree).collect::<Vec<_>>().into_iter())
            }
        }
    }

    fn text(&self) -> Text<'_> {
        self.0.as_str().map_or(Text::Other, Text::Sound)
    }

    fn describe(&self) -> (String, String) {
        ("Value".to_owned(), self.0.to_string())
    }
}

pub fn written(value: &Value) -> Vec<u8> {
    let mut out = Output::default();
    json::write_value(&Tree(value.clone()), &mut out).expect("serde_json holds only what JSON has");
    out.bytes
}

/// `"key":value,`
pub fn point(key: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    json::write_str(key, &mut out);
    out.push(b':');
    out.extend(written(value));
    out.push(b',');
    out
}

/// One datapoint of a test: timestamp, key, value.
pub type Datapoint = (i64, String, Value);

pub fn uplink(device: Option<&Arc<Identity>>, datapoints: &[Datapoint]) -> Uplink {
    let mut builder = PointsBuilder::default();
    for (ts, key, value) in datapoints {
        let point = point(key, value);
        let end = point.len() - written(value).len() - 2;
        let timestamp = Timestamp::new(*ts).expect("a real timestamp");
        builder.push_encoded(timestamp, &point[..end], &point).unwrap_or_else(|TooLarge| panic!("too large"));
    }
    Uplink {
        device: device.map(Arc::clone),
        timeseries: builder.finish(),
        attributes: None,
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
