//! Telemetry for the benchmarks and the example: the shapes of `tests/corpora.py`, equal in every run.
#![allow(dead_code, reason = "each program uses its own part")]

use std::iter;
use std::sync::Arc;

use tb_mqtt_core::json::{self, Node, Output, Refusal, Shape, Text};
use tb_mqtt_core::points::{PointsBuilder, Timestamp, TooLarge};
use tb_mqtt_core::uplink::{Identity, Uplink};

/// The timestamp of the first record, in milliseconds.
pub const FIRST_TS: i64 = 1_700_000_000_000;
/// Keys of a record.
pub const KEYS: [&str; 10] = [
    "cpu_percent",
    "memory_used_bytes",
    "temperature",
    "humidity",
    "pressure_hpa",
    "status",
    "online",
    "packets_received",
    "battery_voltage",
    "signal_dbm",
];
const STATES: [&str; 4] = ["idle", "running", "überlastet", "error: \"E7\""];

/// A value without lists and dicts.
#[derive(Debug, Clone)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(&'static str),
    /// True or false.
    Bool(bool),
}

impl Node for Value {
    type Items = iter::Empty<Self>;
    type Pairs = iter::Empty<(Self, Self)>;

    fn shape(&self) -> Shape<'_, Self> {
        match self {
            Self::Int(value) => Shape::Int(*value),
            Self::Float(value) => Shape::Float(*value),
            Self::Text(text) => Shape::Text(text),
            Self::Bool(value) => Shape::Bool(*value),
        }
    }

    fn text(&self) -> Text<'_> {
        if let Self::Text(text) = self { Text::Sound(text) } else { Text::Other }
    }

    fn describe(&self) -> (String, String) {
        ("Value".to_owned(), format!("{self:?}"))
    }
}

/// Why a send cannot be encoded.
#[derive(Debug)]
pub enum Failure {
    /// A value cannot be written as JSON.
    Refused(Refusal),
    /// The send is larger than 4 GiB.
    TooLarge,
}

impl From<TooLarge> for Failure {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// One record: a timestamp and a value for each key.
pub type Record = (i64, Vec<Value>);

/// A send: the number of its device, and its records.
pub type Send = (usize, Vec<Record>);

/// Random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("less than end")
    }

    /// A number with this many steps to the unit.
    fn between(&mut self, low: i32, high: i32, steps: i32) -> f64 {
        let span = u32::try_from((high - low) * steps).expect("low is below high");
        f64::from(low) + f64::from(self.below(span)) / f64::from(steps)
    }

    /// A number with all digits.
    fn fraction(&mut self) -> f64 {
        f64::from(self.below(u32::MAX)) / f64::from(u32::MAX)
    }
}

fn values(dice: &mut Dice) -> Vec<Value> {
    vec![
        Value::Float(dice.between(0, 100, 10)),
        Value::Int(i64::from(dice.below(u32::MAX)) * 4),
        Value::Float(dice.fraction() * 60.0 - 20.0),
        Value::Float(dice.between(20, 90, 100)),
        Value::Float(dice.between(980, 1040, 10)),
        Value::Text(STATES[dice.below(4) as usize]),
        Value::Bool(dice.below(10) > 0),
        Value::Int(i64::from(dice.below(1_000_000_000))),
        Value::Float(3.0 + dice.fraction() * 1.2),
        Value::Int(-30 - i64::from(dice.below(80))),
    ]
}

/// Return sends of `datapoints` datapoints each, ten keys for each timestamp, for the devices in turn.
#[must_use]
pub fn telemetry(sends: usize, datapoints: usize, devices: usize) -> Vec<Send> {
    let mut dice = Dice(7);
    let mut ts = FIRST_TS - 1;
    let mut record = || {
        ts += 1;
        (ts, values(&mut dice))
    };
    (0..sends).map(|send| (send % devices, (0..datapoints / KEYS.len()).map(|_| record()).collect())).collect()
}

/// Return the identities of the devices of a corpus.
#[must_use]
pub fn identities(devices: usize) -> Vec<Arc<Identity>> {
    (0..devices).map(|number| Arc::new(Identity::new(&format!("device {number}"), "default"))).collect()
}

/// Encode one send.
///
/// # Errors
/// When a value is refused, or the send is too large.
pub fn encode(
    builder: &mut PointsBuilder,
    device: Option<&Arc<Identity>>,
    records: &[Record],
) -> Result<Uplink, Failure> {
    for (ts, values) in records {
        let timestamp = Timestamp::new(*ts).unwrap_or(Timestamp::NONE);
        builder.push_run(timestamp, |out: &mut Output| {
            for (key, value) in KEYS.iter().zip(values) {
                json::write_str(key, &mut out.bytes);
                out.bytes.push(b':');
                json::write_value(value, out)?;
                out.bytes.push(b',');
            }
            Ok::<_, Failure>(values.len())
        })?;
    }
    let timeseries = builder.finish();
    Ok(Uplink { device: device.cloned(), timeseries, extras: None, main_timestamp: Timestamp::NONE })
}

/// Encode all sends of a corpus; without identities they are those of the connected device.
///
/// # Errors
/// As [`encode`].
pub fn encode_all(sends: &[Send], identities: &[Arc<Identity>]) -> Result<Vec<Uplink>, Failure> {
    let mut builder = PointsBuilder::default();
    sends.iter().map(|(device, records)| encode(&mut builder, identities.get(*device), records)).collect()
}
