//! Everything that needs a running EAL, in one process (EAL starts once) and in one test: no
//! hugepages, no NIC, no privileges.

use dpdk::{DpdkFactory, EalConfig, Outcome};
use netdev::{Config, Factory, Netdev, RxQueue, TxQueue};
use packet::{Batch, Packet};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EAL: &str = include_str!("../../../dpdk-config/eal-test.args");

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn options(pairs: &[(&str, &str)]) -> Config {
    Config { options: map(pairs), ..Config::default() }
}

fn open(name: &str, config: &Config) -> netdev::Result<Arc<dyn Netdev>> {
    DpdkFactory.open(name, "dpdk", config)
}

fn port(name: &str, devargs: &str) -> Arc<dyn Netdev> {
    open(name, &options(&[("dpdk-devargs", devargs)])).expect(devargs)
}

fn error(name: &str, pairs: &[(&str, &str)]) -> String {
    match open(name, &options(pairs)) {
        Ok(_) => panic!("{name} opened"),
        Err(e) => e.to_string(),
    }
}

/// Frame `i` of a test file: 60 bytes or more, the number in its source address.
fn frame(i: u32, len: usize) -> Vec<u8> {
    let mut f = vec![0; len.max(60)];
    f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    f[6] = 2;
    f[8..12].copy_from_slice(&i.to_be_bytes());
    f[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    f
}

/// A file that is removed on drop.
struct TempFile(PathBuf);
impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pcap(name: &str, frames: impl Iterator<Item = Vec<u8>>) -> TempFile {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.pcap", std::process::id()));
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
        out.extend(word.to_le_bytes());
    }
    for f in frames {
        for word in [0, 0, f.len() as u32, f.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(f);
    }
    std::fs::write(&path, out).expect("test file");
    TempFile(path)
}

fn queues(p: &Arc<dyn Netdev>) -> (Box<dyn RxQueue>, Box<dyn TxQueue>) {
    (p.rx_queue(0).expect("rx queue"), p.tx_queue(0).expect("tx queue"))
}

fn stat(p: &Arc<dyn Netdev>, name: &str) -> u64 {
    p.custom_stats().into_iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}")).1
}

fn before_eal() {
    let off = EalConfig::from_other_config("test", &map(&[]));
    assert_eq!(dpdk::init(&off).expect("off"), Outcome::Disabled);
    assert_eq!(error("p0", &[("dpdk-devargs", "net_null0")]), "dpdk: unknown interface type");
    assert!(dpdk::register_thread().is_none());
    assert!(command("dpdk/lcore-list", &[]).is_err());
    assert!(dpdk::version().starts_with("DPDK "));
}

fn start_eal() {
    let affinity = infra::cpu::allowed();
    let c = EalConfig::from_other_config("test", &map(&[("dpdk-init", "true"), ("dpdk-extra", EAL.trim())]));
    assert_eq!(dpdk::init(&c).expect("EAL starts"), Outcome::Initialized);
    assert_eq!(dpdk::init(&c).expect("again"), Outcome::Initialized);
    assert_eq!(infra::cpu::allowed(), affinity, "the main thread keeps its affinity");
    assert!(dpdk::eal::lcore_list().contains("lcore"));
    assert!(dpdk::eal::log_list().starts_with("global log level"));
    assert_eq!(dpdk::eal::log_set(&["foo"]).unwrap_err(), "invalid log level: 'foo'");
    dpdk::eal::log_set(&["lib.eal:info"]).expect("a known level");
}

/// All packets of a file, in order, byte for byte, from one port to the other.
fn replay() {
    let file = pcap("replay", (0..1000).map(|i| frame(i, 60 + i as usize % 1400)));
    let from = port("from", &format!("net_pcap0,rx_pcap={}", file.0.display()));
    let to = port("to", "net_null0,no-rx=1");
    assert_eq!((from.n_rxq(), from.n_txq(), from.is_pmd(), from.kind()), (1, 1, true, "dpdk"));
    to.set_n_txq(3).expect("tx queues");
    assert_eq!(to.n_txq(), 3);
    let (mut rx, _tx) = queues(&from);
    assert!(from.rx_queue(0).is_err(), "a queue is taken once");
    assert!(from.rx_queue(9).is_err());
    assert!(from.reconfigure().is_err(), "queues are out");
    let mut tx = to.tx_queue(2).expect("tx queue");
    let mut batch = Batch::new();
    let mut n = 0u32;
    loop {
        assert_eq!(rx.recv(&mut batch), 0);
        if batch.is_empty() {
            break;
        }
        for p in batch.as_slice() {
            assert_eq!(p.data(), frame(n, 60 + n as usize % 1400), "frame {n}");
            assert!(!p.is_heap());
            n += 1;
        }
        tx.send(&mut batch);
        assert!(batch.is_empty());
    }
    assert_eq!(n, 1000);
    assert_eq!(from.stats().rx_packets, 1000);
    assert_eq!(to.stats().tx_packets, 1000);
    assert_eq!(stat(&to, "tx_q2_packets"), 1000);
    drop((rx, tx));
    assert!(from.rx_queue(0).is_ok(), "given back");
}

/// The whole file is in buffers, again and again.
fn endless_replay() {
    let file = pcap("endless", (0..5000).map(|i| frame(i, 60)));
    let p = port("endless", &format!("net_pcap7,rx_pcap={},infinite_rx=1", file.0.display()));
    p.set_n_txq(2).expect("asks");
    assert_eq!(p.n_txq(), 1, "net_pcap gives one");
    let (mut rx, _tx) = queues(&p);
    let mut batch = Batch::new();
    for i in 0..400u32 {
        rx.recv(&mut batch);
        assert_eq!(batch.len(), 32);
        assert_eq!(batch.as_slice()[0].data(), frame(i * 32 % 5000, 60));
        batch.clear();
    }
    drop((rx, _tx));
    // Its queues cannot be set up twice: the device is probed again.
    p.set_config(&options(&[
        ("dpdk-devargs", &format!("net_pcap7,rx_pcap={},infinite_rx=1", file.0.display())),
        ("n_rxq_desc", "512"),
    ]))
    .expect("new descriptors");
    p.reconfigure().expect("after a new probe");
    let mut rx = p.rx_queue(0).expect("rx queue");
    rx.recv(&mut batch);
    assert_eq!(batch.as_slice()[0].data(), frame(0, 60));
}

/// Heap packets are copied, too long ones dropped and counted.
fn sending() {
    let p = port("send", "net_null3,no-rx=1");
    let (mut rx, mut tx) = queues(&p);
    let mut batch = Batch::new();
    rx.recv(&mut batch);
    assert!(batch.is_empty());
    tx.send(&mut batch);
    assert_eq!(tx.max_frame(), 1518);
    for len in [60, 1518, 1519, 9000, 100] {
        batch.push(Packet::from_slice(&frame(0, len))).expect("room");
    }
    tx.send(&mut batch);
    assert!(batch.is_empty());
    assert_eq!(p.stats().tx_packets, 3);
    assert_eq!(stat(&p, "ovs_tx_mtu_exceeded_drops"), 2);
    assert_eq!(p.stats().tx_dropped, 2);
    assert_eq!(stat(&p, "ovs_tx_failure_drops"), 0);
    drop((rx, tx));
    p.set_mtu(9000).expect("mtu");
    p.reconfigure().expect("mtu");
    assert_eq!(p.mtu(), 9000);
    let mut tx = p.tx_queue(0).expect("tx queue");
    batch.push(Packet::from_slice(&frame(0, 9000))).expect("room");
    tx.send(&mut batch);
    assert_eq!(p.stats().tx_packets, 4);
    assert!(p.set_mtu(65000).unwrap_err().to_string().starts_with("send: unsupported MTU 65000"));
}

/// What goes out comes back in: bytes, headroom, copies.
fn ring() {
    let p = port("ring", "net_ring0");
    let (mut rx, mut tx) = queues(&p);
    let mut batch = Batch::new();
    for i in 0..20 {
        batch.push(Packet::from_slice(&frame(i, 60 + i as usize))).expect("room");
    }
    tx.send(&mut batch);
    rx.recv(&mut batch);
    assert_eq!(batch.len(), 20);
    for (i, p) in batch.as_mut_slice().iter_mut().enumerate() {
        assert_eq!(p.data(), frame(i as u32, 60 + i));
        assert!(p.push_front(4), "headroom");
        let copy = p.try_clone().expect("copy");
        assert!(!copy.is_heap());
        assert_eq!(copy.data(), p.data());
        assert_ne!(copy.data().as_ptr(), p.data().as_ptr());
    }
}

/// A pool without buffers gives no copies, loses nothing, and recovers.
fn exhaustion() {
    let file = pcap("exhaust", (0..32).map(|i| frame(i, 60)));
    let p = port("exhaust", &format!("net_pcap1,rx_pcap={},infinite_rx=1", file.0.display()));
    let mut rx = p.rx_queue(0).expect("rx queue");
    let mut batch = Batch::new();
    rx.recv(&mut batch);
    let first = batch.pop().expect("a packet");
    let mut copies = Vec::new();
    while let Some(c) = first.try_clone() {
        copies.push(c);
        assert!(copies.len() < 1 << 20, "the pool has an end");
    }
    assert!(copies.len() > 1000);
    batch.clear();
    drop(first);
    while batch.is_empty() {
        // Whatever the drop above gave back.
        rx.recv(&mut batch);
        if !batch.is_empty() {
            break;
        }
        copies.pop();
    }
    copies.clear();
    batch.clear();
    rx.recv(&mut batch);
    assert_eq!(batch.len(), 32, "buffers are back");
    assert!(batch.as_slice()[0].try_clone().is_some());
}

fn attach_and_detach() {
    let a = port("a", "net_null5,no-rx=1");
    assert_eq!(
        error("b", &[("dpdk-devargs", "net_null5,no-rx=1")]),
        "'b' is trying to use device 'net_null5,no-rx=1' which is already in use by 'a'"
    );
    assert!(dpdk::detach("net_null5").unwrap_err().contains("is being used by the following interfaces: a."));
    let (rx, _tx) = queues(&a);
    drop(a);
    assert!(open("b", &options(&[("dpdk-devargs", "net_null5,no-rx=1")])).is_err(), "a queue is still out");
    drop((rx, _tx));
    assert_eq!(dpdk::detach("net_null5").unwrap_err(), "Device 'net_null5' not found in DPDK");
    let b = port("b", "net_null5,no-rx=1");
    assert_eq!(b.n_rxq(), 1);
    // Another device takes over when the port is reconfigured.
    let other = options(&[("dpdk-devargs", "net_null6,no-rx=1")]);
    assert!(b.set_config(&other).expect("other device"));
    b.reconfigure().expect("other device");
    drop(port("c", "net_null5,no-rx=1"));
    assert!(error("c", &[("dpdk-devargs", "net_null6")]).ends_with("in use by 'b'"));
}

fn errors() {
    let bogus = error("x", &[("dpdk-devargs", "net_bogus0")]);
    assert!(bogus.starts_with("Error attaching device 'net_bogus0' to DPDK: "), "{bogus}");
    assert!(bogus.contains("net_bogus0\""), "{bogus}");
    let pci = error("x", &[("dpdk-devargs", "0000:ff:10.0")]);
    assert!(pci.starts_with("Error attaching device '0000:ff:10.0' to DPDK: "), "{pci}");
    let file = error("x", &[("dpdk-devargs", "net_pcap9,rx_pcap=/nonexistent/x.pcap")]);
    assert!(file.contains("/nonexistent/x.pcap") || file.contains("net_pcap9"), "{file}");
    let mac = error("x", &[("dpdk-devargs", "class=eth,mac=00:11:22:33:44:55")]);
    assert!(mac.starts_with("Error attaching device 'class=eth,mac=00:11:22:33:44:55' to DPDK"), "{mac}");
    let mac = error("x", &[("dpdk-devargs", "class=eth,mac=zz")]);
    assert!(mac.contains("invalid mac: zz"), "{mac}");
    assert!(error("x", &[]).contains("is missing 'options:dpdk-devargs'"));
    assert!(error("x", &[("dpdk-devargs", "net_null0\0x")]).contains("Error attaching"));
    for junk in ["", ",", "=", "net_null0,=,", "class=", "\u{1f}", "0000:00", "net_pcap0,rx_pcap"] {
        assert!(open("x", &options(&[("dpdk-devargs", junk)])).is_err(), "{junk:?}");
    }
    let long = "n".repeat(100_000);
    assert!(open("x", &options(&[("dpdk-devargs", &long)])).is_err());
}

fn command(name: &str, args: &[&str]) -> Result<String, String> {
    let all = dpdk::commands::<()>();
    let c = all.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}"));
    assert!((c.min..=c.max).contains(&args.len()));
    (c.run)(&mut (), args)
}

fn control() {
    let p = port("c0", "net_null4,no-rx=1");
    assert_eq!(p.n_rxq(), 1);
    assert!(command("dpdk/lcore-list", &[]).expect("list").contains("lcore"));
    assert!(command("dpdk/get-malloc-stats", &[]).expect("stats").contains("Heap_size"));
    assert_eq!(command("dpdk/log-set", &["x:y"]).unwrap_err(), "invalid log level: 'y'");
    assert_eq!(command("netdev-dpdk/set-admin-state", &["c0", "up"]).as_deref(), Ok("OK"));
    assert_eq!(command("netdev-dpdk/set-admin-state", &["up"]).as_deref(), Ok("OK"));
    assert_eq!(command("netdev-dpdk/set-admin-state", &["c9", "up"]).unwrap_err(), "Not a DPDK Interface");
    assert!(command("netdev-dpdk/get-mempool-info", &["c0"]).expect("info").starts_with("mempool <ovs"));
    assert_eq!(
        command("netdev-dpdk/detach", &["net_null4"]).unwrap_err(),
        "Device 'net_null4' is being used by the following interfaces: c0. Remove them before detaching."
    );
    assert_eq!(
        command("netdev-dpdk/detach", &["net_null99"]).unwrap_err(),
        "Device 'net_null99' not found in DPDK"
    );
}

fn windows() {
    let p = open("w", &options(&[("dpdk-devargs", "net_null8"), ("n_rxq", "2000")])).expect("port");
    p.set_n_txq(2).expect("tx queues");
    assert_eq!(p.n_rxq(), 1024, "as many as there are");
    let by_mac = p.mac().map(|b| format!("{b:02x}")).join(":");
    assert!(error("v", &[("dpdk-devargs", &format!("class=eth,mac={by_mac}"))]).ends_with("by 'w'"));
    p.set_config(&options(&[("dpdk-devargs", "net_null8"), ("n_rxq", "2")])).expect("two");
    p.reconfigure().expect("two");
    let args: Vec<String> = p.show_args().into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        args.join(", "),
        "configured_rx_queues=2, configured_rxq_descriptors=2048, configured_tx_queues=2, \
         configured_txq_descriptors=2048, lsc_interrupt_mode=false, mtu=1500, requested_rx_queues=2, \
         requested_rxq_descriptors=2048, requested_tx_queues=2, requested_txq_descriptors=2048, \
         rx_csum_offload=false, tx_tso_offload=false"
    );
    let status = p.status();
    for (key, value) in [
        ("bus_info", "bus_name=vdev"),
        ("driver_name", "net_null"),
        ("if_type", "6"),
        ("link_speed", "10Gbps"),
        ("max_rx_pktlen", "1518"),
        ("max_rx_queues", "1024"),
        ("numa_id", "0"),
    ] {
        assert_eq!(status[key], value, "{key}");
    }
    assert_eq!(status["if_descr"], format!("{} net_null", dpdk::version()));
    assert_eq!(status.len(), 15);
    let link = p.link();
    assert!(link.up && link.admin_up && link.full_duplex);
    assert_eq!((link.speed_bps, link.resets), (10_000_000_000, 0));
    assert_eq!(p.features().current, 1 << 6);
    assert_eq!(stat(&p, "rx_q1_errors"), 0);
    p.set_mac([2, 0, 0, 0, 0, 9]).expect("address");
    assert_eq!(p.mac(), [2, 0, 0, 0, 0, 9]);
    assert!(dpdk::mempool_info(Some("w")).expect("pool").starts_with("mempool <ovs"));
    assert!(dpdk::mempool_info(None).expect("pools").contains("mempool <ovs"));
    assert_eq!(dpdk::mempool_info(Some("nobody")).unwrap_err(), "Not a DPDK Interface");
    assert_eq!(dpdk::set_admin_state(Some("w"), "sideways").unwrap_err(), "Invalid Admin State");
    dpdk::set_admin_state(Some("w"), "down").expect("down");
    assert!(!p.link().admin_up);
}

/// Packets cross threads; registered threads have caches of their own.
fn threads() {
    let p = port("thread", "net_null9");
    let mut rx = p.rx_queue(0).expect("rx queue");
    let held = std::thread::spawn(move || {
        let guard = dpdk::register_thread().expect("lcores are left");
        let mut batch = Batch::new();
        rx.recv(&mut batch);
        drop((guard, rx));
        batch
    })
    .join()
    .expect("thread");
    assert_eq!(held.len(), 32);
    drop(p);
    drop(held);
    dpdk::run();
}

#[test]
fn eal() {
    before_eal();
    start_eal();
    replay();
    endless_replay();
    sending();
    ring();
    exhaustion();
    attach_and_detach();
    errors();
    windows();
    control();
    threads();
    assert_eq!(dpdk::mempool_info(None).expect("pools"), "", "every pool is freed with its last user");
    dpdk::cleanup();
    assert!(!dpdk::is_initialized());
}
