//! The manual page: put together without a word of complaint, and about all that there is.

use crate::harness::{run, run_ok, Harness, Setup, Which};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The page as roff.
fn page() -> String {
    run_ok(&mut Command::new(root().join("man/build")))
}

/// The words of the page, without fonts and escapes.
fn words() -> BTreeSet<String> {
    let plain = ["\\fB", "\\fR", "\\fI"].iter().fold(page(), |text, font| text.replace(font, " "));
    let plain = plain.replace("\\-", "-");
    let word = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
    plain.split(|c| !word(c)).filter(|w| !w.is_empty()).map(str::to_string).collect()
}

fn missing<'a>(wanted: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let words = words();
    wanted.into_iter().filter(|w| !words.contains(*w)).collect()
}

const NOTHING: [&str; 0] = [];
/// Counters that come with their first event.
const OWN: [&str; 5] = ["handler_", "worker_", "poll_", "vlog_", "unixctl_"];

#[test]
fn every_command_and_counter() {
    let h = Setup::new(Which::Ours).args(&["--enable-dummy"]).up();
    let list = h.appctl(&["list-commands"]);
    let commands: Vec<&str> = list.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(commands.len() > 60, "{list}");
    assert_eq!(missing(commands), NOTHING);
    // Those that are declared; what a thread counts is declared too.
    let counters = counters();
    assert!(counters.len() > 50, "{counters:?}");
    assert_eq!(missing(counters.iter().map(String::as_str).filter(|c| !c.starts_with("handler_"))), NOTHING);
    // Every name in the section is one that the daemon knows or will know.
    let page = page();
    let section =
        page.split(".SH \"EVENT COUNTERS\"").nth(1).and_then(|s| s.split(".SH").next()).unwrap_or_default();
    for name in section.lines().filter_map(|l| l.strip_prefix(".BR ")?.split(' ').next()) {
        assert!(counters.contains(name) || name.starts_with("handler_"), "no counter is called {name}");
        if !OWN.iter().any(|own| name.starts_with(own)) {
            h.appctl(&["coverage/read-counter", name]);
        }
    }
}

/// Names of event counters in the sources.
fn counters() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in sources() {
        let text = code(&file);
        let name = file.file_name().unwrap_or_default();
        let whole = name == "coverage.rs" || name == "drops.rs";
        for line in text.lines() {
            let declared = whole && line.contains(" = \"") && line.ends_with("\",");
            if declared || line.contains("Counter::new(\"") {
                found.extend(line.split('"').nth(1).map(str::to_string));
            }
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    let (mut dirs, mut files) = (vec![root().join("src")], Vec::new());
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).expect("sources").flatten().map(|e| e.path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// A file without its tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a source");
    text.split("#[cfg(test)]").next().unwrap_or_default().to_string()
}

#[test]
fn every_option() {
    let text = code(&root().join("src/cli.rs"));
    let table =
        text.split("const LONG").nth(1).and_then(|t| t.split("];").next()).expect("the table of options");
    let long: BTreeSet<String> =
        table.split('"').skip(1).step_by(2).map(|name| format!("--{name}")).collect();
    assert!(long.len() > 20, "{long:?}");
    assert_eq!(missing(long.iter().map(String::as_str)), NOTHING);
    let help = run_ok(Command::new(Which::Ours.program()).arg("--help"));
    let told = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|w| w.starts_with("--"));
    let told: BTreeSet<&str> = told.filter(|w| w.len() > 2).collect();
    assert!(told.iter().all(|w| long.contains(*w)), "{told:?}");
}

/// Where keys of `other_config` are read.
const READERS: &[&str] = &[
    "src/bridge/src/manager.rs",
    "src/bridge/src/settings.rs",
    "src/bridge/src/wanted.rs",
    "src/dpdk/src/config.rs",
    "src/ofproto/src/slowpath.rs",
    "src/ofproto/src/threads.rs",
];
/// Words with hyphens there that are no keys.
const VALUES: &[&str] = &["if-nonzero", "native-tagged", "native-untagged", "dot1q-tunnel"];

#[test]
fn every_setting() {
    let mut keys = BTreeSet::new();
    for file in sources() {
        let name = file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        let text = code(&file);
        let reads = text.contains("other_config.get(") || text.contains("(\"other_config\", \"");
        if !READERS.contains(&name.as_str()) {
            assert!(
                !reads || name == "src/ovsdb/src/lib.rs",
                "{name} reads other_config: name it among the readers"
            );
            continue;
        }
        for line in text.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
            if let Some((_, rest)) = line.split_once("(\"other_config\", \"") {
                keys.extend(rest.split('"').next().map(str::to_string));
            }
            let literals = line.split('"').skip(1).step_by(2).map(str::to_string);
            keys.extend(literals.filter(|l| {
                let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                l.contains('-')
                    && !l.starts_with('-')
                    && l.chars().all(lower)
                    && !VALUES.contains(&l.as_str())
            }));
        }
    }
    assert!(keys.len() > 35 && keys.contains("dscp") && keys.contains("dpdk-init"), "{keys:?}");
    assert_eq!(missing(keys.iter().map(String::as_str)), NOTHING);
}

#[test]
fn it_is_in_order() {
    let page = page();
    assert!(
        !page.lines().any(|l| l.starts_with(".so ")),
        "every fragment is put in, and none within another"
    );
    let frame = std::fs::read_to_string(root().join("man/ovs-vswitchd.8.in")).unwrap();
    let named: BTreeSet<&str> = frame.lines().filter_map(|l| l.strip_prefix(".so ")).collect();
    let is_fragment = |p: &PathBuf| p.extension().is_some_and(|e| e == "man");
    let beside =
        sources().into_iter().filter_map(|f| f.parent().map(Path::to_path_buf)).collect::<BTreeSet<_>>();
    let service = root().join("service");
    for dir in beside.iter().chain([&service]) {
        for file in std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).filter(is_fragment) {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            assert!(named.contains(name.as_str()), "{name} is in no page");
        }
    }
    let h = Harness::ours();
    let file = h.path("ovs-vswitchd.8");
    std::fs::write(&file, &page).unwrap();
    let said = run(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-P-cbou"]).arg(&file));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.contains("EVENT COUNTERS"), "{}", said.out);
}
