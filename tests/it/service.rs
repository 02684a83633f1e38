//! What an administrator installs and runs: `vswitch-ctl`, the files of `make install`.

use crate::harness::{run, run_ok, wait_until, Harness, Output, Setup, Which};
use std::path::{Path, PathBuf};
use std::process::Command;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn ctl(h: &Harness, args: &[&str]) -> Output {
    let mut command = h.command(source("service/vswitch-ctl"));
    command.arg(format!("--ovs-vswitchd={}", Which::Ours.program())).args(["--no-mlockall"]);
    run(command.args(args))
}

fn pid(h: &Harness) -> Option<u32> {
    h.pid_in("ovs-vswitchd.pid")
}

#[test]
fn start_restart_with_flows_and_stop() {
    let h = Setup::new(Which::Ours).stopped().up();
    let said = ctl(&h, &["status"]);
    assert_eq!((said.code, said.out.as_str()), (1, "ovs-vswitchd is not running\n"));
    let said = ctl(&h, &["start"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, " * Starting ovs-vswitchd\n", ""));
    let first = pid(&h).expect("a pid");
    assert_eq!(ctl(&h, &["status"]).out, format!("ovs-vswitchd is running with pid {first}\n"));
    assert_eq!(ctl(&h, &["start"]).out, " * ovs-vswitchd is already running.\n");
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    h.vsctl(&["add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev", "protocols=OpenFlow10"]);
    h.namespace().ok(&["ip", "address", "add", "10.1.2.3/24", "dev", "br0"]);
    h.ofctl(&["del-flows", "br0"]);
    h.ofctl(&["add-flow", "br0", "cookie=0x5,table=3,priority=7,tcp,tp_dst=80,actions=resubmit(,4)"]);
    h.ofctl(&["add-flow", "br0", "table=4,idle_timeout=900,actions=NORMAL"]);
    h.ofctl(&["add-flow", "br1", "priority=9,arp,actions=drop"]);
    let flows = |h: &Harness, bridge| h.ofctl(&["--no-stats", "dump-flows", bridge]);
    let before = (flows(&h, "br0"), flows(&h, "br1"));
    let said = ctl(&h, &["restart"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let lines: Vec<&str> = said.out.lines().map(|l| l.trim_start_matches(" * ")).collect();
    let exiting = format!("Exiting ovs-vswitchd ({first})");
    assert_eq!(lines, ["Saving flows", exiting.as_str(), "Starting ovs-vswitchd", "Restoring saved flows"]);
    assert_ne!(pid(&h), Some(first));
    assert_eq!((flows(&h, "br0"), flows(&h, "br1")), before);
    assert_eq!(h.vsctl(&["get", "Open_vSwitch", ".", "other_config"]).trim(), "{}");
    assert!(h.namespace().ok(&["ip", "address", "show", "br0"]).contains("10.1.2.3/24"));
    // Without flows: only the rule that a bridge starts with.
    assert_eq!(ctl(&h, &["--no-restore-flows", "restart"]).code, 0);
    wait_until("the bridge is back", || h.try_ofctl(&["show", "br0"]).code == 0);
    assert_eq!(flows(&h, "br0").lines().filter(|l| l.contains("actions=")).count(), 1);
    // A log that was moved away.
    std::fs::rename(h.path("ovs-vswitchd.log"), h.path("old.log")).unwrap();
    assert_eq!(ctl(&h, &["reopen-log"]).code, 0);
    assert!(h.path("ovs-vswitchd.log").exists());
    assert_eq!(ctl(&h, &["stop"]).code, 0);
    assert_eq!(pid(&h), None);
    assert_eq!(ctl(&h, &["stop"]).out, " * ovs-vswitchd is not running.\n");
}

#[test]
fn mistakes_are_told() {
    let h = Setup::new(Which::Ours).stopped().up();
    let said = |args: &[&str]| {
        let output = ctl(&h, args);
        assert_eq!(output.code, 1, "{args:?}");
        output.err
    };
    assert_eq!(said(&[]), "vswitch-ctl: missing command name (use --help for help)\n");
    assert_eq!(said(&["dance"]), "vswitch-ctl: unknown command dance (use --help for help)\n");
    assert_eq!(said(&["--dance", "start"]), "vswitch-ctl: unknown option --dance (use --help for help)\n");
    assert!(said(&["start", "stop"]).contains("one command at a time"));
    assert!(said(&["--ovs-vswitchd=/nonexistent", "start"]).contains("/nonexistent is not there"));
    assert!(said(&["--db-sock=/nonexistent", "start"]).contains("start ovsdb-server first"));
    assert!(said(&["--ovs-vswitchd-options=--nonsense", "start"]).contains("(failed with exit status 1)"));
    assert!(said(&["reopen-log"]).contains("is not running"));
    assert!(run_ok(Command::new(source("service/vswitch-ctl")).arg("--help")).contains("usage: vswitch-ctl"));
}

/// `make install` puts everything below DESTDIR, and leaves a logrotate file that is there alone.
#[test]
fn installation() {
    let h = Setup::new(Which::Ours).stopped().up();
    let root = h.path("root");
    let install = || {
        let mut make = Command::new("make");
        make.arg("-C").arg(source("")).arg("install").arg(format!("DESTDIR={}", root.display()));
        run_ok(make.arg(format!("BINARY={}", Which::Ours.program())))
    };
    let said = install();
    assert!(said.contains("update-alternatives --install /usr/sbin/ovs-vswitchd"), "{said}");
    for name in [
        "usr/lib/openvswitch-switch-pmd/ovs-vswitchd",
        "usr/share/openvswitch/scripts/vswitch-ctl",
        "usr/share/openvswitch/scripts/hugepage-setup.sh",
        "usr/share/man/man8/ovs-vswitchd-pmd.8",
        "lib/systemd/system/vswitch.service",
        "etc/logrotate.d/openvswitch-switch",
    ] {
        assert!(root.join(name).is_file(), "{name} is missing");
    }
    let manual = std::fs::read_to_string(root.join("usr/share/man/man8/ovs-vswitchd-pmd.8")).unwrap();
    assert!(manual.contains("Ends the daemon") && !manual.contains("\n.so "), "the page is put together");
    let version =
        run_ok(Command::new(root.join("usr/lib/openvswitch-switch-pmd/ovs-vswitchd")).arg("--version"));
    assert!(version.starts_with("ovs-vswitchd (Open vSwitch) 3."), "{version}");
    std::fs::write(root.join("etc/logrotate.d/openvswitch-switch"), "mine").unwrap();
    install();
    assert_eq!(std::fs::read_to_string(root.join("etc/logrotate.d/openvswitch-switch")).unwrap(), "mine");
}
