//! Values are written as compact JSON with the same meaning.

mod common;

use common::{Tree, any_value, written};
use proptest::prelude::*;
use serde_json::{Value, json};
use tb_mqtt_core::json::{MAX_DEPTH, Output, write_value};
use tb_mqtt_core::key;
use tb_mqtt_core::points::PointIter;
use tb_mqtt_core::short::{HIGH, any_marked, append};

proptest! {
    /// Reading a written value returns an equal value.
    #[test]
    fn round_trip(value in any_value()) {
        let read: Value = serde_json::from_slice(&written(&value)).expect("valid JSON");
        prop_assert_eq!(read, value);
    }

    /// Strings are written as serde_json writes them: with the escapes that JSON requires and no others.
    #[test]
    fn strings_are_escaped_minimally(text in "\\PC*[\\x00-\\x7f]{0,40}\\PC*") {
        prop_assert_eq!(written(&Value::from(text.as_str())), serde_json::to_vec(&text).expect("a string"));
    }

    /// Points that follow each other are found again, for any keys and values.
    #[test]
    fn points_are_found_again(points in prop::collection::vec((any::<String>(), any_value()), 0..8)) {
        let points: Vec<_> = points.iter().map(|(key, value)| common::point(key, value)).collect();
        let found: Vec<_> = PointIter(&points.concat()).map(|point| point.bytes().to_vec()).collect();
        prop_assert_eq!(found, points);
    }

    /// A key is refused exactly when the platform would drop it, and is written like any other string otherwise.
    #[test]
    fn keys(key in "[ \t\u{a0}é<{}]{0,3}[a-zé<{}\u{7f}\u{80}😀 \"\\\\]{0,4}([a-z]{0,260}|😀{120,130})") {
        let blank = key.trim().is_empty();
        let control = key.chars().any(char::is_control);
        let letters: String = key.chars().filter(|character| !character.is_whitespace()).collect();
        let tag = ('a'..='z').any(|letter| letters.contains(&format!("<{letter}")));
        let template = key.find("{{").is_some_and(|open| key[open + 2..].contains("}}"));
        let sound = !(blank || control || tag || template) && key.encode_utf16().count() <= 255;
        prop_assert_eq!(key::validate(&key).is_ok(), sound);
        let mut out = Vec::new();
        prop_assert_eq!(key::write(&key, &mut out).is_ok(), sound);
        let mut expected = if sound { serde_json::to_vec(&key).expect("a string") } else { Vec::new() };
        expected.extend(sound.then_some(b':'));
        prop_assert_eq!(out, expected);
    }

    /// Texts of every length around those that are copied in two pieces are appended after what is there.
    #[test]
    fn short_texts_are_appended(before in prop::collection::vec(any::<u8>(), 0..40), text in prop::collection::vec(any::<u8>(), 0..70)) {
        let mut out = before.clone();
        append(&text, &mut out);
        prop_assert_eq!(out, [before, text].concat());
    }

    /// A marked byte is found at every place.
    #[test]
    fn marked_bytes_are_found(length in 0_usize..70, place in 0_usize..80) {
        let mut text = vec![1_u8; length];
        if let Some(byte) = text.get_mut(place) {
            *byte = 0xff;
        }
        prop_assert_eq!(any_marked(&text, |word| word & HIGH), place < length);
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |value, _| json!([value]))
}

#[test]
fn nesting_has_a_limit() {
    assert!(write_value(&Tree(nested(MAX_DEPTH)), &mut Output::default()).is_ok());
    let refusal = write_value(&Tree(nested(MAX_DEPTH + 1)), &mut Output::default()).expect_err("one too deep");
    assert_eq!(refusal.path(), format!("${}", "[0]".repeat(MAX_DEPTH)));
    assert!(refusal.reason().is_unsupported());
}

#[test]
fn floats_are_shortest() {
    let cases = [(0.1, "0.1"), (100.0, "100.0"), (-0.0, "-0.0"), (1e16, "1e+16"), (1e-7, "1e-7"), (5e-324, "5e-324")];
    for (value, text) in cases {
        assert_eq!(written(&Value::from(value)), text.as_bytes());
    }
}
