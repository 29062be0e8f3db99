//! Whether a lease fits into what this node lends, beside the leases it has. Pure. The coordinator counts too; but the owner's
//! ceiling is the node's to keep, whatever it is sent.

use crate::wire::job::Resources;
use crate::wire::node::Offer;

/// Why a lease that asks for this much does not fit; `None` when it does. `in_use` is what the others have together.
pub(super) fn refuses(offer: &Offer, in_use: &Resources, asked: &Resources) -> Option<String> {
    let all = in_use.plus(asked);
    let over = [
        (all.cpu_millis > offer.cpu_millis).then(|| {
            let [lent, used, asked] =
                [offer.cpu_millis, in_use.cpu_millis, asked.cpu_millis].map(|millis| f64::from(millis) / 1000.0);
            format!("{lent} cores, of which {used} are in use, and the job asks for {asked}")
        }),
        (all.memory_bytes > offer.memory_bytes)
            .then(|| bytes("memory", offer.memory_bytes, in_use.memory_bytes, asked.memory_bytes)),
        (all.disk_bytes > offer.disk_bytes)
            .then(|| bytes("disk", offer.disk_bytes, in_use.disk_bytes, asked.disk_bytes)),
        (all.gpus > offer.gpus).then(|| {
            format!("{} GPUs, of which {} are in use, and the job asks for {}", offer.gpus, in_use.gpus, asked.gpus)
        }),
    ];
    over.into_iter().flatten().next().map(|what| format!("this node lends {what}"))
}

fn bytes(what: &str, lent: u64, used: u64, asked: u64) -> String {
    let [lent, used, asked] = [lent, used, asked].map(|bytes| bytes.div_ceil(1 << 20));
    format!("{lent} MiB of {what}, of which {used} are in use, and the job asks for {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HourlyRate;

    const OFFER: Offer = Offer {
        cpu_millis: 2000,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 31,
        gpus: 1,
        price_min: HourlyRate::MIN,
        internet: false,
        domains: None,
        isolation: Vec::new(),
    };
    const HALF: Resources = Resources { cpu_millis: 1000, memory_bytes: 1 << 29, disk_bytes: 1 << 30, gpus: 0 };

    #[test]
    fn leases_fit_up_to_the_last_byte_and_not_one_past_it() {
        assert_eq!(refuses(&OFFER, &HALF, &HALF), None);
        let all = Resources { gpus: 1, ..HALF };
        assert_eq!(refuses(&OFFER, &HALF, &all), None);
        for (asked, part) in [
            (Resources { cpu_millis: 1001, ..HALF }, "2 cores, of which 1 are in use, and the job asks for 1.001"),
            (Resources { memory_bytes: (1 << 29) + 1, ..HALF }, "1024 MiB of memory, of which 512 are in use"),
            (Resources { disk_bytes: (1 << 30) + 1, ..HALF }, "2048 MiB of disk"),
            (Resources { gpus: 2, ..HALF }, "1 GPUs, of which 0 are in use, and the job asks for 2"),
            (Resources { cpu_millis: u32::MAX, ..HALF }, "cores"),
            (Resources { memory_bytes: u64::MAX, ..HALF }, "memory"),
        ] {
            let why = refuses(&OFFER, &HALF, &asked).unwrap();
            assert!(why.contains(part), "{why}");
        }
        assert!(refuses(&OFFER, &all, &all).unwrap().contains("1 GPUs, of which 1 are in use"));
    }
}
