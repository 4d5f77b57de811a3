//! Every datapoint is answered for exactly once, no payload is over a limit, and each holds as many as it says.
#![no_main]

libfuzzer_sys::fuzz_target!(|batch: tb_mqtt_fuzz::Batch| tb_mqtt_fuzz::pack(&batch));
