//! The house rules that a compiler does not check: who may depend on whom, how
//! long a file may be, where unsafe code may stand, that files say what they are.

use std::path::{Path, PathBuf};

/// Each crate with those of ours that it may depend on.
const LAYERS: &[(&str, &[&str])] = &[
    ("infra", &[]),
    ("dpdk-sys", &[]),
    ("ovsdb", &["infra"]),
    ("packet", &["infra"]),
    ("flow", &["packet"]),
    ("netdev", &["infra", "packet", "flow"]),
    ("openflow", &["flow", "packet"]),
    ("datapath", &["infra", "netdev", "flow", "packet"]),
    ("dpdk", &["infra", "dpdk-sys", "netdev", "packet"]),
    ("ofproto", &["infra", "datapath", "openflow", "netdev", "flow", "packet"]),
    ("bridge", &["infra", "ofproto", "datapath", "netdev", "ovsdb", "flow"]),
    (
        DAEMON,
        &["infra", "ovsdb", "packet", "flow", "netdev", "openflow", "datapath", "dpdk", "ofproto", "bridge"],
    ),
];

/// The root package.
const DAEMON: &str = "";
/// Crates in which unsafe code may stand.
const UNSAFE: &[&str] = &["dpdk-sys", "dpdk", "packet", "infra", "datapath"];
const MAX_LINES: usize = 900;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn directory(krate: &str) -> PathBuf {
    match krate {
        DAEMON => root().to_path_buf(),
        krate => root().join("src").join(krate),
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names in all dependency sections of a package.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.starts_with("[workspace");
            if let Some(name) = line.strip_prefix("[dependencies.") {
                names.push(name.trim_end_matches(']').to_string());
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let end = line.find([' ', '=', '.']).unwrap_or(line.len());
            names.push(line[..end].to_string());
        }
    }
    names
}

#[test]
fn crates_depend_downwards_only() {
    let ours: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).filter(|n| *n != DAEMON).collect();
    let mut wrong = Vec::new();
    for (krate, allowed) in LAYERS {
        let manifest = directory(krate).join("Cargo.toml");
        for name in dependencies(&read(&manifest)) {
            if ours.contains(&name.as_str()) && !allowed.contains(&name.as_str()) && name != *krate {
                wrong.push(format!("{} must not depend on {name}", manifest.display()));
            }
        }
    }
    for entry in std::fs::read_dir(root().join("src")).unwrap().flatten().filter(|e| e.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !ours.contains(&name.as_str()) {
            wrong.push(format!("src/{name} is a crate that the table of layers does not know"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches"] {
        sources(&root().join(dir), &mut files);
    }
    assert!(files.len() > 20);
    let mut wrong = Vec::new();
    for path in files {
        let text = read(&path);
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, more than {MAX_LINES}", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not begin with a //! header", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_only_where_it_is_needed() {
    for (krate, _) in LAYERS {
        let file = match *krate {
            DAEMON => root().join("src/main.rs"),
            krate => directory(krate).join("src/lib.rs"),
        };
        let forbids = read(&file).contains("#![forbid(unsafe_code)]");
        assert!(forbids || UNSAFE.contains(krate), "{}: lacks #![forbid(unsafe_code)]", file.display());
    }
}
