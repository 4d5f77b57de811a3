//! A float is written as the nearest one that the platform stores as a number, or is counted as text.
#![no_main]

libfuzzer_sys::fuzz_target!(|value: f64| tb_mqtt_fuzz::numbers(value));
