//! Random frames of every shape that extraction knows, and their mutations. Threads: none.

use crate::rng::Rng;

/// What a frame is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    pub dst: [u8; 6],
    pub src: [u8; 6],
    pub vlans: Vec<(u16, u16)>,
    pub mpls: Vec<u32>,
    pub l3: L3,
    pub cut: Option<usize>,
    pub pad: usize,
    pub flips: Vec<(usize, u8)>,
}

#[derive(Clone, Debug)]
pub enum L3 {
    Ip4 { src: u32, dst: u32, proto: u8, tos: u8, ttl: u8, frag: u16, options: bool, l4: L4 },
    Ip6 { src: u8, dst: u8, proto: u8, tos: u8, ttl: u8, label: u32, frag: Option<u16>, hop: bool, l4: L4 },
    Arp { op: u16, spa: u32, tpa: u32, sha: u8, tha: u8 },
    Other(u16),
}

#[derive(Clone, Debug)]
pub struct L4 {
    pub src: u16,
    pub dst: u16,
    pub flags: u16,
    pub nd: Option<(u8, Option<u8>, Option<u8>)>,
}

fn mac(r: &mut Rng) -> [u8; 6] {
    match r.below(24) {
        0 => [0xff; 6],
        1 => [1, 0x80, 0xc2, 0, 0, r.below(32) as u8],
        2 => [1, 0, 0x5e, 0, 0, 1],
        _ => [2, 0, 0, 0, 0, r.below(6) as u8],
    }
}

fn ip(r: &mut Rng) -> u32 {
    0x0a00_0000 | (r.pick(&[0u32, 1, 2, 128]) << 8) | r.below(4) as u32
}

fn port(r: &mut Rng) -> u16 {
    r.pick(&[0, 1, 2, 80, 81, 443, 0x8001, 0xffff])
}

fn l4(r: &mut Rng, proto: u8) -> L4 {
    let icmp = matches!(proto, 1 | 58);
    let (src, dst) =
        if icmp { (r.pick(&[0, 8, 128, 129, 135, 136]), r.pick(&[0, 0, 0, 1])) } else { (port(r), port(r)) };
    let option = |r: &mut Rng| (!r.chance(2)).then(|| r.below(3) as u8);
    let nd = (!r.chance(3)).then(|| (r.below(3) as u8, option(r), option(r)));
    L4 { src, dst, flags: r.pick(&[2, 0x12, 0x10, 1, 4]), nd }
}

impl L3 {
    fn random(r: &mut Rng) -> L3 {
        let proto = r.pick(&[0, 1, 2, 6, 6, 6, 17, 17, 132, 58, 58, 47]);
        let (tos, ttl) = (r.pick(&[0, 1, 3, 0x20, 0xb8, 0xff]), r.pick(&[0, 1, 2, 64, 255]));
        let frag = r.pick(&[0, 0, 0, 0, 0x4000, 0x2000, 0x2008, 0x0010]);
        match r.below(10) {
            0..=4 => L3::Ip4 {
                src: ip(r),
                dst: ip(r),
                proto,
                tos,
                ttl,
                frag,
                options: r.chance(6),
                l4: l4(r, proto),
            },
            5..=7 => L3::Ip6 {
                src: r.below(3) as u8,
                dst: r.below(3) as u8,
                proto,
                tos,
                ttl,
                label: r.below(3) as u32,
                frag: r.chance(5).then(|| r.pick(&[0, 1, 8, 9])),
                hop: r.chance(8),
                l4: l4(r, proto),
            },
            8 => L3::Arp {
                op: r.pick(&[0, 1, 1, 2, 2, 3, 256]),
                spa: ip(r),
                tpa: ip(r),
                sha: r.below(4) as u8,
                tha: r.below(4) as u8,
            },
            _ => L3::Other(r.pick(&[0x1234, 0x88cc, 0x05ff, 0x8847, 0x8100])),
        }
    }
}

impl Spec {
    pub fn random(r: &mut Rng) -> Spec {
        let n_vlans = r.pick(&[0, 0, 0, 1, 1, 2]);
        let n_mpls = r.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 4]);
        Spec {
            dst: mac(r),
            src: mac(r),
            vlans: (0..n_vlans).map(|_| (r.pick(&[0x8100, 0x8100, 0x88a8]), tci(r))).collect(),
            mpls: (0..n_mpls).map(|_| lse(r)).collect(),
            l3: L3::random(r),
            cut: r.chance(12).then(|| 14 + r.below(60)),
            pad: if r.chance(4) { r.below(40) } else { 0 },
            flips: Vec::new(),
        }
    }

    /// A frame much like this one.
    pub fn mutate(&self, r: &mut Rng) -> Spec {
        let mut s = self.clone();
        for _ in 0..1 + r.below(3) {
            let other = Spec::random(r);
            match r.below(12) {
                0 => s.dst = other.dst,
                1 => s.src = other.src,
                2 => s.vlans = other.vlans,
                3 => s.mpls = other.mpls,
                4 => s.cut = other.cut,
                5 => s.pad = other.pad,
                6 => s.flips.push((r.below(80), 1 << r.below(8))),
                7 => {
                    if let Some(v) = s.vlans.first_mut() {
                        v.1 = tci(r);
                    }
                }
                _ => s.l3 = s.l3.mix(other.l3, r),
            }
        }
        s
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut f = Vec::with_capacity(128);
        f.extend(self.dst);
        f.extend(self.src);
        for (tpid, tci) in &self.vlans {
            f.extend(tpid.to_be_bytes());
            f.extend(tci.to_be_bytes());
        }
        let ethertype: u16 = match &self.l3 {
            _ if !self.mpls.is_empty() => 0x8847,
            L3::Ip4 { .. } => 0x0800,
            L3::Ip6 { .. } => 0x86dd,
            L3::Arp { .. } => 0x0806,
            L3::Other(t) => *t,
        };
        f.extend(ethertype.to_be_bytes());
        for (i, lse) in self.mpls.iter().enumerate() {
            let bos = u32::from(i + 1 == self.mpls.len()) << 8;
            f.extend((lse & !0x100 | bos).to_be_bytes());
        }
        self.l3.put(&mut f);
        if let Some(cut) = self.cut {
            f.truncate(cut.max(14));
        }
        f.extend(std::iter::repeat_n(0u8, self.pad));
        for (at, bits) in &self.flips {
            if let Some(b) = f.get_mut(*at) {
                *b ^= bits;
            }
        }
        f
    }
}

fn tci(r: &mut Rng) -> u16 {
    r.pick(&[0, 10, 10, 20, 30, 4095])
        | r.pick(&[0, 0, 0x2000, 0x6000])
        | if r.chance(6) { 0x1000 } else { 0 }
}

fn lse(r: &mut Rng) -> u32 {
    (r.below(4) as u32) << 12 | (r.below(2) as u32) << 9 | r.pick(&[0u32, 1, 2, 64])
}

impl L3 {
    /// One thing of `other` in place of one's own.
    fn mix(&self, other: L3, r: &mut Rng) -> L3 {
        let mut out = self.clone();
        match (&mut out, other) {
            (
                L3::Ip4 { src, dst, proto, tos, ttl, frag, options, l4 },
                L3::Ip4 { src: s, dst: d, proto: p, tos: t, ttl: tt, frag: f, options: o, l4: l },
            ) => match r.below(9) {
                0 => *src = s,
                1 => *dst = d,
                2 => *proto = p,
                3 => *tos = t,
                4 => *ttl = tt,
                5 => *frag = f,
                6 => *options = o,
                7 => *l4 = l,
                _ => l4.dst = l.dst,
            },
            (
                L3::Ip6 { src, dst, proto, tos, ttl, label, frag, hop, l4 },
                L3::Ip6 { src: s, dst: d, proto: p, tos: t, ttl: tt, label: la, frag: f, hop: h, l4: l },
            ) => match r.below(11) {
                0 => *src = s,
                1 => *dst = d,
                2 => *proto = p,
                3 => *tos = t,
                4 => *ttl = tt,
                5 => *label = la,
                6 => *frag = f,
                7 => *hop = h,
                8 => *l4 = l,
                9 => l4.nd = l.nd,
                _ => l4.dst = l.dst,
            },
            (L3::Arp { op, spa, tpa, sha, tha }, L3::Arp { op: o, spa: s, tpa: t, sha: sh, tha: th }) => {
                match r.below(5) {
                    0 => *op = o,
                    1 => *spa = s,
                    2 => *tpa = t,
                    3 => *sha = sh,
                    _ => *tha = th,
                }
            }
            (_, other) if r.chance(3) => return other,
            _ => {}
        }
        out
    }

    fn put(&self, f: &mut Vec<u8>) {
        match self {
            L3::Ip4 { src, dst, proto, tos, ttl, frag, options, l4 } => {
                let body = l4.bytes(*proto);
                let ihl = if *options { 6 } else { 5 };
                f.extend([0x40 | ihl, *tos]);
                f.extend((ihl as u16 * 4 + body.len() as u16).to_be_bytes());
                f.extend([0, 1]);
                f.extend(frag.to_be_bytes());
                f.extend([*ttl, *proto, 0, 0]);
                f.extend(src.to_be_bytes());
                f.extend(dst.to_be_bytes());
                if *options {
                    f.extend([1, 1, 1, 0]);
                }
                f.extend(body);
            }
            L3::Ip6 { src, dst, proto, tos, ttl, label, frag, hop, l4 } => {
                let mut body = l4.bytes(*proto);
                let mut next = *proto;
                if let Some(frag) = frag {
                    let mut h = vec![next, 0];
                    h.extend(frag.to_be_bytes());
                    h.extend([0, 0, 0, 1]);
                    h.extend(body);
                    (body, next) = (h, 44);
                }
                if *hop {
                    let mut h = vec![next, 0, 1, 4, 0, 0, 0, 0];
                    h.extend(body);
                    (body, next) = (h, 0);
                }
                f.extend((0x6000_0000 | u32::from(*tos) << 20 | label).to_be_bytes());
                f.extend((body.len() as u16).to_be_bytes());
                f.extend([next, *ttl]);
                for last in [src, dst] {
                    f.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *last]);
                }
                f.extend(body);
            }
            L3::Arp { op, spa, tpa, sha, tha } => {
                f.extend([0, 1, 8, 0, 6, 4]);
                f.extend(op.to_be_bytes());
                f.extend([2, 0, 0, 0, 0, *sha]);
                f.extend(spa.to_be_bytes());
                f.extend([2, 0, 0, 0, 0, *tha]);
                f.extend(tpa.to_be_bytes());
            }
            L3::Other(_) => f.extend([7; 30]),
        }
    }
}

impl L4 {
    fn bytes(&self, proto: u8) -> Vec<u8> {
        let mut b = Vec::new();
        match proto {
            1 => b.extend([self.src as u8, self.dst as u8, 0, 0, 0, 1, 0, 1]),
            58 => {
                b.extend([self.src as u8, self.dst as u8, 0, 0, 0, 0, 0, 0]);
                if let Some((target, sll, tll)) = self.nd {
                    b.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, target]);
                    for (kind, lla) in [(1, sll), (2, tll)] {
                        if let Some(last) = lla {
                            b.extend([kind, 1, 2, 0, 0, 0, 0, last]);
                        }
                    }
                }
            }
            _ => {
                b.extend(self.src.to_be_bytes());
                b.extend(self.dst.to_be_bytes());
                match proto {
                    6 => {
                        b.extend([0; 8]);
                        b.extend((0x5000 | self.flags).to_be_bytes());
                        b.extend([0; 6]);
                    }
                    17 => b.extend([0, 8, 0, 0]),
                    _ => b.extend([0; 8]),
                }
            }
        }
        b
    }
}
