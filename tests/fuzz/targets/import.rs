//! Any text as a rule set of either language: never a panic, and what comes out is a policy that
//! the checker takes and that compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shardwall::policy;
use shardwall::policy::import::{Hook, Language, import};

fuzz_target!(|input: &[u8]| {
    let [choice, text @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let language = if choice & 1 == 0 { Language::Nft } else { Language::IptablesSave };
    let hook = [Hook::Forward, Hook::Input, Hook::Output][usize::from(choice >> 1) % 3];
    let imported = import("fuzz", text, language, hook);
    match policy::parse("fuzz.yaml", &imported.policy) {
        Ok(checked) => {
            let _ = policy::compile(&checked.model, 1, 2);
        }
        Err(errors) => panic!("{errors}"),
    }
});
