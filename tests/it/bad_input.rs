//! Input that is wrong or hostile: OpenFlow messages, database rows, frames. The rest goes on unharmed.

use crate::harness::{run, wait_until, Setup, Which};
use crate::lab::{ip4, mac, start, tagged, Lab};
use packet::build::{Builder, Ip6};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection to a bridge's OpenFlow socket, in the given version.
struct Peer(UnixStream);

impl Peer {
    fn connect(lab: &Lab, version: u8) -> Peer {
        let stream = UnixStream::connect(lab.h.path("br0.mgmt")).expect("br0.mgmt");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let mut peer = Peer(stream);
        peer.send(&message(version, 0, 1, &[]));
        let hello = peer.receive().expect("hello");
        assert_eq!(hello[1], 0);
        peer
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed already; what it says tells.
        let _ = self.0.write_all(bytes);
    }

    /// The next message; `None` at the end of the connection.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).ok()?;
        let mut all = head.to_vec();
        all.resize(usize::from(u16::from_be_bytes([head[2], head[3]])), 0);
        self.0.read_exact(&mut all[8..]).ok()?;
        Some(all)
    }

    /// Type and code of the error that comes next.
    fn error(&mut self) -> (u16, u16) {
        let m = self.receive().expect("an error message");
        assert_eq!(m[1], 1, "{m:x?}");
        (u16::from_be_bytes([m[8], m[9]]), u16::from_be_bytes([m[10], m[11]]))
    }

    /// Whether an echo is answered.
    fn alive(&mut self, version: u8) -> bool {
        self.send(&message(version, 2, 77, b"hey"));
        self.receive().is_some_and(|m| m[1] == 3 && m[8..] == *b"hey")
    }
}

fn message(version: u8, kind: u8, xid: u32, body: &[u8]) -> Vec<u8> {
    let len = (8 + body.len()) as u16;
    [&[version, kind][..], &len.to_be_bytes(), &xid.to_be_bytes(), body].concat()
}

#[test]
fn malformed_openflow() {
    let mut lab = Lab::new(2);
    // (version, type, body, error type and code)
    let short = vec![0; 20];
    type Case = (u8, u8, Vec<u8>, (u16, u16));
    let cases: &[Case] = &[
        (1, 14, short.clone(), (1, 6)),
        (4, 14, short.clone(), (1, 6)),
        (6, 14, short, (1, 6)),
        (1, 99, vec![], (1, 1)),
        (4, 200, vec![1, 2, 3], (1, 1)),
        (4, 18, vec![0, 99, 0, 0, 0, 0, 0, 0], (1, 2)),
        (1, 16, vec![0, 99, 0, 0], (1, 2)),
        (4, 4, vec![0, 0, 0, 9, 0, 0, 0, 1], (1, 3)),
        (4, 13, vec![0; 3], (1, 6)),
        (1, 13, [&[0xff; 4][..], &[0, 1], &[0, 200], &[0; 8]].concat(), (1, 6)),
    ];
    for (version, kind, body, expected) in cases {
        let mut peer = Peer::connect(&lab, *version);
        peer.send(&message(*version, *kind, 9, body));
        assert_eq!(peer.error(), *expected, "version {version} type {kind}");
        assert!(peer.alive(*version), "version {version} type {kind}");
    }
    // What cannot be told apart any more ends the connection.
    for junk in [
        vec![1, 0, 0, 7, 0, 0, 0, 0],
        vec![1, 0, 0, 0, 0, 0, 0, 0],
        vec![0xff; 4096],
        vec![0; 4096],
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
    ] {
        let stream = UnixStream::connect(lab.h.path("br0.mgmt")).expect("br0.mgmt");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let mut peer = Peer(stream);
        // As long as the longest message, so that it need not be waited for.
        peer.send(&junk.repeat(70_000 / junk.len()));
        while peer.receive().is_some() {}
    }
    let mut peer = Peer::connect(&lab, 4);
    peer.send(&[4, 2, 0, 4, 0, 0, 0, 1]);
    while peer.receive().is_some() {}
    // Another version in the middle.
    let mut peer = Peer::connect(&lab, 4);
    peer.send(&message(1, 2, 9, &[]));
    let _ = peer.receive();
    lab.unharmed();
}

/// Flow-mods of every length and with every byte changed: an error or nothing, never the end.
#[test]
fn mutilated_openflow() {
    let mut lab = Lab::new(2);
    let oxm = [0x80, 0, 0, 4, 0, 0, 0, 1, 0x80, 0, 10, 2, 8, 0, 0x80, 0, 20, 1, 6, 0x80, 0, 26, 2, 0, 80];
    let mut matching = [&[0, 1, 0, 29][..], &oxm].concat();
    matching.resize(32, 0);
    let action = [0, 0, 0, 16, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
    let apply = [&[0, 4, 0, 24, 0, 0, 0, 0][..], &action].concat();
    let fixed: Vec<u8> =
        [&[0; 16][..], &[3, 0, 0, 0, 0, 0, 0, 5], &[0xff; 4], &[0xff; 4], &[0xff; 4], &[0, 0, 0, 0]].concat();
    let body = [fixed, matching, apply].concat();
    let mut peer = Peer::connect(&lab, 4);
    peer.send(&message(4, 14, 5, &body));
    assert!(peer.alive(4));
    // Without instructions it is whole again.
    for cut in (0..body.len()).filter(|n| *n != 72) {
        peer.send(&message(4, 14, 5, &body[..cut]));
        peer.error();
    }
    for at in 0..body.len() {
        for value in [0x00, 0x7f, 0xff] {
            let mut changed = body.clone();
            changed[at] = value;
            peer.send(&message(4, 14, 5, &changed));
        }
        peer.send(&message(4, 20, 6, &[]));
        while peer.receive().expect("still connected")[1] != 21 {}
    }
    assert!(peer.alive(4));
    lab.h.ofctl(&["del-flows", "br0"]);
    lab.h.ofctl(&["add-flow", "br0", "actions=NORMAL"]);
    lab.unharmed();
}

fn resident_kb(lab: &mut Lab) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon(lab))).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("number")
}

fn daemon(lab: &Lab) -> String {
    std::fs::read_to_string(lab.h.path("switch.pid")).expect("pid").trim().to_string()
}

/// Peers that send without end, ask without reading, or stay silent take a bounded share.
#[test]
fn greedy_openflow_peers() {
    let mut lab = Lab::new(2);
    let flows: String = (0..2_000).map(|i| format!("table=9,priority={i},ip,actions=1\n")).collect();
    assert_eq!(lab.h.ofctl_stdin(&["add-flows", "br0", "-"], &flows).code, 0);
    let before = resident_kb(&mut lab);
    let mut held: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(lab.h.path("br0.mgmt")).expect("br0.mgmt")).collect();
    // Dumps of all flows, asked for without end; nobody reads.
    for stream in held.iter_mut().take(4) {
        stream.set_nonblocking(true).expect("nonblocking");
        let hello = message(4, 0, 1, &[]);
        let dump = message(
            4,
            18,
            2,
            &[
                &[0, 1, 0, 0, 0, 0, 0, 0][..],
                &[0xff, 0, 0, 0],
                &[0xff; 8],
                &[0; 4],
                &[0; 16],
                &[0, 1, 0, 4, 0, 0, 0, 0],
            ]
            .concat(),
        );
        let _ = stream.write(&hello);
        for _ in 0..5_000 {
            if stream.write(&dump).is_err() {
                break;
            }
        }
    }
    // Half messages, the longest that there can be.
    for stream in &mut held[4..50] {
        let _ = stream.write_all(&[4, 14, 0xff, 0xff]);
        let _ = stream.write_all(&[0; 1000]);
    }
    for _ in 0..5 {
        lab.unharmed();
        lab.h.ofctl(&["dump-aggregate", "br0"]);
    }
    let after = resident_kb(&mut lab);
    assert!(after < before + 100_000, "from {before} kB to {after} kB");
    drop(held);
    lab.unharmed();
}

#[test]
fn names_that_are_taken() {
    let mut lab = Lab::new(2);
    let said = lab.h.try_vsctl(&["add-br", "br0"]);
    assert!(said.err.contains("cannot create a bridge named br0 because a bridge named br0 already exists"));
    let transact = |operations: &str| {
        let db = format!("unix:{}", lab.h.path("db.sock").display());
        let said = run(lab.h.command("ovsdb-client").args(["transact", &db, operations]));
        format!("{}{}", said.out, said.err)
    };
    let root = r#"{"op":"mutate","table":"Open_vSwitch","where":[],"mutations":[["bridges","insert",["set",[["named-uuid","b"]]]]]}"#;
    let said = transact(&format!(
        r#"["Open_vSwitch",{{"op":"insert","table":"Bridge","uuid-name":"b","row":{{"name":"br0"}}}},{root}]"#
    ));
    assert!(said.contains("constraint violation"), "{said}");
    lab.unharmed();

    // One interface in two ports of two bridges.
    lab.h.vsctl(&["add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev"]);
    let uuid = lab.h.vsctl(&["get", "Interface", "p1", "_uuid"]);
    let interfaces = format!("interfaces={}", uuid.trim());
    lab.h.vsctl(&[
        "--id=@p",
        "create",
        "Port",
        "name=other",
        &interfaces,
        "--",
        "add",
        "Bridge",
        "br1",
        "ports",
        "@p",
    ]);
    lab.unharmed();
    assert!(lab.h.log().contains("interface p1 is already in bridge br0"), "{}", lab.h.log());
    assert_eq!(lab.h.vsctl(&["get", "Interface", "p1", "ofport"]).trim(), "1");
    lab.h.vsctl(&["del-port", "br1", "other"]);
    lab.unharmed();
    // Odd names and values.
    for words in [
        vec!["set", "Open_vSwitch", ".", "other_config:pmd-cpu-mask=zz"],
        vec!["set", "Open_vSwitch", ".", "other_config:max-idle=-1", "other_config:flow-limit=x"],
        vec![
            "set",
            "Open_vSwitch",
            ".",
            "other_config:emc-insert-inv-prob=-5",
            "other_config:tx-flush-interval=x",
        ],
        vec!["set", "Bridge", "br1", "other_config:mac-table-size=-1", "other_config:mac-aging-time=x"],
        vec!["set", "Interface", "p2", "options:n_rxq=-1"],
        vec![
            "add-port",
            "br1",
            "a-name-that-is-much-too-long-for-linux",
            "--",
            "set",
            "Interface",
            "a-name-that-is-much-too-long-for-linux",
            "type=internal",
        ],
        vec!["add-port", "br1", "sl/ash", "--", "set", "Interface", "sl/ash", "type=internal"],
    ] {
        lab.h.vsctl(&words);
        lab.unharmed();
    }
    assert!(lab.h.log().contains("pmd-cpu-mask=zz"));
}

/// Frames of every kind, cut at every byte: all pass as they are.
#[test]
fn truncated_frames() {
    let mut lab = Lab::new(2);
    let v6 = || {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        (a[0], a[15], b[0], b[15]) = (0xfd, 1, 0xfd, 2);
        Ip6::new(a, b)
    };
    let s = || start(1, 2);
    let v4 = || s().ipv4(ip4(1, 2));
    let t = |b: Builder| b.payload(&[0x5a; 12]).finish();
    let mut target = [0; 16];
    (target[0], target[15]) = (0xfe, 9);
    let options = |mut f: Vec<u8>| {
        f[14] = 0x4f;
        f
    };
    let kinds: Vec<Vec<u8>> = vec![
        t(v4().udp(1, 2)),
        t(v4().tcp(1, 2, 0x12)),
        t(v4().sctp(1, 2)),
        t(v4().icmp(8, 0)),
        t(v4().igmp(0x16, 0, [224, 1, 2, 3])),
        options(t(v4().udp(1, 2))),
        t(s().arp(1, mac(1), [10, 0, 0, 1], [0; 6], [10, 0, 0, 2])),
        t(s().ipv6(v6()).udp(1, 2)),
        t(s().ipv6(v6()).tcp(1, 2, 2)),
        t(s().ipv6(v6()).icmpv6(128, 0)),
        t(s().ipv6(v6()).nd(135, target, mac(1), [0; 6])),
        t(s().ipv6(v6()).nd(136, target, [0; 6], mac(1))),
        t(s().ipv6(v6()).ipv6_fragment(1).udp(1, 2)),
        tagged(&t(v4().udp(1, 2)), 7),
        t(s().vlan(0x88a8, 5).vlan(0x8100, 6).ipv4(ip4(1, 2)).tcp(1, 2, 2)),
        t(s().mpls(0x0001_0140).ipv4(ip4(1, 2))),
        t(s().ethertype(0x8847).payload(&[0; 30])),
        t(s().ethertype(40)),
        [&mac(2)[..], &mac(1), &[0, 30, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45, 0, 0, 20], &[7; 20]].concat(),
    ];
    // With rules that look at everything as well as with NORMAL alone.
    let rules = "priority=9,tcp,tp_dst=999,actions=drop\npriority=9,icmp,icmp_type=77,actions=drop\n\
                 priority=9,udp6,tp_src=888,actions=drop\npriority=9,sctp,tp_dst=7,actions=drop\n\
                 priority=8,icmp6,icmp_type=135,nd_target=fe80::77,actions=drop\npriority=8,arp,arp_tpa=1.2.3.4,actions=drop\n\
                 priority=7,mpls,mpls_label=99,actions=drop\npriority=7,tcp,tcp_flags=+syn+ack+fin,actions=drop\n\
                 priority=7,dl_vlan=99,actions=drop\npriority=7,ip,nw_frag=later,nw_tos=252,actions=drop\n";
    for round in 0..2 {
        for (k, frame) in kinds.iter().enumerate() {
            // Linux itself drops what ends within a tag or right behind it.
            let least = if [0x81, 0x88].contains(&frame[12]) && frame[13] != 0x47 { 20 } else { 14 };
            let cuts: Vec<&[u8]> = (least..=frame.len()).map(|n| &frame[..n]).collect();
            for some in cuts.chunks(16) {
                let out = lab.send_all(1, some);
                let expected: Vec<(usize, Vec<u8>)> = some.iter().map(|f| (2, f.to_vec())).collect();
                assert_eq!(out, expected, "kind {k} in round {round}");
            }
        }
        assert_eq!(lab.h.ofctl_stdin(&["add-flows", "br0", "-"], rules).code, 0);
    }
    let show = lab.h.appctl(&["coverage/show"]);
    assert!(!show.contains("datapath_drop_"), "{show}");
    lab.unharmed();
}

/// DPDK wanted where there is no hugepage: `try` goes on without it.
#[test]
fn no_hugepages() {
    let h = Setup::new(Which::Ours)
        .vsctl(&[
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=try",
            "other_config:dpdk-hugepage-dir=/nonexistent",
            "other_config:dpdk-extra=--no-pci",
            "other_config:dpdk-socket-mem=64",
        ])
        .up();
    h.vsctl(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"]);
    assert_eq!(h.vsctl(&["get", "Open_vSwitch", ".", "dpdk_initialized"]).trim(), "false");
    wait_until("the failure is logged", || h.log().contains("|dpdk|EMER|Unable to initialize DPDK: "));
    assert!(h.ofctl(&["dump-flows", "br0"]).contains("NORMAL"));
}
