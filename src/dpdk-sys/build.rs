//! Finds the installed libdpdk with pkg-config, runs bindgen over `dpdk-config/wrapper.h` and
//! compiles `dpdk-config/shim.c`. Each failure names the package that is missing.

use std::path::{Path, PathBuf};
use std::process::{exit, Command};

/// Oldest libdpdk whose headers these bindings are written for.
const OLDEST: &str = "22.11";

/// Libraries we call; the drivers are loaded by EAL at run time. Those that the installed DPDK does
/// not have (rte_log before 24.03) are left out.
const LIBS: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal", "rte_log"];

fn fail(what: &str) -> ! {
    for line in what.lines() {
        println!("cargo:warning={line}");
    }
    eprintln!("error: {what}");
    exit(1);
}

fn main() {
    let manifest = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    let config = manifest.join("../../dpdk-config");
    for file in ["wrapper.h", "shim.h", "shim.c", "allowlist.txt"] {
        println!("cargo:rerun-if-changed={}", config.join(file).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let cflags = find_libdpdk();
    bind(&config, &cflags);
    compile_shim(&config, &cflags);
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|e| fail(&format!("cargo did not set {name}: {e}")))
}

/// Prints the link directives and returns the compiler flags.
fn find_libdpdk() -> Vec<String> {
    let probed = pkg_config::Config::new().atleast_version(OLDEST).cargo_metadata(false).probe("libdpdk");
    let lib = probed.unwrap_or_else(|e| match e {
        pkg_config::Error::Command { .. } => fail(&format!(
            "pkg-config cannot be run, so libdpdk cannot be found: {e}\nOn Debian and Ubuntu: apt-get install pkg-config libdpdk-dev"
        )),
        e => fail(&format!(
            "DPDK {OLDEST} or newer is not installed where pkg-config finds it (set PKG_CONFIG_PATH if it is elsewhere).\nOn Debian and Ubuntu: apt-get install libdpdk-dev pkg-config libclang-dev\npkg-config says: {e}"
        )),
    });
    for path in &lib.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for name in LIBS.iter().filter(|n| lib.libs.iter().any(|l| l == *n)) {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    println!("cargo:version={}", lib.version);
    // The crate gives include paths only; the headers also need `-include rte_config.h` and -march.
    let tool = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let out = Command::new(&tool).args(["--cflags", "libdpdk"]).output();
    let out = out.unwrap_or_else(|e| fail(&format!("{tool} --cflags libdpdk: {e}")));
    String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
}

fn bind(config: &Path, cflags: &[String]) {
    let wrapper = config.join("wrapper.h");
    let mut b = bindgen::Builder::default()
        .header(wrapper.to_string_lossy())
        .clang_args(cflags)
        .clang_arg("-DALLOW_EXPERIMENTAL_API")
        .generate_comments(false)
        .derive_default(true)
        .layout_tests(false)
        .merge_extern_blocks(true)
        .prepend_enum_name(false)
        // Only pointers to these pass; their insides (packed unions, flexible arrays) stay in C.
        .opaque_type("rte_mbuf")
        .opaque_type("rte_mempool")
        .opaque_type("rte_device");
    let list = config.join("allowlist.txt");
    let text = std::fs::read_to_string(&list).unwrap_or_else(|e| fail(&format!("{}: {e}", list.display())));
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        b = match line.split_once(' ') {
            Some(("function", name)) => b.allowlist_function(name),
            Some(("type", name)) => b.allowlist_type(name),
            Some(("var", name)) => b.allowlist_var(name),
            _ => fail(&format!("{}: bad line '{line}'", list.display())),
        };
    }
    let out = PathBuf::from(env("OUT_DIR")).join("bindings.rs");
    // bindgen panics when libclang cannot be loaded.
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| b.generate()));
    match made {
        Err(_) => fail(
            "bindgen could not load libclang, which reads DPDK's headers.\nOn Debian and Ubuntu: apt-get install libclang-dev",
        ),
        Ok(Err(e)) => fail(&format!(
            "bindgen could not read DPDK's headers: {e}\nOn Debian and Ubuntu: apt-get install libdpdk-dev libclang-dev"
        )),
        Ok(Ok(bindings)) => bindings
            .write_to_file(&out)
            .unwrap_or_else(|e| fail(&format!("{}: {e}", out.display()))),
    }
}

fn compile_shim(config: &Path, cflags: &[String]) {
    let mut build = cc::Build::new();
    build.file(config.join("shim.c")).include(config).opt_level(3).warnings(true);
    for flag in cflags {
        build.flag(flag);
    }
    // DPDK's own headers are not ours to clean up.
    build.flag_if_supported("-Wno-unused-parameter");
    if let Err(e) = build.try_compile("vsw_dpdk_shim") {
        fail(&format!(
            "dpdk-config/shim.c does not compile: {e}\nOn Debian and Ubuntu: apt-get install gcc libdpdk-dev"
        ));
    }
}
