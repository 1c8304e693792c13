//! Any text as a policy: read, check, render the findings; what is valid compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::policy;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match policy::parse("fuzz.yaml", text) {
        Ok(checked) => {
            let _ = checked.render_warnings();
            let _ = policy::compile(&checked.model, 1, 2);
        }
        Err(errors) => {
            assert!(errors.errors() > 0);
            let _ = errors.to_string();
        }
    }
});
