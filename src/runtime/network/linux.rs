//! This machine's routes as the kernel tells them.

use std::io::Read as _;
use std::net::Ipv4Addr;

use super::Subnet;

/// A routing table longer than this is read in part.
const BYTES_MAX: u64 = 4 << 20;

/// Networks that this machine routes to other than by default. Empty when the kernel does not tell.
#[must_use]
pub fn routes() -> Vec<Subnet> {
    let mut text = String::new();
    let read = std::fs::File::open("/proc/net/route").and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    parse(&text)
}

/// Lines of `interface destination gateway flags … mask …`, numbers in the machine's own byte order.
fn parse(text: &str) -> Vec<Subnet> {
    let number = |field: Option<&&str>| field.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, mask) = (number(fields.get(1))?, number(fields.get(7))?);
            let prefix = u8::try_from(mask.count_ones()).unwrap_or(32);
            let subnet = Subnet::new(Ipv4Addr::from(address.to_ne_bytes()), prefix);
            (subnet.prefix() > 0).then_some(subnet)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    torn line\n";
        if cfg!(target_endian = "little") {
            assert_eq!(parse(text), ["192.168.1.0/24".parse().unwrap()], "the default route is none of them");
        }
    }
}
