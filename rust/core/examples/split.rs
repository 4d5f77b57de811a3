//! Read telemetry from stdin and write payloads, one a line: `cargo run --release --example split -- [BYTES]`.
//!
//! Each line of the input is one send, `{"device": NAME, "ts": MS, "values": {...}}`; without `device` it is data of the connected
//! device itself. `BYTES` limits a payload; the default is 65,000.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, BufRead, BufWriter, Write};
use std::sync::Arc;

use serde_json::Value;
use tb_mqtt_core::group::Kind;
use tb_mqtt_core::json::{self, Node, Output, Refusal, Shape, Text};
use tb_mqtt_core::key;
use tb_mqtt_core::pack::{Limits, pack};
use tb_mqtt_core::points::{PointsBuilder, Timestamp, TooLarge};
use tb_mqtt_core::sink::Layout;
use tb_mqtt_core::uplink::{Identity, Uplink};

/// A parsed value, which the core writes without knowing how it was parsed.
struct Parsed<'a>(Part<'a>);

enum Part<'a> {
    Value(&'a Value),
    Key(&'a str),
}

fn item(value: &Value) -> Parsed<'_> {
    Parsed(Part::Value(value))
}

fn pair<'a>((key, value): (&'a String, &'a Value)) -> (Parsed<'a>, Parsed<'a>) {
    (Parsed(Part::Key(key)), item(value))
}

impl<'a> Node for Parsed<'a> {
    type Items = std::iter::Map<std::slice::Iter<'a, Value>, fn(&'a Value) -> Self>;
    type Pairs = std::iter::Map<serde_json::map::Iter<'a>, fn((&'a String, &'a Value)) -> (Self, Self)>;

    fn shape(&self) -> Shape<'_, Self> {
        match self.0 {
            Part::Key(text) => Shape::Text(text),
            Part::Value(Value::Null) => Shape::Null,
            Part::Value(Value::Bool(value)) => Shape::Bool(*value),
            Part::Value(Value::String(text)) => Shape::Text(text),
            Part::Value(Value::Array(items)) => Shape::List(items.iter().map(item as fn(&'a Value) -> Self)),
            Part::Value(Value::Object(pairs)) => {
                Shape::Dict(pairs.iter().map(pair as fn((&'a String, &'a Value)) -> (Self, Self)))
            }
            Part::Value(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Shape::Int(value),
                (None, Some(value)) if number.is_f64() => Shape::Float(value),
                _ => Shape::Digits(number.to_string()),
            },
        }
    }

    fn text(&self) -> Text<'_> {
        match self.0 {
            Part::Key(text) => Text::Sound(text),
            Part::Value(value) => value.as_str().map_or(Text::Other, Text::Sound),
        }
    }

    fn describe(&self) -> (String, String) {
        match self.0 {
            Part::Key(text) => ("key".to_owned(), text.to_owned()),
            Part::Value(value) => ("value".to_owned(), value.to_string()),
        }
    }
}

/// An error of one line.
#[derive(Debug)]
struct Failure(String);

impl From<TooLarge> for Failure {
    fn from(error: TooLarge) -> Self {
        Self(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(format!("{}: {:?}", refusal.path(), refusal.reason()))
    }
}

/// Encode one line of the input.
fn encode(
    line: &Value,
    builder: &mut PointsBuilder,
    devices: &mut HashMap<String, Arc<Identity>>,
) -> Result<Uplink, Failure> {
    let values = line.get("values").and_then(Value::as_object).ok_or_else(|| Failure("no values".to_owned()))?;
    let timestamp = line.get("ts").and_then(Value::as_i64).and_then(Timestamp::new).unwrap_or(Timestamp::NONE);
    let device = line.get("device").and_then(Value::as_str).map(|name| {
        Arc::clone(devices.entry(name.to_owned()).or_insert_with(|| Arc::new(Identity::new(name, "default"))))
    });
    builder.push_run(timestamp, |out: &mut Output| {
        for (name, value) in values {
            key::write(name, &mut out.bytes).map_err(|refusal| Failure(format!("{name:?}: {refusal:?}")))?;
            json::write_value(&item(value), out)?;
            out.bytes.push(b',');
        }
        Ok::<_, Failure>(values.len())
    })?;
    let timeseries = builder.finish();
    Ok(Uplink { device, timeseries, extras: None, main_timestamp: Timestamp::NONE })
}

fn main() -> Result<(), Box<dyn Error>> {
    let max_size = std::env::args().nth(1).map_or(Ok(65_000), |text| text.parse())?;
    let mut builder = PointsBuilder::default();
    let mut devices = HashMap::new();
    let mut uplinks = Vec::new();
    for (index, line) in io::stdin().lock().lines().enumerate() {
        let encoded = encode(&serde_json::from_str(&line?)?, &mut builder, &mut devices);
        uplinks.push(encoded.map_err(|Failure(reason)| format!("line {}: {reason}", index + 1))?);
    }
    let layout = Layout { kind: Kind::Timeseries, gateway: !devices.is_empty() };
    let uplinks: Vec<_> = uplinks.iter().collect();
    let packed = pack(&uplinks, layout, Limits::with_zero_as_unlimited(max_size, 0, 0), None)
        .map_err(|misfit| misfit.to_string())?;
    let mut out = BufWriter::new(io::stdout().lock());
    for part in &packed.parts {
        out.write_all(&part.output)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    for one in &packed.oversized {
        eprintln!("line {}: a payload with this datapoint alone has {} bytes", one.uplink + 1, one.size);
    }
    eprintln!(
        "{} sends, {} datapoints, {} payloads",
        uplinks.len(),
        packed.parts.iter().map(|part| part.datapoints).sum::<usize>(),
        packed.parts.len()
    );
    Ok(())
}
