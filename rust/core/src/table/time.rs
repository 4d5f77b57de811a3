//! Times in Arrow's columns: as timestamps of datapoints, and as ISO 8601 text, which is what Python's `isoformat` writes.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float64Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt64Type,
};
use arrow_array::{Array, types};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};

const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// Days from the first of January of the year 1 to that of 1970, and of the year 10000.
const DAYS_BEFORE_EPOCH: i64 = 719_162;
const DAYS_TO_YEAR_10000: i64 = 2_932_897;

/// The column with the timestamps.
pub(super) struct Times<'a> {
    nulls: Option<&'a NullBuffer>,
    numbers: Numbers<'a>,
}

enum Numbers<'a> {
    /// Times since the epoch, and their unit.
    Since(&'a [i64], TimeUnit),
    /// Milliseconds.
    Int(&'a [i64]),
    UInt(&'a [u64]),
    Float(&'a [f64]),
    /// Only nulls, as in a table without rows whose types are guessed.
    None,
}

impl<'a> Times<'a> {
    /// Read a column. The error says what the column has, and what is allowed.
    pub fn new(array: &'a dyn Array) -> Result<Self, String> {
        let numbers = match array.data_type() {
            DataType::Timestamp(_, None) => {
                return Err(
                    "has times without a timezone; set that of the times in the table, for example UTC, before it is sent"
                        .to_owned(),
                );
            }
            DataType::Timestamp(unit, Some(_)) => Numbers::Since(timestamps(array, *unit), *unit),
            DataType::Int64 => Numbers::Int(array.as_primitive::<Int64Type>().values()),
            DataType::UInt64 => Numbers::UInt(array.as_primitive::<UInt64Type>().values()),
            DataType::Float64 => Numbers::Float(array.as_primitive::<Float64Type>().values()),
            DataType::Null => Numbers::None,
            kind => {
                return Err(format!(
                    "has the type {kind}, allowed are timestamps with a timezone, and milliseconds since the epoch as Int64, \
                     UInt64 or Float64"
                ));
            }
        };
        Ok(Self { nulls: array.nulls(), numbers })
    }

    /// Return the time of a row in milliseconds since the epoch, cut to whole ones; none for null and what 64 bits cannot express.
    #[inline]
    pub fn millis(&self, row: usize) -> Option<i64> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        match &self.numbers {
            Numbers::None => None,
            Numbers::Since(times, TimeUnit::Second) => times[row].checked_mul(1000),
            Numbers::Since(times, TimeUnit::Millisecond) | Numbers::Int(times) => Some(times[row]),
            Numbers::Since(times, TimeUnit::Microsecond) => Some(times[row].div_euclid(1000)),
            Numbers::Since(times, TimeUnit::Nanosecond) => Some(times[row].div_euclid(1_000_000)),
            Numbers::UInt(times) => times[row].try_into().ok(),
            Numbers::Float(times) => whole_millis(times[row]),
        }
    }

    /// Return the number of a row as text; none for null.
    pub fn text(&self, row: usize) -> Option<String> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        Some(match &self.numbers {
            Numbers::None => return None,
            Numbers::Since(times, unit) => moment(times[row], *unit, true).unwrap_or_else(|| times[row].to_string()),
            Numbers::Int(times) => times[row].to_string(),
            Numbers::UInt(times) => times[row].to_string(),
            Numbers::Float(times) => times[row].to_string(),
        })
    }
}

/// Cut to whole milliseconds, as the platform does with a decimal.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked, and cutting is intended"
)]
fn whole_millis(millis: f64) -> Option<i64> {
    (millis > i64::MIN as f64 && millis < i64::MAX as f64).then_some(millis as i64)
}

/// Return the numbers of a column of timestamps.
pub(super) fn timestamps(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

/// Return the numbers of a column of times of day, which have 32 bits.
pub(super) fn short_times(array: &dyn Array, unit: TimeUnit) -> &[i32] {
    if unit == TimeUnit::Second {
        array.as_primitive::<types::Time32SecondType>().values()
    } else {
        array.as_primitive::<types::Time32MillisecondType>().values()
    }
}

/// Return the numbers of a column of times of day, which have 64 bits.
pub(super) fn long_times(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    if unit == TimeUnit::Microsecond {
        array.as_primitive::<types::Time64MicrosecondType>().values()
    } else {
        array.as_primitive::<types::Time64NanosecondType>().values()
    }
}

/// Return a number of a unit as whole seconds and nanoseconds.
fn seconds(number: i64, unit: TimeUnit) -> (i64, i64) {
    let a_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOSECONDS,
    };
    (number.div_euclid(a_second), number.rem_euclid(a_second) * (NANOSECONDS / a_second))
}

/// Return a moment since the epoch as text: `2026-01-31T12:00:00`, with `+00:00` if it is in UTC. None outside of the years 1 to 9999.
pub(super) fn moment(number: i64, unit: TimeUnit, utc: bool) -> Option<String> {
    let (seconds, nanoseconds) = seconds(number, unit);
    let date = date(seconds.div_euclid(SECONDS_A_DAY))?;
    let time = clock(seconds.rem_euclid(SECONDS_A_DAY), nanoseconds);
    Some(format!("{date}T{time}{}", if utc { "+00:00" } else { "" }))
}

/// Return a time of day as text: `12:00:00`. None for what is not one.
pub(super) fn time_of_day(number: i64, unit: TimeUnit) -> Option<String> {
    let (seconds, nanoseconds) = seconds(number, unit);
    (0..SECONDS_A_DAY).contains(&seconds).then(|| clock(seconds, nanoseconds))
}

/// Return a day since the epoch as text: `2026-01-31`. None outside of the years 1 to 9999.
pub(super) fn date(days: i64) -> Option<String> {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    if !(-DAYS_BEFORE_EPOCH..DAYS_TO_YEAR_10000).contains(&days) {
        return None;
    }
    // Years that begin in March have the leap day at their end.
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// Return the day of a number of milliseconds as text, as `date` does.
pub(super) fn date_of_millis(millis: i64) -> Option<String> {
    date(millis.div_euclid(SECONDS_A_DAY * 1000))
}

/// Microseconds are written with six digits, nanoseconds with nine, and a whole second without any.
fn clock(seconds: i64, nanoseconds: i64) -> String {
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = match nanoseconds {
        0 => String::new(),
        _ if nanoseconds % 1000 == 0 => format!(".{:06}", nanoseconds / 1000),
        _ => format!(".{nanoseconds:09}"),
    };
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}
