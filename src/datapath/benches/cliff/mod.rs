//! What many masks cost, and what they cost others: 1 to 1,000 masks in use, and a tuple space explosion.

use super::wire::Attack;
use super::{best, output, quick_clock, share, wire, Rule, Table};
use datapath::{Datapath, DpConfig, DpOptions, Miss};
use flow::{Be16, Be32, Mask};
use infra::clock::{tsc, tsc_hz};
use std::sync::Arc;
use std::time::Duration;

/// Attacking packets a second, as in CVE-2019-25076.
const ATTACK_RATE: u64 = 1_000;
/// Masks that ten seconds of attack leave behind.
const ATTACK_MASKS: usize = 10_000;
/// Packets of the attack that are timed.
const ATTACK_MORE: usize = 2_000;

/// Frames of `n` flows that take turns over `masks` destination ports.
fn frames(n: u32, masks: u32) -> Vec<Vec<u8>> {
    let mut frames = wire::flows(n, 60);
    for (i, f) in frames.iter_mut().enumerate() {
        f[36..38].copy_from_slice(&(2_048 + (i as u32 * 7 % masks) as u16).to_be_bytes());
    }
    frames
}

fn prefix(len: u32) -> Be32 {
    Be32::new(!0 << (32 - len))
}

/// A mask for each destination port: the port, and prefixes of addresses and source port, few megaflows each.
fn mask_of_port(req: &Miss<'_>, m: &mut Mask) {
    let n = u32::from(req.flow.tp_dst.get()) - 2_048;
    m.0.nw_proto = 255;
    m.0.tp_dst = Be16::MAX;
    m.0.nw_dst = prefix(n % 23 + 1);
    m.0.nw_src = prefix(n / 23 % 16 + 1);
    m.0.tp_src = Be16::new([0, 0x8000, 0xc000][n as usize / 368 % 3]);
}

/// As `mask_of_port`, where the simple match does not help.
fn slow_mask_of_port(req: &Miss<'_>, m: &mut Mask) {
    mask_of_port(req, m);
    super::slow(m);
    m.0.nw_proto = 0;
}

/// Runs with so many masks in use; cycles a packet.
pub fn masks(name: &str, masks: u32, slow: bool, emc: u32, flows: u32) {
    let frames = frames(flows, masks);
    let warm = frames.len() * 3 / 12_800 + 3;
    let rule = if slow { output(slow_mask_of_port) } else { output(mask_of_port) };
    let dp = datapath(rule, frames, Attack::default(), emc);
    let round = || (0..400).map(|_| dp.step()).sum();
    for _ in 0..warm {
        let _: usize = round();
        dp.drain_events(usize::MAX, &mut |_| ());
    }
    let cycles = best(300, round);
    let s = dp.total_stats();
    let all = s.received;
    println!(
        "{name:<24} {cycles:7.1}                   simple {:5.1} % smc {:5.1} % emc {:5.1} % megaflow {:5.1} %  flows {}",
        share(s.simple_hits, all),
        share(s.smc_hits, all),
        share(s.emc_hits, all),
        share(s.megaflow_hits, all),
        dp.flow_count()
    );
}

fn datapath(rule: Rule, frames: Vec<Vec<u8>>, attack: Attack, emc: u32) -> Arc<Datapath> {
    let pool = wire::pool(256, 1500);
    let options =
        DpOptions { threads: false, lazy_clock: true, clock: quick_clock(), ..DpOptions::default() };
    let dp = Datapath::new("bench", Arc::new(Table(rule)), options).expect("datapath");
    dp.set_config(DpConfig { emc_insert_inv_prob: emc, ..DpConfig::default() }).expect("config");
    dp.add_port(wire::Wire::with_attack("in", frames, attack, &pool), None).expect("port");
    dp.add_port(wire::Wire::new("out", Vec::new(), &pool), None).expect("port");
    dp
}

/// Packet `i` of an attack on a rule for one connection: it differs from it first at other bits than those before.
fn attacker(i: u32) -> Vec<u8> {
    let noise = i.wrapping_mul(0x9e37_79b9);
    let differ = |v: u32, bits: u32, at: u32| {
        let flip = 1u32 << (bits - 1 - at);
        (v ^ flip) & !(flip - 1) | noise & (flip - 1)
    };
    let mut f = wire::udp(0, 60);
    f[0] = 6;
    f[23] = 6;
    f[46] = 0x50;
    f[26..30].copy_from_slice(&differ(0xc0a8_0101, 32, i % 32).to_be_bytes());
    f[30..34].copy_from_slice(&differ(0xc0a8_0202, 32, i / 32 % 32).to_be_bytes());
    f[34..36].copy_from_slice(&(differ(0x1389, 16, i / 1_024 % 16) as u16).to_be_bytes());
    f
}

/// What a lookup in four rules, each exact in one field of the connection, looks at.
fn attacked(req: &Miss<'_>, m: &mut Mask) {
    let looked = |have: u32, rule: u32| prefix(((have ^ rule).leading_zeros() + 1).min(32));
    m.0.nw_proto = 255;
    if req.flow.nw_proto == 17 {
        m.0.nw_dst = prefix(8);
        return;
    }
    m.0.nw_src = looked(req.flow.nw_src.get(), 0xc0a8_0101);
    m.0.nw_dst = looked(req.flow.nw_dst.get(), 0xc0a8_0202);
    let port = looked(u32::from(req.flow.tp_src.get()) << 16, 0x1389_0000).get();
    m.0.tp_src = Be16::new((port >> 16) as u16);
}

/// As `attacked`, where the simple match does not help.
fn slow_attacked(req: &Miss<'_>, m: &mut Mask) {
    attacked(req, m);
    super::slow(m);
    m.0.nw_proto = 0;
    m.0.dl_dst = [255; 6];
}

/// Cycles a step in the middle of `steps`.
fn median(dp: &Datapath, steps: usize) -> f64 {
    let mut cycles: Vec<u64> = (0..steps)
        .map(|_| {
            let start = tsc();
            dp.step();
            tsc() - start
        })
        .collect();
    cycles.sort_unstable();
    cycles[steps / 2] as f64
}

/// What an attack on the port that it shares takes from a victim. `late`: the attack is there first.
///
/// Three figures that a busy machine does not disturb make the loss: what a packet of the victim costs before, what it
/// costs among the masks of ten seconds of attack, and what each packet of the attack costs.
pub fn explosion(name: &str, slow: bool, late: bool) {
    let rule = || if slow { output(slow_attacked) } else { output(attacked) };
    let victim = wire::flows(100_000, 60);
    let round = |dp: &Datapath| (0..400).map(|_| dp.step()).sum::<usize>();
    let settle = |dp: &Datapath| {
        for _ in 0..3 {
            (0..30).for_each(|_| assert!(round(dp) > 0));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let calm = datapath(rule(), victim.clone(), Attack::default(), 100);
    settle(&calm);
    let before = best(300, || round(&calm));
    drop(calm);
    let attack = Attack {
        frames: (0..ATTACK_MASKS as u32 + ATTACK_MORE as u32).map(attacker).collect(),
        at_once: ATTACK_MASKS,
        first: late,
        pause: tsc_hz() * 3,
    };
    let dp = datapath(rule(), victim, attack, 100);
    settle(&dp);
    let have = dp.flow_count();
    let base = dp.total_stats();
    let among = best(300, || round(&dp));
    let s = dp.total_stats().since(&base);
    let calm_step = median(&dp, ATTACK_MORE / 2);
    while dp.flow_count() == have {
        dp.step();
    }
    let attack_step = median(&dp, ATTACK_MORE / 2);
    let each = (attack_step - calm_step).max(0.0);
    let share_taken = each * ATTACK_RATE as f64 / tsc_hz() as f64;
    let loss = 100.0 * (1.0 - before / among * (1.0 - share_taken).max(0.0));
    println!(
        "{name:<24} {before:7.1} before, {among:7.1} among {have} megaflows, {each:.0} cycles a packet of the attack: \
         the victim loses {loss:.1} %  simple {:.1} % smc {:.1} % emc {:.1} % megaflow {:.1} %",
        share(s.simple_hits, s.received),
        share(s.smc_hits, s.received),
        share(s.emc_hits, s.received),
        share(s.megaflow_hits, s.received),
    );
}
