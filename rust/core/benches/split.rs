//! Encoding and packing without Python, with the corpora of `make bench`.
#![allow(missing_docs, reason = "criterion's macro makes functions without documentation")]

mod corpora;

use std::time::Duration;

use corpora::{encode_all, identities, telemetry};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tb_mqtt_core::buckets::{Buckets, Window};
use tb_mqtt_core::group::Kind;
use tb_mqtt_core::pack::{Limits, pack};
use tb_mqtt_core::sink::Layout;

/// Name, sends, datapoints of a send, devices (0: a device's own data).
const CASES: [(&str, usize, usize, usize); 4] = [
    ("gateway, 1000 sends of 100 datapoints, 50 devices", 1000, 100, 50),
    ("gateway, 10,000 sends of 10 datapoints, 50 devices", 10_000, 10, 50),
    ("device, 10,000 sends of 10 datapoints", 10_000, 10, 0),
    ("device, one send of 100,000 datapoints", 1, 100_000, 0),
];

fn split(criterion: &mut Criterion) {
    for (name, sends, datapoints, devices) in CASES {
        let corpus = telemetry(sends, datapoints, devices.max(1));
        let identities = identities(devices);
        let layout = Layout { kind: Kind::Timeseries, gateway: devices > 0 };
        let limits = Limits::with_zero_as_unlimited(65_000, 0, 0);
        let ready = encode_all(&corpus, &identities).expect("the corpus has valid values");
        let uplinks: Vec<_> = ready.iter().collect();
        let count =
            |parts: &[tb_mqtt_core::pack::Part<Vec<u8>>]| parts.iter().map(|part| part.datapoints).sum::<usize>();
        let packed = pack(&uplinks, layout, limits, None).expect("all have devices");
        assert_eq!(count(&packed.parts), sends * datapoints, "{name}: datapoints are missing");

        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements((sends * datapoints) as u64));
        group.bench_function("values to encoded uplinks", |bencher| {
            bencher.iter_batched(|| (), |()| encode_all(&corpus, &identities), BatchSize::LargeInput);
        });
        group.bench_function("ready uplinks to payloads", |bencher| {
            bencher.iter_batched(
                || (),
                |()| pack(&uplinks, layout, limits, None).map(|packed| packed.parts),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

fn limits(criterion: &mut Criterion) {
    let windows =
        [(100, 1), (3000, 60)].map(|(capacity, seconds)| Window { capacity, duration: Duration::from_secs(seconds) });
    let mut buckets = Buckets::new(&windows, 0).expect("valid windows");
    let mut now = 0;
    criterion.bench_function("taking a token from a limit with two windows", |bencher| {
        bencher.iter(|| {
            now += 20_000_000;
            buckets.take(1, now)
        });
    });
}

criterion_group!(benches, split, limits);
criterion_main!(benches);
