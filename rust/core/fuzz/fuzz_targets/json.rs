//! A value written as JSON is read as an equal value, and is found between other datapoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|document: &[u8]| tb_mqtt_fuzz::json(document));
