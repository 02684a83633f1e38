//! Version string and the final link arguments, nothing else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
