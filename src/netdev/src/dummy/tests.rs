//! Dummy devices without a switch.

use super::*;
use packet::build::Builder;
use packet::Batch;

struct Owner(DummyFactory);

impl DummyCommands for Owner {
    fn dummies(&self) -> &DummyFactory {
        &self.0
    }
}

fn config(options: &[(&str, &str)]) -> Config {
    let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config { options, ..Config::default() }
}

fn run(o: &mut Owner, name: &str, args: &[&str]) -> std::result::Result<String, String> {
    let all = commands::<Owner>();
    (all.iter().find(|c| c.name == name).unwrap().run)(o, args)
}

fn args_of(p: &dyn Netdev) -> String {
    p.show_args().iter().map(|(k, v)| format!("{k}={v} ")).collect()
}

#[test]
fn addresses_types_and_options() {
    let f = DummyFactory::new(DummyLevel::Override, None);
    let a = f.open("a", "internal", &Config::default()).unwrap();
    let b = f.open("b", "tap", &config(&[("ifindex", "12"), ("n_rxq", "4")])).unwrap();
    assert_eq!((a.mac(), b.mac()[5]), ([0xaa, 0x55, 0xaa, 0x55, 0, 0], 1));
    assert_eq!(
        (a.kind(), a.dpif_type(), b.dpif_type(), b.ifindex()),
        ("internal", "dummy-internal", "tap", 12)
    );
    assert_eq!((b.n_rxq(), b.n_txq(), args_of(b.as_ref()).as_str()), (1, 1, "ifindex=12 "));
    let c = f.open("c", "dummy-pmd", &config(&[("n_rxq", "3"), ("n_txq", "x"), ("numa_id", "1")])).unwrap();
    assert!(c.is_pmd() && c.numa() == Some(1));
    assert_eq!(
        args_of(c.as_ref()),
        "configured_rx_queues=3 configured_tx_queues=1 requested_rx_queues=3 requested_tx_queues=1 "
    );
    assert!(c.set_config(&config(&[("n_rxq", "100000"), ("n_txq", "2")])).unwrap());
    c.reconfigure().unwrap();
    assert_eq!((c.n_rxq(), c.n_txq()), (1024, 2));
    let plain = DummyFactory::new(DummyLevel::Plain, None);
    assert!(matches!(plain.open("x", "internal", &Config::default()), Err(Error::UnknownType(_))));
    drop(a);
    assert!(f.port("a").is_none() && f.ports().len() == 2);
}

#[test]
fn commands_say_what_open_vswitch_says() {
    let mut o = Owner(DummyFactory::new(DummyLevel::Plain, None));
    let p = o.0.open("p1", "dummy", &config(&[("stream", "unix:x")])).unwrap();
    assert_eq!(run(&mut o, "netdev-dummy/conn-state", &[]).unwrap(), "p1: disconnected\n");
    o.0.port("p1").unwrap().set_connected(true);
    assert_eq!(run(&mut o, "netdev-dummy/conn-state", &["p1"]).unwrap(), "p1: connected");
    assert_eq!(run(&mut o, "netdev-dummy/conn-state", &["p2"]).unwrap(), "p2: unknown");
    assert_eq!(run(&mut o, "netdev-dummy/set-admin-state", &["p1", "up"]).unwrap(), "OK");
    assert!(p.link().admin_up);
    assert_eq!(run(&mut o, "netdev-dummy/set-admin-state", &["down"]).unwrap(), "OK");
    assert!(!p.link().up);
    let e = run(&mut o, "netdev-dummy/set-admin-state", &["p1", "foo"]);
    assert_eq!(e.unwrap_err(), "Invalid Admin State");
    let e = run(&mut o, "netdev-dummy/ip4addr", &["nope", "1.2.3.4/24"]);
    assert_eq!(e.unwrap_err(), "Unknown Dummy Interface");
    let e = run(&mut o, "netdev-dummy/ip4addr", &["p1", "foo"]);
    assert_eq!(e.unwrap_err(), "foo: invalid IP address");
    let e = run(&mut o, "netdev-dummy/ip6addr", &["p1", "xx"]);
    assert_eq!(e.unwrap_err(), "xx: invalid IPv6 address");
    let say = |args: &[&str]| parse_receive(&o.0, args).reply;
    assert_eq!(say(&["nope", "00"]).unwrap_err(), "no such dummy netdev");
    assert_eq!(say(&["p1", "00"]).unwrap_err(), "syntax error at 00");
    assert_eq!(say(&["p1", "--qid", "5", "eth()"]).unwrap_err(), "bad rx queue id.");
    assert_eq!(say(&["p1", "eth(),eth_type(0x1234)", "--len", "5"]).unwrap_err(), "too small packet len");
    assert_eq!(say(&["p1", "eth(),eth_type(0x1234)", "--len", "100"]).unwrap(), "");
    assert_eq!(say(&["p1", "50540000000250540000000108 00 45"]).unwrap(), "");
    let mut b = Batch::new();
    p.rx_queue(0).unwrap().recv(&mut b);
    let lens: Vec<usize> = b.as_slice().iter().map(|p| p.data().len()).collect();
    assert_eq!(lens, [100, 15]);
    assert_eq!((p.stats().rx_packets, p.stats().rx_bytes, p.stats().rx_errors), (2, 115, u64::MAX));
    assert_eq!(p.custom_stats()[..2], [("rx_custom_packets_1".into(), 2), ("rx_custom_packets_2".into(), 2)]);
}

#[test]
fn frames_are_settled_when_the_reader_asks_for_more() {
    let f = DummyFactory::new(DummyLevel::Plain, None);
    f.open("p", "dummy", &Config::default()).unwrap();
    assert!(f.port("p").is_none(), "nobody holds it");
    let held = f.open("p", "dummy", &Config::default()).unwrap();
    let p = f.port("p").unwrap();
    (0..200).for_each(|_| p.receive(0, Packet::from_slice(&[0; 60])));
    assert!(p.is_settled(), "nobody reads");
    let mut rx = held.rx_queue(0).unwrap();
    assert!(!p.is_settled());
    let mut n = 0;
    loop {
        let mut b = Batch::new();
        rx.recv(&mut b);
        if b.is_empty() {
            break;
        }
        n += b.len();
        assert!(!p.is_settled());
    }
    assert_eq!(n, 100, "the queue is bounded");
    assert!(p.is_settled());
}

#[test]
fn captures_and_arp_answers() {
    let dir = std::env::temp_dir().join(format!("dummy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("x.pcap");
    let mut o = Owner(DummyFactory::new(DummyLevel::Plain, None));
    let p = o.0.open("p", "dummy", &config(&[("pcap", file.to_str().unwrap())])).unwrap();
    run(&mut o, "netdev-dummy/ip4addr", &["p", "10.0.0.1/24"]).unwrap();
    let ask = Builder::eth([0xff; 6], [2; 6]).arp(1, [2; 6], [10, 0, 0, 9], [0; 6], [10, 0, 0, 1]).finish();
    let mut tx = p.tx_queue(0).unwrap();
    let mut b = Batch::new();
    b.push(Packet::from_slice(&ask)).unwrap();
    b.push(Packet::from_slice(&[0; 2000])).unwrap();
    tx.send(&mut b);
    assert_eq!(b.len(), 1, "too long for the MTU");
    let mut b = Batch::new();
    p.rx_queue(0).unwrap().recv(&mut b);
    let (flow, _) = flow::extract::extract_flow(b.as_slice()[0].data(), &flow::extract::PktMetadata::new(0));
    assert_eq!((flow.nw_proto, flow.arp_sha, flow.nw_src.get()), (2, p.mac(), 0x0a00_0001));
    o.0.port("p").unwrap().receive(0, Packet::from_slice(&[1; 60]));
    let frames = packet::pcap::Reader::new(File::open(&file).unwrap()).unwrap();
    assert_eq!(frames.map(|f| f.unwrap().data.len()).collect::<Vec<_>>(), [ask.len(), 42, 60]);
    std::fs::remove_dir_all(&dir).unwrap();
}
