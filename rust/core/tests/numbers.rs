//! A float of too many places is rounded if six digits are left; every other value is written in its shortest form.

mod common;

use common::{Tree, any_value, written};
use proptest::prelude::*;
use serde_json::{Value, json};
use tb_mqtt_core::json::{Output, write_value};
use tb_mqtt_core::numbers::{Conversions, MAX_PLACES, Numbers, float_of, may_become_text};

const NOTHING: Conversions = Conversions { rounded: 0, as_text: 0 };
const ROUNDED: Conversions = Conversions { rounded: 1, as_text: 0 };
const AS_TEXT: Conversions = Conversions { rounded: 0, as_text: 1 };
const LARGE: f64 = 9_223_372_036_854_775_808.0;

/// Return the text that a client writes for a value, and the conversions that it counts.
fn datapoint(value: &Value, round: bool) -> (String, Conversions) {
    let mut out = Output { numbers: Numbers::new(round), ..Output::default() };
    write_value(&Tree(value.clone()), &mut out).expect("serde_json holds only what JSON has");
    (String::from_utf8(out.bytes).expect("JSON is UTF-8"), out.numbers.conversions())
}

fn shortest(value: &Value) -> String {
    String::from_utf8(written(value)).expect("JSON is UTF-8")
}

/// Return the decimal places in plain notation, as the platform counts them: those of the text minus its exponent.
fn places(text: &str) -> i32 {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    i32::try_from(fraction).expect("a few") - exponent.parse::<i32>().expect("an exponent")
}

/// Floats of all magnitudes, most of them near the limits of a rule.
fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        -1.0..1.0,
        (-1.0..1.0, -330..20).prop_map(|(digits, exponent)| digits * 10_f64.powi(exponent)),
        (0.999_99..1.000_01).prop_map(|near| near * 1e-11),
        // Ties: the place after the last one is a 5, and no digit follows it.
        (0..1 << 17).prop_map(|numerator| f64::from(numerator) / 131_072.0),
        // Floats of at most sixteen places, and their neighbours.
        (0_u32..1 << 30, -10..10_i64).prop_map(|(units, steps)| {
            let bits = (f64::from(units) / 1e16).to_bits();
            f64::from_bits(bits.saturating_add_signed(steps))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A float of at most 16 places is written in its shortest form and not counted, and no other is left uncounted.
    #[test]
    fn only_long_floats_are_converted(value in floats(), round in any::<bool>()) {
        let shortest = shortest(&Value::from(value));
        let (text, conversions) = datapoint(&Value::from(value), round);
        let stays_number = places(&shortest) <= 16 && value.abs() < LARGE;
        prop_assert_eq!(conversions == NOTHING, stays_number);
        if stays_number {
            prop_assert_eq!(text, shortest);
        }
    }

    /// A rounded float is the one nearest to the exact value rounded to 16 places, and six digits or more are left of it.
    /// Floats that are not rounded are written in their shortest form.
    #[test]
    fn rounded_to_the_nearest(value in floats()) {
        let (text, conversions) = datapoint(&Value::from(value), true);
        let nearest = format!("{value:.16}");
        let digits_left = nearest.trim_start_matches(['-', '0', '.']).len();
        if conversions == ROUNDED {
            let float: f64 = nearest.parse().expect("a number");
            prop_assert_eq!(&text, &shortest(&Value::from(float)));
            prop_assert!(places(&text) <= 16 && digits_left >= 6);
        } else {
            prop_assert_eq!(text, shortest(&Value::from(value)));
            prop_assert!(conversions == NOTHING || digits_left < 6 || value.abs() >= LARGE);
        }
    }

    /// A written float is read and written again as the same bytes.
    #[test]
    fn rounding_once_is_enough(value in floats()) {
        let (text, conversions) = datapoint(&Value::from(value), true);
        let again = datapoint(&Value::from(text.parse::<f64>().expect("a number")), true);
        prop_assert_eq!(again, (text, Conversions { rounded: 0, ..conversions }));
    }

    /// With rounding switched off, every float is written in its shortest form, and numbers that become text are counted.
    #[test]
    fn rounding_can_be_switched_off(value in floats()) {
        let (_, conversions) = datapoint(&Value::from(value), true);
        let expected = if conversions == NOTHING { NOTHING } else { AS_TEXT };
        prop_assert_eq!(datapoint(&Value::from(value), false), (shortest(&Value::from(value)), expected));
    }

    /// An encoded value is encoded again whenever that could make a difference.
    #[test]
    fn encoded_values(value in prop_oneof![floats().prop_map(Value::from), any_value()], round in any::<bool>()) {
        let json = written(&value);
        if !may_become_text(&json) {
            prop_assert_eq!(datapoint(&value, round), (shortest(&value), NOTHING));
        }
        prop_assert_eq!(float_of(&json).map(f64::to_bits), value.as_f64().filter(|_| value.is_f64()).map(f64::to_bits));
    }

    /// Floats, and all other values, in lists and dicts are not changed.
    #[test]
    fn nested_values_are_not_converted(value in any_value(), float in floats()) {
        for value in [json!([float]), json!({ "a": [float] }), json!([value])] {
            prop_assert_eq!(datapoint(&value, true), (shortest(&value), NOTHING));
        }
    }
}

#[test]
fn floats_by_hand() {
    let cases = [
        (0.1 + 0.2, "0.3", ROUNDED),
        (1.0 / 3.0, "0.3333333333333333", NOTHING),
        (-1.0 / 7.0, "-0.1428571428571428", ROUNDED),
        (0.499_999_999_999_999_94, "0.4999999999999999", ROUNDED),
        (2.0 / 3.0, "0.6666666666666666", NOTHING),
        (0.0, "0.0", NOTHING),
        (-0.0, "-0.0", NOTHING),
        (1e-7, "1e-7", NOTHING),
        (1.234_567_890_123_4e-6, "1.2345678901e-6", ROUNDED),
        // Ties go to the even neighbour: 76293945312.5 and 228881835937.5 units.
        (1.0 / 131_072.0, "7.6293945312e-6", ROUNDED),
        (3.0 / 131_072.0, "0.0000228881835938", ROUNDED),
        // Six digits are left of the first three, five of the others.
        (1e-11, "1e-11", NOTHING),
        (1.000_001e-11, "1e-11", ROUNDED),
        (9.999_996e-12, "1e-11", ROUNDED),
        (9.999_94e-12, "9.99994e-12", AS_TEXT),
        (1.5e-12, "1.5e-12", NOTHING),
        (1e-16, "1e-16", NOTHING),
        (1e-17, "1e-17", AS_TEXT),
        (1e-20, "1e-20", AS_TEXT),
        (5e-324, "5e-324", AS_TEXT),
        (-f64::MIN_POSITIVE, "-2.2250738585072014e-308", AS_TEXT),
        // Integers with an exponent: of 64 bits, and beyond.
        (1e16, "1e+16", NOTHING),
        (9_223_372_036_854_774_784.0, "9.223372036854775e+18", NOTHING),
        (9_223_372_036_854_775_808.0, "9.223372036854776e+18", AS_TEXT),
        (f64::MIN, "-1.7976931348623157e+308", AS_TEXT),
    ];
    for (value, text, conversions) in cases {
        assert_eq!(datapoint(&Value::from(value), true), (text.to_owned(), conversions), "{value:e}");
        assert!(conversions == NOTHING || may_become_text(&written(&Value::from(value))), "{value:e}");
    }
}

#[test]
fn integers_beyond_64_bits_are_counted() {
    let cases =
        [(json!(i64::MAX), NOTHING), (json!(i64::MIN), NOTHING), (json!(u64::MAX), AS_TEXT), (json!("1e-20"), NOTHING)];
    for (value, conversions) in cases {
        assert_eq!(datapoint(&value, true), (shortest(&value), conversions));
    }
}

#[test]
fn places_are_those_of_plain_notation() {
    for (text, expected) in [("0.5", 1), ("1e-20", 20), ("1.5e-10", 11), ("1e+16", -16), ("1.25e+16", -14)] {
        assert_eq!(places(text), expected);
    }
    assert_eq!(MAX_PLACES, 16);
}
