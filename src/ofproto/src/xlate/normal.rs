//! NORMAL: a learning switch with VLANs.
//!
//! Neighbours: `mac_learning` remembers, `snapshot` has the bundles, `output` sends. Threads: part of a translation.

use super::cache::Credit;
use super::commit::{count_vlans, ETH_ARP, ETH_VLAN};
use super::Ctx;
use crate::mac_learning::{Learned, MacKey};
use crate::snapshot::{BundleView, PortConfig, PriorityTags, VlanMode};
use flow::key::VLAN_CFI;
use flow::{Be16, Be32, OfPort, Vlan};
use std::sync::Arc;

const VID_MASK: u16 = 0x0fff;
const PCP_MASK: u16 = 0xe000;

/// A packet's VLAN inside the bridge: id (0 for none) and priority bits, and the type its header had.
#[derive(Clone, Copy)]
struct InVlan {
    vid: u16,
    pcp: u16,
    tpid: Be16,
}

impl Ctx<'_, '_> {
    /// Forwards by destination MAC address.
    pub(super) fn normal(&mut self) {
        let m = &mut self.out.mask.0;
        m.dl_src = [0xff; 6];
        m.dl_dst = [0xff; 6];
        m.vlans[0].tci |= Be16::new(VID_MASK | VLAN_CFI);
        let in_port = self.in_port();
        let bridge = self.bridge;
        let in_bundle = bridge.bundle_of(in_port);
        if in_bundle.is_none() && !matches!(in_port, OfPort::NONE | OfPort::CONTROLLER) {
            let port = in_port.0;
            self.complain(format_args!("received packet on unknown port {port}"));
            return self.warn(format_args!("no input bundle, dropping"));
        }
        let Some(vlan) = self.input_vlan(in_bundle) else { return };
        if !bridge.forward_bpdu && is_reserved(self.flow.dl_dst) {
            return self.note(format_args!("packet has reserved destination MAC, dropping"));
        }
        self.unwildcard_gratuitous_arp();
        if let Some(b) = in_bundle {
            self.learn(b, vlan.vid);
        }
        self.forward(in_bundle, vlan);
    }

    /// The VLAN of the packet, if its port takes it.
    fn input_vlan(&mut self, bundle: Option<&Arc<BundleView>>) -> Option<InVlan> {
        let v = self.flow.vlans[0];
        let tci = v.tci.get();
        let tagged = tci & VLAN_CFI != 0;
        if self.flow.dl_type.get() == ETH_VLAN && !tagged {
            self.warn(format_args!("partial VLAN tag, dropping"));
            return None;
        }
        let mut vlan = InVlan {
            vid: if tagged { tci & VID_MASK } else { 0 },
            pcp: if tagged { tci & PCP_MASK } else { 0 },
            tpid: if tagged { v.tpid } else { Be16::ZERO },
        };
        let Some(b) = bundle else { return Some(vlan) };
        let vid = vlan.vid;
        match b.vlan_mode {
            VlanMode::Access if vid != 0 => {
                self.complain(format_args!(
                    "dropping VLAN {vid} tagged packet received on port {} configured as VLAN {} access port",
                    b.name,
                    b.vlan.unwrap_or(0)
                ));
                self.warn(format_args!("disallowed VLAN VID for this input port, dropping"));
                return None;
            }
            VlanMode::Access => vlan.vid = b.vlan.unwrap_or(0),
            VlanMode::NativeTagged | VlanMode::NativeUntagged if vid == 0 => vlan.vid = b.vlan.unwrap_or(0),
            _ if b.includes_vlan(vid) => {}
            _ => {
                self.complain(format_args!(
                    "dropping VLAN {vid} packet received on port {} not configured for trunking VLAN {vid}",
                    b.name
                ));
                self.warn(format_args!("disallowed VLAN VID for this input port, dropping"));
                return None;
            }
        }
        Some(vlan)
    }

    /// Looks at what tells whether an ARP packet announces its sender's own address to all: such packets are
    /// learned from differently where bonds are, and megaflows tell them apart everywhere.
    fn unwildcard_gratuitous_arp(&mut self) {
        let f = &self.flow;
        if f.dl_type.get() != ETH_ARP || f.dl_dst != [0xff; 6] {
            return;
        }
        let m = &mut self.out.mask.0;
        m.nw_proto = 0xff;
        if f.nw_proto == 1 {
            (m.nw_src, m.nw_dst) = (Be32::MAX, Be32::MAX);
        }
    }

    fn learn(&mut self, bundle: &Arc<BundleView>, vid: u16) {
        let key = MacKey { vlan: vid, mac: self.flow.dl_src };
        let macs = &self.bridge.macs;
        if self.input.side_effects {
            let learned = macs.learn(key, bundle.id, self.input.now_ms, self.input.may_wait);
            self.out.changed |= learned == Learned::Changed;
            if learned == Learned::Changed && self.trace.is_some() {
                let (mac, port) = (flow::Mac(key.mac), &bundle.name);
                self.note(format_args!("learned that {mac} is on port {port} in VLAN {vid}"));
            }
        }
        self.out.cache.credits.push(Credit::Normal { macs: macs.clone(), key, bundle: bundle.id });
    }

    fn forward(&mut self, from: Option<&Arc<BundleView>>, vlan: InVlan) {
        let bridge = self.bridge;
        let key = MacKey { vlan: vlan.vid, mac: self.flow.dl_dst };
        let Some(id) = bridge.macs.lookup(key, self.input.now_ms) else {
            self.note(format_args!("no learned MAC for destination, flooding"));
            return self.flood(from, vlan);
        };
        let Some(to) = bridge.bundles.get(&id) else {
            return self.warn(format_args!("learned port is unknown, dropping"));
        };
        if from.is_some_and(|f| f.id == to.id || f.protected && to.protected) {
            return self.note(format_args!("learned port is input port, dropping"));
        }
        self.note(format_args!("forwarding to learned port"));
        let to = to.clone();
        self.output_bundle(&to, vlan);
    }

    fn flood(&mut self, from: Option<&Arc<BundleView>>, vlan: InVlan) {
        let bridge = self.bridge;
        for id in &bridge.bundle_order {
            let Some(to) = bridge.bundles.get(id) else { continue };
            let split = from.is_some_and(|f| f.id == to.id || f.protected && to.protected);
            let no_flood =
                to.ports.iter().any(|p| bridge.port(*p).is_some_and(|p| p.config.has(PortConfig::NO_FLOOD)));
            if !split && !no_flood && to.includes_vlan(vlan.vid) {
                self.output_bundle(to, vlan);
            }
        }
    }

    /// Sends to a bundle with the VLAN header that it wants.
    fn output_bundle(&mut self, to: &BundleView, vlan: InVlan) {
        let Some(&port) = to.ports.first() else { return };
        let vid = match to.vlan_mode {
            VlanMode::Access => 0,
            VlanMode::NativeUntagged if to.vlan == Some(vlan.vid) => 0,
            VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged => vlan.vid,
        };
        let keeps = match to.vlan_mode {
            VlanMode::Access => false,
            VlanMode::NativeUntagged => vid != 0 || to.vlan != Some(vlan.vid),
            VlanMode::Trunk | VlanMode::NativeTagged => true,
        };
        let tci = self.flow.vlans[0].tci.get();
        let tagged = tci & VLAN_CFI != 0;
        if tagged && vid == 0 {
            // Whether there will be a header depends on the priority.
            self.out.mask.0.vlans[0].tci |= Be16::new(PCP_MASK);
        }
        let wanted = vid | vlan.pcp != 0 || to.priority_tags == PriorityTags::Always;
        if tagged && keeps && tci & VID_MASK == vid && wanted {
            // The header stays as it is, that of a priority-tagged frame too.
            self.output(port, false);
            return;
        }
        let pcp = if keeps || to.priority_tags != PriorityTags::Never { vlan.pcp } else { 0 };
        let tag = vid | pcp != 0;
        let old = self.flow.vlans;
        self.put_vlan(tag.then_some(Vlan {
            tpid: if vlan.tpid.is_zero() { Be16::new(ETH_VLAN) } else { vlan.tpid },
            tci: Be16::new(vid | pcp | VLAN_CFI),
        }));
        self.output(port, false);
        self.flow.vlans = old;
    }

    /// Makes `v` the outer VLAN header in place of the one that the packet may have.
    fn put_vlan(&mut self, v: Option<Vlan>) {
        if count_vlans(&self.flow) != count_vlans(self.input.flow) {
            self.mask_received_vlans();
        }
        let vlans = &mut self.flow.vlans;
        let tagged = vlans[0].tci.get() & VLAN_CFI != 0;
        match v {
            Some(v) if tagged => vlans[0] = v,
            Some(v) => *vlans = [v, vlans[0]],
            None if tagged => *vlans = [vlans[1], Vlan::default()],
            None => {}
        }
    }
}

/// Destinations of link-local protocols, which no switch forwards (IEEE 802.1D and those of other vendors).
fn is_reserved(mac: [u8; 6]) -> bool {
    match mac {
        [0x01, 0x80, 0xc2, 0, 0, last] => last & 0xf0 == 0,
        [0x00, 0xe0, 0x2b, 0, 0, 0 | 4 | 6] => true,
        [0x01, 0x00, 0x0c, 0, 0, 0] => true,
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, last] => matches!(last, 0xc0..=0xc7 | 0xcc | 0xcd),
        [0x01, 0x00, 0x0c, 0xcd, 0xcd, 0xcd] => true,
        _ => false,
    }
}
