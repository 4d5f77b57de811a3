//! `serde_json` values as nodes.

use serde_json::Value;
use tb_mqtt_core::json::{self, Node, Output, Shape, Text};

/// A value that can be written.
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

/// Return a value as JSON, without conversions.
pub fn written(value: &Value) -> Vec<u8> {
    let mut out = Output::default();
    json::write_value(&Tree(value.clone()), &mut out).expect("serde_json holds only what JSON has");
    out.bytes
}
