//! The guard before HTTP/1 connections: its verdict does not depend on how bytes are cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((step, input)) = input.split_first() {
        selvedge_proxy::fuzzing::framing(input, usize::from(*step));
    }
});
