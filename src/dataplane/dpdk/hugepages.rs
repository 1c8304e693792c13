//! Hugepages or ordinary memory: the choice, and what it is made from.
//!
//! A DPDK that did not start cannot be started again in the same process, so the choice cannot be
//! "try, and fall back": it is made from what the kernel says is free.

use super::error::DpdkError;
use std::fs;
use std::path::Path;

/// Where the memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Hugepages if enough are free, else ordinary memory.
    #[default]
    Auto,
    /// Hugepages, or no start.
    Required,
    /// Ordinary memory: for tests and virtual devices.
    Off,
}

/// Whether to use hugepages.
pub(super) fn choose(wanted: Hugepages, free_mb: u64, needed_mb: u64) -> Result<bool, DpdkError> {
    match wanted {
        Hugepages::Off => Ok(false),
        Hugepages::Auto => Ok(needed_mb > 0 && free_mb >= needed_mb),
        Hugepages::Required if free_mb >= needed_mb.max(1) => Ok(true),
        Hugepages::Required => Err(DpdkError::NoHugepages {
            needed_mb,
            free_mb,
            pages: needed_mb.div_ceil(2),
        }),
    }
}

/// Free hugepages of every size, in MB.
#[must_use]
pub fn free_hugepages_mb() -> u64 {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        return meminfo(&info, "HugePages_Free:") * meminfo(&info, "Hugepagesize:") / 1024;
    };
    let number = |path: &Path| {
        fs::read_to_string(path)
            .ok()
            .and_then(|t| t.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let kb: u64 = sizes
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kb = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?;
            let free = number(&entry.path().join("free_hugepages"));
            let promised = number(&entry.path().join("resv_hugepages"));
            Some(kb.parse::<u64>().ok()? * free.saturating_sub(promised))
        })
        .sum();
    kb / 1024
}

fn meminfo(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hugepages_are_taken_when_enough_are_free() {
        assert!(matches!(choose(Hugepages::Auto, 512, 512), Ok(true)));
        assert!(matches!(choose(Hugepages::Auto, 511, 512), Ok(false)));
        assert!(matches!(choose(Hugepages::Off, 4096, 512), Ok(false)));
        assert!(matches!(choose(Hugepages::Required, 512, 512), Ok(true)));
        let text = choose(Hugepages::Required, 10, 511)
            .map_err(|e| e.to_string())
            .unwrap_err();
        assert!(text.contains("vm.nr_hugepages=256"), "{text}");
    }
}
