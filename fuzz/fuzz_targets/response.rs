//! The HTTP/1.1 client before upstreams: what a response says does not depend on how bytes are cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((step, input)) = input.split_first() {
        selvedge_proxy::fuzzing::response(input, usize::from(*step >> 1), step & 1 == 1);
    }
});
