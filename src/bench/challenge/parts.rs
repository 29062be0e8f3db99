//! The child: devices that compute what they are told.

use std::io::{BufRead, Write};

use super::{Order, Report};
use crate::clock::Clock;
use crate::proof::Size;
use crate::proof::generator::Seed;
use crate::proof::product::Product;
use crate::wire::Digest;
use crate::wire::challenge::{Answer, Blob, Device, Opening, Part, RevealedRow};

/// Rows that may be opened of one part; more than any coordinator asks for.
const ROWS_MAX: usize = 1024;

/// Follows orders until there are no more. Blocks, computes for seconds; a driver may hang or crash it.
///
/// # Errors
/// When the parent cannot be heard or told.
pub fn serve(orders: impl BufRead, mut reports: impl Write, clock: &Clock) -> std::io::Result<()> {
    let mut parts = Vec::new();
    for line in orders.lines() {
        let report = match serde_json::from_str(&line?) {
            Ok(order) => follow(order, &mut parts, clock).unwrap_or_else(|why| Report::Failed { why }),
            Err(error) => Report::Failed { why: format!("the order cannot be understood: {error}") },
        };
        serde_json::to_writer(&mut reports, &report)?;
        reports.write_all(b"\n")?;
        reports.flush()?;
        if matches!(report, Report::Failed { .. }) {
            return Ok(());
        }
    }
    Ok(())
}

fn follow(order: Order, parts: &mut Vec<Prepared>, clock: &Clock) -> Result<Report, String> {
    match order {
        Order::Prepare { parts: wanted } => {
            *parts = prepare(&wanted, clock)?;
            Ok(Report::Ready)
        }
        Order::Compute { seeds } => {
            if seeds.len() != parts.len() {
                return Err(format!("{} seeds came for {} parts", seeds.len(), parts.len()));
            }
            let roots = together(parts.iter_mut().zip(seeds), |(part, seed)| {
                part.compute(&Seed::from_bytes(*seed.as_bytes()))
            })?;
            Ok(Report::Roots { roots })
        }
        Order::Open { opening } => {
            if opening.rows.len() != parts.len() || opening.rows.iter().any(|rows| rows.len() > ROWS_MAX) {
                return Err("the opening does not fit the parts".to_owned());
            }
            let Opening { vector_seed, rows } = &opening;
            let answers = together(parts.iter().zip(rows), |(part, rows)| part.open(vector_seed, rows))?;
            Ok(Report::Answers { answers })
        }
    }
}

/// Does something with every part at the same time.
fn together<P: Send, T: Send>(
    parts: impl Iterator<Item = P>,
    work: impl Fn(P) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|_| Err("a device's thread broke".to_owned()))).collect()
    })
}

/// A device that is ready.
#[derive(Debug)]
enum Prepared {
    Cpu {
        size: Size,
        product: Option<Product>,
    },
    #[cfg(feature = "gpu")]
    Gpu(Box<crate::bench::gpu::product_int8::ProductInt8>),
}

#[cfg(feature = "gpu")]
fn prepare(wanted: &[Part], clock: &Clock) -> Result<Vec<Prepared>, String> {
    use crate::bench::gpu::product_int8::ProductInt8;
    let needs_gpu = wanted.iter().any(|part| matches!(part.device, Device::Gpu { .. }));
    let mut adapters = if needs_gpu { crate::hardware::gpu::list() } else { Vec::new() };
    let mut prepared = Vec::with_capacity(wanted.len());
    for part in wanted {
        let size = Size::try_from(part.size).map_err(|error| error.to_string())?;
        prepared.push(match &part.device {
            Device::Cpu => Prepared::Cpu { size, product: None },
            Device::Gpu { name, pci_address } => {
                let found = adapters.iter().position(|adapter| {
                    adapter.gpu.name == *name && (pci_address.is_none() || adapter.gpu.pci_address == *pci_address)
                });
                // Each adapter answers for one part only.
                let adapter =
                    found.map(|at| adapters.remove(at)).ok_or_else(|| format!("{name} is not there any more"))?;
                let ready = ProductInt8::prepare(&adapter, clock, size);
                Prepared::Gpu(Box::new(ready.map_err(|error| format!("{name}: {error}"))?))
            }
            Device::Unknown => return Err("this build does not know the device that is asked for".to_owned()),
        });
    }
    Ok(prepared)
}

#[cfg(not(feature = "gpu"))]
fn prepare(wanted: &[Part], _clock: &Clock) -> Result<Vec<Prepared>, String> {
    let one = |part: &Part| match &part.device {
        Device::Cpu => Size::try_from(part.size)
            .map(|size| Prepared::Cpu { size, product: None })
            .map_err(|error| error.to_string()),
        Device::Gpu { .. } | Device::Unknown => Err("this build computes on the processor only".to_owned()),
    };
    wanted.iter().map(one).collect()
}

impl Prepared {
    fn compute(&mut self, seed: &Seed) -> Result<Digest, String> {
        match self {
            Self::Cpu { size, product } => {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                Ok(product.insert(Product::compute(seed, *size, threads)).root())
            }
            #[cfg(feature = "gpu")]
            Self::Gpu(ready) => ready.compute(seed).map_err(|error| error.to_string()),
        }
    }

    fn open(&self, vector_seed: &Digest, rows: &[u32]) -> Result<Answer, String> {
        let (product, opened) = match self {
            Self::Cpu { product, .. } => {
                let product = product.as_ref().ok_or("nothing was computed yet")?;
                let open = |row: &u32| (product.row(*row as usize).to_vec(), product.path(*row as usize));
                (product.times(vector_seed.as_bytes()), rows.iter().map(open).collect())
            }
            #[cfg(feature = "gpu")]
            Self::Gpu(ready) => {
                let opened: Result<Vec<_>, _> = rows.iter().map(|row| ready.open(*row)).collect();
                let product = ready.times(vector_seed.as_bytes()).map_err(|error| error.to_string())?;
                (product, opened.map_err(|error| error.to_string())?)
            }
        };
        Ok(answer(&product, opened))
    }
}

fn answer(product: &[u64], rows: Vec<(Vec<i32>, Vec<Digest>)>) -> Answer {
    let row = |(elements, path): (Vec<i32>, Vec<Digest>)| RevealedRow {
        elements: Blob(elements.into_iter().flat_map(i32::to_be_bytes).collect()),
        path,
    };
    Answer {
        product: Blob(product.iter().flat_map(|number| number.to_le_bytes()).collect()),
        rows: rows.into_iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(orders: &[Order]) -> Vec<Report> {
        let text: String = orders.iter().map(|order| serde_json::to_string(order).unwrap() + "\n").collect();
        let mut out = Vec::new();
        serve(text.as_bytes(), &mut out, &Clock::manual(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        let out = String::from_utf8(out).unwrap();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn cpu(size: u32) -> Order {
        Order::Prepare { parts: vec![Part { device: Device::Cpu, size }] }
    }

    #[test]
    fn a_product_is_made_ready_computed_and_opened() {
        let seed = Digest::from_bytes([3; 32]);
        let opening = Opening { vector_seed: Digest::from_bytes([4; 32]), rows: vec![vec![7, 255]] };
        let reports = talk(&[cpu(256), Order::Compute { seeds: vec![seed] }, Order::Open { opening }]);
        let expected = Product::compute(&Seed::from_bytes([3; 32]), Size::MIN, 1);
        assert_eq!(reports[..2], [Report::Ready, Report::Roots { roots: vec![expected.root()] }]);
        let Report::Answers { answers } = &reports[2] else { panic!("{:?}", reports[2]) };
        assert_eq!(answers[0].product.0.len(), 256 * 8);
        assert_eq!(answers[0].rows[0].elements.0[..4], expected.row(7)[0].to_be_bytes());
    }

    #[test]
    fn orders_that_cannot_be_followed_are_told_and_end_the_child() {
        for bad in [0, 100, 1 << 31] {
            assert!(matches!(&talk(&[cpu(bad), cpu(256)])[..], [Report::Failed { .. }]));
        }
        let early = Opening { vector_seed: Digest::from_bytes([4; 32]), rows: vec![vec![0]] };
        assert!(
            matches!(&talk(&[cpu(256), Order::Open { opening: early }])[1], Report::Failed { why } if why.contains("nothing"))
        );
        assert!(matches!(&talk(&[cpu(256), Order::Compute { seeds: Vec::new() }])[1], Report::Failed { .. }));
        let device = Device::Gpu { name: "no such card".into(), pci_address: None };
        let gone = talk(&[Order::Prepare { parts: vec![Part { device, size: 256 }] }]);
        assert!(matches!(&gone[..], [Report::Failed { .. }]));
    }
}
