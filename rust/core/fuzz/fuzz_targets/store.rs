//! A store whose files have any bytes opens or says why not, keeps what is committed to it, and opens again.
#![no_main]

libfuzzer_sys::fuzz_target!(|directory: tb_mqtt_fuzz::Directory| tb_mqtt_fuzz::store(&directory));
