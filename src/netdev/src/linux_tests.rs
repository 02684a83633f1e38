//! Tests of the Linux ports, each in a network namespace of its own. They need root; without it
//! they fail and say so.

use super::*;
use crate::{RxQueue, Stats};
use infra::linux::{enter_new_network_namespace, wait_readable};
use packet::{Batch, Packet};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

/// Gives the test's thread its own namespace. `false` when the machine has no tap devices and the
/// test needs them.
fn setup(needs_tap: bool) -> bool {
    enter_new_network_namespace().expect("these tests make network namespaces: run them as root");
    ip("link set lo up");
    let have = std::path::Path::new("/dev/net/tun").exists();
    if needs_tap && !have {
        eprintln!("SKIPPED: no /dev/net/tun on this machine");
    }
    have || !needs_tap
}

fn run(program: &str, args: &str) -> String {
    let out = Command::new(program).args(args.split_whitespace()).output();
    let out = out.unwrap_or_else(|e| panic!("{program} cannot be started ({e}): install iproute2, ethtool"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&out.stderr));
    text
}

fn ip(args: &str) -> String {
    run("ip", args)
}

/// No IPv6 chatter on the device, so that tests see their own frames only.
fn quiet(device: &str) {
    // The kernel shows the settings of the namespace of the thread that asks. IPv6 may be off
    // altogether.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1");
    ip(&format!("link set {device} addrgenmode none"));
}

fn open(name: &str, kind: &str) -> Result<Arc<dyn Netdev>> {
    LinuxFactory::new().open(name, kind, &Config::default())
}

fn open_error(name: &str, kind: &str) -> String {
    open(name, kind).err().expect("must be refused").to_string()
}

/// Receives until `want` frames that are ours (EtherType 0x88b5, or whatever `ours` says) are there.
fn receive(rx: &mut dyn RxQueue, want: usize, ours: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let end = Instant::now() + Duration::from_secs(10);
    let (mut got, mut batch) = (Vec::new(), Batch::new());
    while got.len() < want && Instant::now() < end {
        wait_readable(rx.poll_fd().unwrap(), 100).unwrap();
        rx.recv(&mut batch);
        got.extend(batch.drain().map(|p| p.data().to_vec()).filter(|f| ours(f)));
    }
    got
}

fn is_test(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

fn test_frame(n: u8, len: usize) -> Vec<u8> {
    let mut f = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    f.resize(len, n);
    f
}

fn batch_of(frames: &[Vec<u8>]) -> Batch {
    let mut b = Batch::new();
    for f in frames {
        b.push(Packet::from_slice(f)).unwrap();
    }
    b
}

/// Waits until `ready`; tells how it stands when it never is.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < end, "waited 10 s in vain for: {what}");
        std::thread::yield_now();
    }
}

fn veth_pair() {
    ip("link add v0 type veth peer name v1");
    for v in ["v0", "v1"] {
        quiet(v);
        ip(&format!("link set {v} up"));
    }
}

#[test]
fn frames_cross_a_veth_pair_both_ways() {
    setup(false);
    veth_pair();
    let (a, b) = (open("v0", "system").unwrap(), open("v1", "").unwrap());
    a.set_n_txq(3).unwrap();
    let mut tx = a.tx_queue(2).unwrap();
    assert!(a.tx_queue(2).is_err() && a.tx_queue(3).is_err());
    let mut rx = b.rx_queue(0).unwrap();
    let mut own = a.rx_queue(0).unwrap();
    assert!(b.rx_queue(0).is_err() && b.rx_queue(1).is_err());
    let frames: Vec<_> = (0..32).map(|i| test_frame(i, 60 + usize::from(i))).collect();
    let mut batch = batch_of(&frames);
    tx.send(&mut batch);
    assert!(batch.is_empty());
    assert_eq!(receive(&mut *rx, 32, is_test), frames);
    own.recv(&mut batch);
    assert!(batch.drain().all(|p| !is_test(p.data())), "a port does not hear itself");
    let s = a.stats();
    assert_eq!((s.tx_packets, s.tx_dropped), (32, 0));
    assert_eq!(b.stats().rx_packets, 32);
    let back = test_frame(99, 1514);
    b.tx_queue(0).unwrap().send(&mut batch_of(std::slice::from_ref(&back)));
    assert_eq!(receive(&mut *own, 1, is_test), [back]);
}

#[test]
fn frames_that_do_not_fit_stay_in_the_batch() {
    setup(false);
    veth_pair();
    let a = open("v0", "system").unwrap();
    let b = open("v1", "system").unwrap();
    let mut tx = a.tx_queue(0).unwrap();
    let long = test_frame(2, 4000);
    let mut batch = batch_of(&[test_frame(1, 60), long.clone(), test_frame(3, 60), vec![1, 2, 3]]);
    tx.send(&mut batch);
    assert_eq!(batch.len(), 2);
    assert_eq!(batch.as_slice()[0].data(), &long[..]);
    assert_eq!(tx.max_frame(), 1518);
    let arrived = receive(&mut *b.rx_queue(0).unwrap(), 2, is_test);
    assert_eq!(arrived, [test_frame(1, 60), test_frame(3, 60)]);
    assert_eq!(a.stats().tx_dropped, 2);
    a.set_admin_up(false).unwrap();
    let mut batch = batch_of(&[test_frame(1, 60)]);
    tx.send(&mut batch);
    assert_eq!(batch.len(), 1);
    assert_eq!(a.stats().tx_dropped, 3);
}

#[test]
fn vlan_tags_are_kept() {
    setup(false);
    veth_pair();
    let (a, b) = (open("v0", "system").unwrap(), open("v1", "system").unwrap());
    let mut rx = b.rx_queue(0).unwrap();
    let tagged = |tags: &[u8]| {
        let f = test_frame(7, 60);
        [&f[..12], tags, &f[12..]].concat()
    };
    let frames = [tagged(&[0x81, 0, 0x60, 0x64]), tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])];
    a.tx_queue(0).unwrap().send(&mut batch_of(&frames));
    let got = receive(&mut *rx, 2, |f| f.ends_with(&[7; 40]));
    assert_eq!(got, frames);
}

/// A host behind v1 sends TCP to a host behind a port; both stacks use offloads.
#[test]
fn local_senders_offloads_are_completed() {
    setup(false);
    veth_pair();
    ip("addr add 10.0.0.1/24 dev v1");
    ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:09 dev v1");
    let port = open("v0", "system").unwrap();
    let mut rx = port.rx_queue(0).unwrap();
    let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
    socket.send_to(&[0x5a; 999], "10.0.0.2:7").unwrap();
    let is_udp = |f: &[u8]| f.len() > 34 && f[12..14] == [8, 0] && f[23] == 17;
    let got = receive(&mut *rx, 1, is_udp).remove(0);
    assert_eq!(got.len(), 14 + 20 + 8 + 999);
    assert_eq!(ones_sum(&got[26..], 17 + (8 + 999)), 0xffff, "complete UDP checksum");
}

/// The folded sum of big-endian words; 0xffff for a packet with a right checksum.
fn ones_sum(bytes: &[u8], start: u32) -> u32 {
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)));
    let s = words.fold(start, |a, b| a + b);
    let s = (s & 0xffff) + (s >> 16);
    (s & 0xffff) + (s >> 16)
}

#[test]
fn a_tcp_train_arrives_as_segments_with_right_checksums() {
    setup(false);
    // Two hosts in two namespaces, joined by two veth pairs and a wire made of two ports here.
    ip("link add v0 type veth peer name v1");
    ip("link add w0 type veth peer name w1");
    for d in ["v0", "w0"] {
        quiet(d);
        ip(&format!("link set {d} up"));
    }
    let hosts = [("v1", "10.0.0.1"), ("w1", "10.0.0.2")];
    let (mut to_main, mut threads) = (Vec::new(), Vec::new());
    for (device, address) in hosts {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (tid_tx, tid) = std::sync::mpsc::channel();
        to_main.push(go);
        threads.push(std::thread::spawn(move || {
            enter_new_network_namespace().unwrap();
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            tid_tx.send(link.file_name().unwrap().to_str().unwrap().to_owned()).unwrap();
            let _ = gone.recv();
            ip(&format!("addr add {address}/24 dev {device}"));
            ip(&format!("link set {device} up"));
            if address == "10.0.0.2" {
                let listener = std::net::TcpListener::bind((address, 7)).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut got = Vec::new();
                std::io::Read::read_to_end(&mut stream, &mut got).unwrap();
                got.len() as u64
            } else {
                let end = Instant::now() + Duration::from_secs(10);
                let mut stream = loop {
                    match std::net::TcpStream::connect_timeout(
                        &"10.0.0.2:7".parse().unwrap(),
                        Duration::from_secs(5),
                    ) {
                        Ok(s) => break s,
                        Err(e) => assert!(Instant::now() < end, "connect: {e}"),
                    }
                };
                std::io::Write::write_all(&mut stream, &vec![1; 2_000_000]).unwrap();
                2_000_000
            }
        }));
        let tid = tid.recv().unwrap();
        ip(&format!("link set {device} netns {tid}"));
    }
    let (a, b) = (open("v0", "system").unwrap(), open("w0", "system").unwrap());
    let mut ends =
        [(a.rx_queue(0).unwrap(), b.tx_queue(0).unwrap()), (b.rx_queue(0).unwrap(), a.tx_queue(0).unwrap())];
    to_main.clear();
    let end = Instant::now() + Duration::from_secs(30);
    let mut batch = Batch::new();
    while !threads.iter().all(|t| t.is_finished()) {
        assert!(Instant::now() < end, "2 MB of TCP did not arrive in 30 s");
        for (rx, tx) in &mut ends {
            rx.recv(&mut batch);
            assert!(batch.as_slice().iter().all(|p| p.len() <= 1514), "segments, not trains");
            tx.send(&mut batch);
            batch.clear();
        }
    }
    for t in threads {
        assert_eq!(t.join().unwrap(), 2_000_000);
    }
}

#[test]
fn a_tap_joins_the_host_and_goes_with_its_port() {
    if !setup(true) {
        return;
    }
    let port = open("br9", "internal").unwrap();
    assert_eq!((port.kind(), port.dpif_type(), port.is_pmd()), ("internal", "tap", false));
    assert!(port.ifindex() > 0);
    assert!(!port.link().admin_up && !port.link().up);
    let mut rx = port.rx_queue(0).unwrap();
    let mut tx = port.tx_queue(0).unwrap();
    let mut batch = batch_of(&[test_frame(1, 60), test_frame(2, 60)]);
    tx.send(&mut batch);
    assert_eq!(batch.len(), 2, "the host is not up");
    assert_eq!(port.stats().tx_dropped, 2);
    port.set_mac([2, 0, 0, 0, 0, 0x77]).unwrap();
    assert_eq!(port.mac(), [2, 0, 0, 0, 0, 0x77]);
    port.set_mtu(1400).unwrap();
    assert_eq!((port.mtu(), tx.max_frame()), (1400, 1418));
    quiet("br9");
    port.set_admin_up(true).unwrap();
    until("link up", || port.link().up);
    assert!(port.link().admin_up && port.link().resets >= 1);
    batch.clear();
    // The host sees what the port sends, the port sees what the host sends.
    let host = open("br9", "system").unwrap();
    let (mut host_rx, mut host_tx) = (host.rx_queue(0).unwrap(), host.tx_queue(0).unwrap());
    tx.send(&mut batch_of(&[test_frame(3, 70)]));
    assert_eq!(receive(&mut *host_rx, 1, is_test), [test_frame(3, 70)]);
    host_tx.send(&mut batch_of(&[test_frame(4, 80), test_frame(5, 90)]));
    assert_eq!(receive(&mut *rx, 2, is_test), [test_frame(4, 80), test_frame(5, 90)]);
    let s = port.stats();
    assert_eq!((s.tx_packets, s.tx_bytes, s.tx_dropped), (1, 70, 2));
    assert_eq!((s.rx_packets, s.rx_bytes), (2, 170));
    assert_eq!(port.status()["driver_name"], "tun");
    assert!(open_error("br9", "tap").contains("could not open network device br9 (Device or resource busy)"));
    drop((port, tx, rx));
    // A child that another test starts may hold the descriptor for a moment.
    until("the device to go", || host.ifindex() == 0);
    assert_eq!(host.stats(), Stats::UNSUPPORTED);
    assert!(!host.link().up);
}

#[test]
fn a_tap_is_kept_for_the_next_process_when_asked() {
    if !setup(true) {
        return;
    }
    let factory = LinuxFactory::new();
    let port = factory.open("br8", "internal", &Config::default()).unwrap();
    let index = port.ifindex();
    factory.keep_devices();
    drop(port);
    let again = open("br8", "internal").unwrap();
    assert_eq!(again.ifindex(), index);
    drop(again);
    until("the device to go", || open("br8", "system").is_err());
}

#[test]
fn a_deleted_tap_is_quiet() {
    if !setup(true) {
        return;
    }
    let port = open("t0", "tap").unwrap();
    let (mut rx, mut tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
    let poll = rx.poll_fd().unwrap();
    ip("link del t0");
    let mut batch = Batch::new();
    until("the descriptor to report the deletion or nothing", || {
        rx.recv(&mut batch);
        !wait_readable(poll, 0).unwrap()
    });
    let mut batch = batch_of(&[test_frame(1, 60)]);
    tx.send(&mut batch);
    assert_eq!(batch.len(), 1);
    assert!(!wait_readable(poll, 0).unwrap());
    assert_eq!(port.stats(), Stats::UNSUPPORTED);
    assert_eq!(port.ifindex(), 0);
}

#[test]
fn a_port_follows_an_interface_that_comes_back() {
    setup(false);
    veth_pair();
    let port = open("v0", "system").unwrap();
    let mut rx = port.rx_queue(0).unwrap();
    assert!(port.link().up);
    ip("link del v0");
    assert!(!port.link().up && port.status().is_empty() && port.mac() == [0; 6]);
    let mut batch = Batch::new();
    until("quiet", || {
        rx.recv(&mut batch);
        batch.clear();
        !wait_readable(rx.poll_fd().unwrap(), 0).unwrap()
    });
    veth_pair();
    until("link up", || port.link().up);
    let peer = open("v1", "system").unwrap();
    peer.tx_queue(0).unwrap().send(&mut batch_of(&[test_frame(1, 60)]));
    assert_eq!(receive(&mut *rx, 1, is_test).len(), 1);
}

#[test]
fn what_a_veth_says_of_itself() {
    setup(false);
    veth_pair();
    let port = open("v0", "system").unwrap();
    assert_eq!((port.kind(), port.dpif_type(), port.n_rxq()), ("system", "system", 1));
    let l = port.link();
    assert!(l.up && l.admin_up && l.full_duplex && l.resets == 0);
    assert_eq!(l.speed_bps, 10_000_000_000);
    assert_eq!(port.features().current, 1 << 6 | 1 << 11, "10GB-FD COPPER");
    let status = port.status();
    let text: Vec<_> = status.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(text, ["driver_name=veth", "driver_version=1.0", "firmware_version="]);
    port.set_mtu(9000).unwrap();
    assert_eq!(port.mtu(), 9000);
    let e = port.set_mtu(5).unwrap_err();
    assert_eq!(e.to_string(), "failed to set MTU for network device v0: Invalid argument");
    ip("link set v1 down");
    until("link down", || !port.link().up);
    assert!(port.link().admin_up && port.link().resets >= 1);
}

#[test]
fn refusals_name_device_and_reason() {
    setup(false);
    let no_device = "could not open network device nope0 (No such device)";
    assert_eq!(open_error("nope0", "system"), no_device);
    let long = "averyveryverylongname0";
    assert_eq!(open_error(long, ""), format!("could not open network device {long} (No such device)"));
    assert_eq!(open_error("lo", "system"), "could not add network device lo to ofproto (Invalid argument)");
    assert_eq!(open_error("x", "foobar"), "foobar: unknown interface type");
    if std::path::Path::new("/dev/net/tun").exists() {
        ip("link add d0 type bridge");
        assert_eq!(open_error("d0", "internal"), "could not open network device d0 (Invalid argument)");
    }
}

#[test]
fn every_descriptor_is_closed() {
    setup(false);
    veth_pair();
    // Descriptors of other tests come and go; the numbers this test gets must not climb.
    let highest = |_| {
        let port = open("v0", "system").unwrap();
        let rx = port.rx_queue(0).unwrap();
        let probe = std::fs::File::open("/dev/null").unwrap();
        drop(rx);
        probe.as_raw_fd()
    };
    assert!((0..200).map(highest).max().unwrap() < 200);
}
