//! No window admits more than its capacity and its refill, and a take succeeds after exactly the returned wait.
#![no_main]

libfuzzer_sys::fuzz_target!(|takes: tb_mqtt_fuzz::Takes| tb_mqtt_fuzz::buckets(&takes));
