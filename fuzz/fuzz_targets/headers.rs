//! Everything that reads or edits the headers of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &[u8]| selvedge_proxy::fuzzing::headers(lines));
