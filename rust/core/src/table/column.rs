//! Arrow's columns as JSON values.

use std::ops::Range;
use std::slice;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, BooleanArray, LargeStringArray, StringArray, StringViewArray};
use arrow_buffer::{ArrowNativeType, NullBuffer, i256};
use arrow_schema::{DataType, TimeUnit};

use super::time::{date, date_of_millis, long_times, moment, short_times, time_of_day, timestamps};
use crate::json::{Node, Shape, Text};
use crate::numbers::{Numbers, PLAIN};
use crate::short::{SHORT, any_marked, place};
use crate::small::{self, Room, escaped};

/// The types of columns with values, for errors.
pub(super) const SUPPORTED: &str = "numbers, decimals, booleans, text, dates, times, timestamps, and dictionaries, lists, structs \
                                    and maps of these, where maps have keys that are text";

/// Room for a value that [`Column::place_longer`] places: a text of [`SHORT`] bytes in quotes.
pub(super) const LONGER: usize = SHORT + 2;

/// One column, or the parts of one.
pub(super) struct Column<'a> {
    may_be_null: bool,
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Null,
    Bool(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float16(&'a [<Float16Type as arrow_array::ArrowPrimitiveType>::Native]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Decimal32(&'a [i32], i8),
    Decimal64(&'a [i64], i8),
    Decimal128(&'a [i128], i8),
    Decimal256(&'a [i256], i8),
    Date32(&'a [i32]),
    Date64(&'a [i64]),
    Time32(&'a [i32], TimeUnit),
    Time64(&'a [i64], TimeUnit),
    /// With whether the times are in UTC.
    Timestamp(&'a [i64], TimeUnit, bool),
    /// The indexes, and the values that they refer to.
    Dictionary(Box<[Column<'a>; 2]>),
    List(Bounds<'a>, Box<Column<'a>>),
    /// Names and columns.
    Struct(Vec<(Column<'a>, Column<'a>)>),
    /// Keys and values.
    Map(Bounds<'a>, Box<[Column<'a>; 2]>),
    /// The name of a field of a struct.
    Name(&'a str),
}

/// Where the elements of each list are.
enum Bounds<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
    SmallView(&'a [i32], &'a [i32]),
    LargeView(&'a [i64], &'a [i64]),
}

impl Bounds<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "Arrow's offsets are indexes into memory"
    )]
    fn of(&self, row: usize) -> Range<usize> {
        let from = |start: usize, length: usize| start..start + length;
        match self {
            Self::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Self::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Self::Fixed(length) => from(row * length, *length),
            Self::SmallView(offsets, sizes) => from(offsets[row] as usize, sizes[row] as usize),
            Self::LargeView(offsets, sizes) => from(offsets[row] as usize, sizes[row] as usize),
        }
    }
}

/// Places short values of a column. It is called with a function that places the value of a row, as those of [`small`] do.
pub(super) trait Placing {
    /// What comes of it.
    type Placed;

    /// Place values.
    fn with(self, place: impl Fn(usize, &mut Room) -> usize) -> Self::Placed;
}

/// Places one value, and returns its length, or 0.
struct One<'r> {
    row: usize,
    room: &'r mut Room,
}

impl Placing for One<'_> {
    type Placed = usize;

    #[inline]
    fn with(self, place: impl Fn(usize, &mut Room) -> usize) -> usize {
        place(self.row, self.room)
    }
}

impl<'a> Column<'a> {
    /// Read a column. The error is the type, or the type of a part, that is not supported.
    pub fn new(array: &'a dyn Array) -> Result<Self, DataType> {
        let (nulls, values) = (array.nulls(), Values::new(array)?);
        let may_be_null = nulls.is_some_and(|nulls| nulls.null_count() > 0)
            || match &values {
                Values::Null => true,
                Values::Dictionary(parts) => parts[1].may_be_null,
                _ => false,
            };
        Ok(Self { may_be_null, nulls, values })
    }

    /// Whether a row has no value.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.may_be_null && (self.nulls.is_some_and(|nulls| nulls.is_null(row)) || self.refers_to_null(row))
    }

    #[inline(never)]
    fn refers_to_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Null => true,
            Values::Dictionary(parts) => parts[1].is_null(parts[0].index(row)),
            _ => false,
        }
    }

    /// Whether all values are text or null.
    pub fn is_text(&self) -> bool {
        match &self.values {
            Values::Null | Values::Text(_) | Values::LargeText(_) | Values::TextView(_) => true,
            Values::Dictionary(parts) => parts[1].is_text(),
            _ => false,
        }
    }

    /// Return the text of a row; none for null and for what is not text.
    #[inline]
    pub fn text(&self, row: usize) -> Option<&str> {
        if self.is_null(row) {
            return None;
        }
        match &self.values {
            Values::Text(texts) => Some(texts.value(row)),
            Values::LargeText(texts) => Some(texts.value(row)),
            Values::TextView(texts) => Some(texts.value(row)),
            Values::Dictionary(parts) => parts[1].text(parts[0].index(row)),
            Values::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Let `placing` place the JSON of rows that are not null, if it is short and easily made.
    pub fn with_place<P: Placing>(&self, placing: P) -> P::Placed {
        match &self.values {
            Values::Float64(numbers) => placing.with(|row, room| small::reading(numbers[row], room)),
            Values::Int64(numbers) => placing.with(|row, room| small::int(numbers[row], room)),
            Values::Text(texts) => {
                let (offsets, data) = (texts.value_offsets(), texts.value_data());
                placing.with(|row, room| place_text(data, offsets[row].as_usize(), offsets[row + 1].as_usize(), room))
            }
            Values::Bool(values) => placing.with(|row, room| small::boolean(values.value(row), room)),
            Values::Int32(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            Values::LargeText(texts) => {
                let (offsets, data) = (texts.value_offsets(), texts.value_data());
                placing.with(|row, room| place_text(data, offsets[row].as_usize(), offsets[row + 1].as_usize(), room))
            }
            Values::TextView(texts) => placing.with(|row, room| place_view(texts.views()[row], room)),
            Values::Int16(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            Values::Int8(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            Values::UInt8(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            Values::UInt16(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            Values::UInt32(numbers) => placing.with(|row, room| small::int(numbers[row].into(), room)),
            _ => placing.with(|_, _| 0),
        }
    }

    /// Place the JSON of a row that is not null, if it is a number or a text of not many bytes. Return its length, or 0.
    #[inline(never)]
    pub fn place_longer(&self, row: usize, room: &mut [u8; LONGER], conversions: &mut Numbers) -> usize {
        match &self.values {
            Values::Float64(numbers) => place_float(numbers[row], room, conversions),
            Values::Float32(numbers) if PLAIN.contains(&f64::from(numbers[row].abs())) => {
                place_number(zmij::Buffer::new().format_finite(numbers[row]), room)
            }
            Values::Int64(numbers) => place_number(itoa::Buffer::new().format(numbers[row]), room),
            Values::UInt64(numbers) if i64::try_from(numbers[row]).is_ok() => {
                place_number(itoa::Buffer::new().format(numbers[row]), room)
            }
            Values::Text(_) | Values::LargeText(_) | Values::TextView(_) => match self.text(row).map(str::as_bytes) {
                Some(text) if text.len() <= SHORT && !any_marked(text, escaped) => {
                    room[0] = b'"';
                    place(text, room, 1);
                    room[text.len() + 1] = b'"';
                    text.len() + 2
                }
                _ => 0,
            },
            Values::Dictionary(parts) => {
                let (values, index) = (&parts[1], parts[0].index(row));
                let length = room.first_chunk_mut().map_or(0, |room| values.with_place(One { row: index, room }));
                if length > 0 { length } else { values.place_longer(index, room, conversions) }
            }
            _ => 0,
        }
    }

    /// Return a number of a column of integers as an index.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Arrow's keys are indexes into memory")]
    #[inline]
    fn index(&self, row: usize) -> usize {
        match &self.values {
            Values::Int8(keys) => keys[row] as usize,
            Values::Int16(keys) => keys[row] as usize,
            Values::Int32(keys) => keys[row] as usize,
            Values::Int64(keys) => keys[row] as usize,
            Values::UInt8(keys) => keys[row] as usize,
            Values::UInt16(keys) => keys[row] as usize,
            Values::UInt32(keys) => keys[row] as usize,
            Values::UInt64(keys) => keys[row] as usize,
            _ => 0,
        }
    }
}

impl<'a> Values<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, DataType> {
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int8 => Self::Int8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Self::Int16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Self::UInt8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Self::UInt16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Self::UInt32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Self::UInt64(array.as_primitive::<UInt64Type>().values()),
            DataType::Float16 => Self::Float16(array.as_primitive::<Float16Type>().values()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().values()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string()),
            DataType::Utf8View => Self::TextView(array.as_string_view()),
            DataType::Decimal32(_, scale) => Self::Decimal32(array.as_primitive::<Decimal32Type>().values(), *scale),
            DataType::Decimal64(_, scale) => Self::Decimal64(array.as_primitive::<Decimal64Type>().values(), *scale),
            DataType::Decimal128(_, scale) => Self::Decimal128(array.as_primitive::<Decimal128Type>().values(), *scale),
            DataType::Decimal256(_, scale) => Self::Decimal256(array.as_primitive::<Decimal256Type>().values(), *scale),
            DataType::Date32 => Self::Date32(array.as_primitive::<Date32Type>().values()),
            DataType::Date64 => Self::Date64(array.as_primitive::<Date64Type>().values()),
            DataType::Time32(unit) => Self::Time32(short_times(array, *unit), *unit),
            DataType::Time64(unit) => Self::Time64(long_times(array, *unit), *unit),
            DataType::Timestamp(unit, zone) => Self::Timestamp(timestamps(array, *unit), *unit, zone.is_some()),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let parts = [Column::new(dictionary.keys())?, Column::new(dictionary.values().as_ref())?];
                Self::Dictionary(Box::new(parts))
            }
            _ => Self::nested(array)?,
        })
    }

    fn nested(array: &'a dyn Array) -> Result<Self, DataType> {
        let list = |bounds, elements: &'a dyn Array| Ok(Self::List(bounds, Box::new(Column::new(elements)?)));
        match array.data_type() {
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                list(Bounds::Small(lists.value_offsets()), lists.values().as_ref())
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                list(Bounds::Large(lists.value_offsets()), lists.values().as_ref())
            }
            DataType::ListView(_) => {
                let lists = array.as_list_view::<i32>();
                list(Bounds::SmallView(lists.value_offsets(), lists.value_sizes()), lists.values().as_ref())
            }
            DataType::LargeListView(_) => {
                let lists = array.as_list_view::<i64>();
                list(Bounds::LargeView(lists.value_offsets(), lists.value_sizes()), lists.values().as_ref())
            }
            DataType::FixedSizeList(_, length) => {
                let lists = array.as_fixed_size_list();
                list(Bounds::Fixed(usize::try_from(*length).unwrap_or_default()), lists.values().as_ref())
            }
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns()).map(|(field, column)| {
                    let name = Column { may_be_null: false, nulls: None, values: Values::Name(field.name()) };
                    Ok((name, Column::new(column.as_ref())?))
                });
                columns.collect::<Result<_, _>>().map(Self::Struct)
            }
            DataType::Map(..) => {
                let maps = array.as_map();
                let parts = [Column::new(maps.keys().as_ref())?, Column::new(maps.values().as_ref())?];
                if !parts[0].is_text() {
                    return Err(array.data_type().clone());
                }
                Ok(Self::Map(Bounds::Small(maps.value_offsets()), Box::new(parts)))
            }
            other => Err(other.clone()),
        }
    }

    #[inline(never)]
    fn shape(&'a self, row: usize) -> Shape<'a, Cell<'a>> {
        // None is a time that Python, and so the rest of this package, cannot express.
        let text = |text: Option<String>| text.map_or(Shape::Unsupported, Shape::OwnText);
        match self {
            Self::Float16(numbers) => Shape::ShortFloat(numbers[row].to_f32()),
            Self::Name(name) => Shape::Text(name),
            Self::Decimal32(numbers, scale) => Shape::Decimal(decimal(&numbers[row].to_string(), *scale)),
            Self::Decimal64(numbers, scale) => Shape::Decimal(decimal(&numbers[row].to_string(), *scale)),
            Self::Decimal128(numbers, scale) => Shape::Decimal(decimal(&numbers[row].to_string(), *scale)),
            Self::Decimal256(numbers, scale) => Shape::Decimal(decimal(&numbers[row].to_string(), *scale)),
            Self::Date32(days) => text(date(i64::from(days[row]))),
            Self::Date64(millis) => text(date_of_millis(millis[row])),
            Self::Time32(times, unit) => text(time_of_day(i64::from(times[row]), *unit)),
            Self::Time64(times, unit) => text(time_of_day(times[row], *unit)),
            Self::Timestamp(times, unit, utc) => text(moment(times[row], *unit, *utc)),
            Self::List(bounds, column) => Shape::List(Items { column, rows: bounds.of(row) }),
            Self::Struct(fields) => Shape::Dict(Pairs::Struct(fields.iter(), row)),
            Self::Map(bounds, parts) => Shape::Dict(Pairs::Map(parts, bounds.of(row))),
            _ => Shape::Unsupported,
        }
    }

    /// Return a value as text, for errors.
    fn describe(&self, row: usize) -> String {
        match self {
            Self::Date32(numbers) | Self::Time32(numbers, _) => numbers[row].to_string(),
            Self::Date64(numbers) | Self::Time64(numbers, _) | Self::Timestamp(numbers, ..) => numbers[row].to_string(),
            _ => String::new(),
        }
    }
}

/// Return a decimal in plain notation: the number with these digits, divided by 10 to the power of `scale`.
fn decimal(number: &str, scale: i8) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let places = usize::from(scale.unsigned_abs());
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { places };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    format!("{sign}{whole}.{fraction}")
}

/// Place the text between two indexes of the texts of a column, if it is short.
#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
fn place_text(texts: &[u8], start: usize, end: usize, room: &mut Room) -> usize {
    // The bytes are those of the text and of texts that follow. At the end of all texts there are not enough.
    texts.get(start..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| small::string(*bytes, end - start, room))
}

/// Place the text of a view, if the view has all of it: its length in the lower 32 bits, and at most 12 bytes.
#[expect(clippy::cast_possible_truncation, reason = "only the lower bits are the length")]
#[inline]
fn place_view(view: u128, room: &mut Room) -> usize {
    const LONGEST: u32 = 12;
    let length = view as u32;
    if length > LONGEST { 0 } else { small::string((view >> u32::BITS).to_le_bytes(), length.as_usize(), room) }
}

/// Place a float, by the rules of [`crate::json::write_value`]; nothing for one that is not finite.
fn place_float(mut value: f64, room: &mut [u8; LONGER], conversions: &mut Numbers) -> usize {
    if !PLAIN.contains(&value.abs()) {
        if !value.is_finite() {
            return 0;
        }
        value = conversions.unusual_float(value);
    }
    place_number(zmij::Buffer::new().format_finite(value), room)
}

fn place_number(text: &str, room: &mut [u8; LONGER]) -> usize {
    place(text.as_bytes(), room, 0);
    text.len()
}

/// One value of a column.
pub(super) struct Cell<'a> {
    pub column: &'a Column<'a>,
    pub row: usize,
}

impl<'a> Node for Cell<'a> {
    type Items = Items<'a>;
    type Pairs = Pairs<'a>;

    #[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
    #[inline(always)]
    fn shape(&self) -> Shape<'_, Self> {
        shape_at(self.column, self.row)
    }

    fn text(&self) -> Text<'_> {
        self.column.text(self.row).map_or(Text::Other, Text::Sound)
    }

    fn describe(&self) -> (String, String) {
        ("a time outside of the years 1 to 9999".to_owned(), self.column.values.describe(self.row))
    }
}

#[expect(clippy::inline_always, reason = "measured: it is called for every datapoint")]
#[inline(always)]
fn shape_at<'a>(column: &'a Column<'a>, row: usize) -> Shape<'a, Cell<'a>> {
    if column.is_null(row) {
        return Shape::Null;
    }
    match &column.values {
        Values::Float64(numbers) => Shape::Float(numbers[row]),
        Values::Int64(numbers) => Shape::Int(numbers[row]),
        Values::Text(texts) => Shape::Text(texts.value(row)),
        Values::Bool(values) => Shape::Bool(values.value(row)),
        Values::Int32(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::Float32(numbers) => Shape::ShortFloat(numbers[row]),
        Values::LargeText(texts) => Shape::Text(texts.value(row)),
        Values::TextView(texts) => Shape::Text(texts.value(row)),
        Values::Int16(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::Int8(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::UInt8(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::UInt16(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::UInt32(numbers) => Shape::Int(i64::from(numbers[row])),
        Values::UInt64(numbers) => match i64::try_from(numbers[row]) {
            Ok(number) => Shape::Int(number),
            Err(_) => Shape::Digits(numbers[row].to_string()),
        },
        Values::Dictionary(parts) => entry_shape(parts, row),
        values => values.shape(row),
    }
}

/// Not inlined, because it calls the function that is inlined everywhere.
#[inline(never)]
fn entry_shape<'a>(parts: &'a [Column<'a>; 2], row: usize) -> Shape<'a, Cell<'a>> {
    shape_at(&parts[1], parts[0].index(row))
}

/// Elements of a list.
pub(super) struct Items<'a> {
    column: &'a Column<'a>,
    rows: Range<usize>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        let column = self.column;
        self.rows.next().map(|row| Cell { column, row })
    }
}

/// Keys and values of a struct or a map.
pub(super) enum Pairs<'a> {
    Struct(slice::Iter<'a, (Column<'a>, Column<'a>)>, usize),
    Map(&'a [Column<'a>; 2], Range<usize>),
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cell<'a>, Cell<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Struct(fields, row) => {
                let row = *row;
                fields.next().map(|(name, column)| (Cell { column: name, row: 0 }, Cell { column, row }))
            }
            Self::Map([keys, values], rows) => {
                rows.next().map(|row| (Cell { column: keys, row }, Cell { column: values, row }))
            }
        }
    }
}
