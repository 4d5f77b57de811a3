//! A float is written as one that the platform keeps as a number and that is as near as it can be, or is counted as text.
#![no_main]

libfuzzer_sys::fuzz_target!(|value: f64| tb_mqtt_fuzz::numbers(value));
