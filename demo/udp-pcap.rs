//! Writes a pcap file of UDP packets for a replay port.
//!
//! `udp-pcap FILE FLOWS SIZE`: one packet of SIZE bytes for each of FLOWS flows, repeated until the
//! file holds at least 512 packets. Neighbours: `demo.sh`. Threads: one.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

const ETHERNET: usize = 14;
const HEADERS: usize = ETHERNET + 20 + 8;

/// The packet of flow `i`: addresses and ports differ from flow to flow.
fn udp(i: u32, size: usize) -> Vec<u8> {
    let mut p = Vec::with_capacity(size);
    p.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    p.extend([0x45, 0]);
    p.extend(((size - ETHERNET) as u16).to_be_bytes());
    p.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    p.extend((0x0a00_0000 | (i & 0xffff)).to_be_bytes());
    p.extend((0x0b00_0000 | ((i >> 16) << 8) | (i % 251)).to_be_bytes());
    let words = p[ETHERNET..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    p[24..26].copy_from_slice(&checksum.to_be_bytes());
    p.extend((1024 + (i % 60_000) as u16).to_be_bytes());
    p.extend((2048 + (i % 20) as u16).to_be_bytes());
    p.extend(((size - ETHERNET - 20) as u16).to_be_bytes());
    p.resize(size, 0);
    p
}

/// The file header and one record a packet (the classic pcap format, microseconds, Ethernet).
fn write(out: &mut impl Write, flows: u32, size: usize) -> io::Result<()> {
    out.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
    out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    out.write_all(&65_535u32.to_le_bytes())?;
    out.write_all(&1u32.to_le_bytes())?;
    let rounds = 512u32.div_ceil(flows);
    for n in 0..flows * rounds {
        let p = udp(n % flows, size);
        for word in [0, n, size as u32, size as u32] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(&p)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &args[..] {
        [file, flows, size] => flows.parse().ok().zip(size.parse().ok()).map(|(f, s)| (file, f, s)),
        _ => None,
    };
    let Some((file, flows, size)) =
        parsed.filter(|(_, f, s)| (1..=1_000_000).contains(f) && (HEADERS..=1514).contains(s))
    else {
        eprintln!("usage: udp-pcap FILE FLOWS SIZE (1 to 1000000 flows, packets of {HEADERS} to 1514 bytes)");
        return ExitCode::FAILURE;
    };
    let result = std::fs::File::create(file).and_then(|f| {
        let mut out = io::BufWriter::new(f);
        write(&mut out, flows, size)?;
        out.flush()
    });
    if let Err(e) = result {
        eprintln!("udp-pcap: {file}: {e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
