//! The fuzz targets with a bound: every seed, bent a few hundred times the same way each run.

use std::path::Path;

use selvedge_patterns::random::{Rng as _, SplitMix64};

/// Pieces that change what a message means.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "5",
    "+5",
    "0x5",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close, x\r\n",
    "Upgrade: h2c\r\n",
    "HTTP/1.0",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// `seed` with one to four changes.
fn bent(seed: &[u8], rng: &mut SplitMix64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let mut below = |most: usize| (rng.next_u64() % most.max(1) as u64) as usize;
    for _ in 0..=below(4) {
        let at = below(bytes.len() + 1);
        match below(4) {
            0 => drop(bytes.drain(at..(at + below(8)).min(bytes.len()))),
            1 => bytes.extend_from_within(at..(at + below(40)).min(bytes.len())),
            2 if at < bytes.len() => bytes[at] = below(256) as u8,
            _ => {
                let piece = PIECES[below(PIECES.len())].bytes();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
    bytes
}

fn run(target: &str, check: impl Fn(&[u8], &mut SplitMix64)) {
    let mut rng = SplitMix64::new(0x5EED);
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for seed in &seeds {
        check(seed, &mut rng);
        for _ in 0..500 {
            let bytes = bent(seed, &mut rng);
            check(&bytes, &mut rng);
        }
    }
}

#[test]
fn cuts_do_not_change_what_the_guard_says() {
    // The first byte of a seed is how the target cuts it.
    run("framing", |bytes, rng| {
        super::framing(bytes.get(1..).unwrap_or_default(), 1 + (rng.next_u64() % 64) as usize);
    });
}

#[test]
fn no_header_survives_that_must_not() {
    run("headers", |bytes, _| super::headers(bytes));
}

#[test]
fn cuts_do_not_change_what_a_response_says() {
    // The first byte of a seed is how the target cuts it, and whether a HEAD was asked.
    run("response", |bytes, rng| {
        let step = 1 + (rng.next_u64() % 64) as usize;
        super::response(bytes.get(1..).unwrap_or_default(), step, rng.next_u64() & 1 == 0);
    });
}
