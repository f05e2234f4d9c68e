//! A filter that is read is shown as it was meant, and asked for any message it answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| selvedge_durable::filter::fuzzing::filter(input.0, input.1));
