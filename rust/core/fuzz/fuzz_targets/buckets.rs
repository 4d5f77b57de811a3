//! No window admits more than its capacity and its refill, and after exactly the wait a take succeeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|takes: tb_mqtt_fuzz::Takes| tb_mqtt_fuzz::buckets(&takes));
