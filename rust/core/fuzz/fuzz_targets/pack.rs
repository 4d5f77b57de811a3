//! Every datapoint is acknowledged exactly once, no payload exceeds a limit, and each has the stated number of datapoints.
#![no_main]

libfuzzer_sys::fuzz_target!(|batch: tb_mqtt_fuzz::Batch| tb_mqtt_fuzz::pack(&batch));
