//! Finds libdpdk, compiles the shim, binds the allowlist.
//!
//! The pkg-config crate drops `-include rte_config.h` and `-march=…`, and both decide what the
//! headers mean: the flags are read from pkg-config itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The oldest release that the shim's source fits.
const OLDEST: &str = "22.11";

const FUNCTIONS: &[&str] = &[
    "sw_.*",
    "rte_dev_probe",
    "rte_eal_(init|cleanup)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_(start|set_mtu|get_mtu|is_valid_port)",
    "rte_eth_promiscuous_(enable|disable|get)",
    "rte_mempool_(free|in_use_count|avail_count)",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "rte_version",
];

const CONSTANTS: &[&str] = &[
    "SW_.*",
    "RTE_MAX_ETHPORTS",
    "RTE_MAX_LCORE",
    "RTE_MEMPOOL_CACHE_MAX_SIZE",
    "RTE_PKTMBUF_HEADROOM",
];

/// Only pointers to these cross the border.
const OPAQUE: &[&str] = &[
    "rte_device",
    "rte_mempool",
    "rte_eth_rxconf",
    "rte_eth_txconf",
];

/// What a static binary holds; a name that this release does not have is passed over.
const STATIC_LIBS: &str = "log argparse kvargs telemetry eal ring rcu mempool mbuf net meter \
    ethdev pci cmdline hash timer eventdev cryptodev security gso ip_frag stack bus_pci bus_vdev \
    mempool_ring mempool_stack common_iavf net_null net_ring net_pcap net_tap net_af_packet \
    net_virtio net_e1000 net_igc net_ixgbe net_i40e net_iavf net_ice net_vmxnet3 net_ena";

/// What those need of the system.
const SYSTEM_LIBS: &[&str] = &["numa", "bsd", "pcap", "jansson", "crypto"];

fn main() -> ExitCode {
    for input in ["build.rs", "shim.c", "shim.h", "wrapper.h"] {
        println!("cargo::rerun-if-changed={input}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            for line in text.lines().filter(|l| !l.trim().is_empty()) {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let linked_in = env::var_os("CARGO_FEATURE_STATIC").is_some();
    let dpdk = pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(!linked_in)
        .probe("libdpdk")
        .map_err(|why| missing(&why))?;
    let flags = cflags()?;
    compile_shim(&flags);
    bind(&flags)?;
    if linked_in {
        link_in(&dpdk.link_paths)?;
    }
    Ok(())
}

fn missing(why: &pkg_config::Error) -> String {
    let first = why.to_string();
    let first = first
        .lines()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("pkg-config failed")
        .trim();
    format!(
        "DPDK {OLDEST} or newer was not found ({first}).\n\
         Install it: apt-get install libdpdk-dev libclang-dev clang pkg-config\n\
         or, if it lies elsewhere, set PKG_CONFIG_PATH to the folder of its libdpdk.pc;\n\
         or build without the DPDK ports: cargo build --no-default-features"
    )
}

/// Every compiler flag that libdpdk asks for, in order.
fn cflags() -> Result<Vec<String>, String> {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    let tool = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let out = Command::new(tool)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|e| format!("pkg-config cannot be run: {e}"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&out.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

fn compile_shim(flags: &[String]) {
    let mut cc = cc::Build::new();
    cc.file("shim.c").std("gnu11").opt_level(2).warnings(true);
    // DPDK's own headers are not clean under -Wextra.
    cc.flag("-Wno-unused-parameter").flag("-Wno-sign-compare");
    for flag in flags {
        cc.flag(flag);
    }
    cc.compile("shardwall_dpdk_shim");
}

fn bind(flags: &[String]) -> Result<(), String> {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .rust_target(bindgen::RustTarget::stable(82, 0).map_err(|e| e.to_string())?)
        .formatter(bindgen::Formatter::None)
        .layout_tests(true)
        // Thread-locals come out as plain statics: never bind them.
        .blocklist_item("per_lcore_.*")
        // Written by hand in src/mbuf.rs.
        .opaque_type("rte_mbuf")
        .blocklist_type("rte_mbuf")
        .generate_comments(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    builder = builder.allowlist_type("sw_.*");
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    // bindgen panics where there is no libclang.
    let bindings = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()))
        .map_err(|_| {
            "libclang was not found: apt-get install libclang-dev clang, or set LIBCLANG_PATH"
                .to_owned()
        })?
        .map_err(|e| format!("DPDK's headers could not be bound: {e}"))?;
    let to = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("dpdk.rs");
    bindings
        .write_to_file(&to)
        .map_err(|e| format!("{}: {e}", to.display()))
}

/// PMDs register themselves in constructors that nothing refers to: whole archives.
fn link_in(extra: &[PathBuf]) -> Result<(), String> {
    let dir = pkg_config::get_variable("libdpdk", "libdir").map_err(|e| e.to_string())?;
    println!("cargo::rustc-link-search=native={dir}");
    for path in extra {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    let has = |name: &str| Path::new(&dir).join(format!("librte_{name}.a")).exists();
    if !has("eal") {
        return Err(format!(
            "the static libraries of DPDK are not in {dir}: install its development package, \
             or build without `--features static`"
        ));
    }
    for name in STATIC_LIBS.split_whitespace().filter(|name| has(name)) {
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
    }
    for name in SYSTEM_LIBS {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    Ok(())
}
