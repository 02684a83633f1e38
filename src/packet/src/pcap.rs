//! Capture files (pcap): frames in, frames out.
//!
//! The `pcap-file` crate knows the format; here are frames with the time since the epoch. A damaged file gives
//! an error, never a panic; a frame is at most the file's snapshot length, checked by the reader.
//! Neighbours: tests, benches, mirrors to files. Threads: plain data.

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use std::io::{Read, Write};
use std::time::Duration;

/// Why a capture could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("capture file: {0}; give a pcap file (not pcapng) of Ethernet frames")]
pub struct PcapError(#[from] pcap_file::PcapError);

/// One captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Time since the epoch.
    pub time: Duration,
    /// The bytes that were captured.
    pub data: Vec<u8>,
}

/// Frames of a capture, one by one.
pub struct Reader<R: Read>(PcapReader<R>);

impl<R: Read> Reader<R> {
    /// Reads the file's header.
    pub fn new(input: R) -> Result<Reader<R>, PcapError> {
        Ok(Reader(PcapReader::new(input)?))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Frame, PcapError>;

    fn next(&mut self) -> Option<Self::Item> {
        let p = self.0.next_packet()?;
        Some(p.map(|p| Frame { time: p.timestamp, data: p.data.into_owned() }).map_err(PcapError))
    }
}

/// Writes a capture of Ethernet frames.
pub struct Writer<W: Write>(PcapWriter<W>);

impl<W: Write> Writer<W> {
    /// Writes the file's header.
    pub fn new(output: W) -> Result<Writer<W>, PcapError> {
        Ok(Writer(PcapWriter::with_header(output, PcapHeader::default())?))
    }

    /// Appends one frame.
    pub fn write(&mut self, time: Duration, data: &[u8]) -> Result<(), PcapError> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.0.write_packet(&PcapPacket::new(time, len, data))?;
        Ok(())
    }

    /// The output, with everything written.
    pub fn into_inner(self) -> W {
        self.0.into_writer()
    }
}

/// Appends frames to a capture that may exist already.
pub struct Appender<W: Write>(W);

impl<W: Write> Appender<W> {
    /// Writes the file's header when the output is `fresh`.
    pub fn new(fresh: bool, mut output: W) -> std::io::Result<Appender<W>> {
        if fresh {
            // Magic, version 2.4, zone, accuracy, snapshot length, Ethernet.
            let words = [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, SNAPLEN, 1];
            output.write_all(&words.map(u32::to_le_bytes).concat())?;
        }
        Ok(Appender(output))
    }

    /// Appends one frame.
    pub fn write(&mut self, time: Duration, data: &[u8]) -> std::io::Result<()> {
        let len = data.len().min(SNAPLEN as usize) as u32;
        let words = [time.as_secs() as u32, time.subsec_micros(), len, len];
        let mut record = words.map(u32::to_le_bytes).concat();
        record.extend_from_slice(&data[..len as usize]);
        self.0.write_all(&record)
    }
}

/// Longest frame of a capture that [`Appender`] starts.
const SNAPLEN: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_frames_are_read() {
        let mut file = Vec::new();
        Appender::new(true, &mut file).unwrap().write(Duration::from_millis(1500), &[7; 60]).unwrap();
        Appender::new(false, &mut file).unwrap().write(Duration::from_secs(2), &[8; 70]).unwrap();
        let frames: Vec<Frame> = Reader::new(&file[..]).unwrap().map(Result::unwrap).collect();
        assert_eq!((frames[0].time, &frames[0].data[..]), (Duration::from_millis(1500), &[7; 60][..]));
        assert_eq!((frames[1].time.as_secs(), frames[1].data.len()), (2, 70));
    }

    fn sample() -> Vec<u8> {
        let mut w = Writer::new(Vec::new()).unwrap();
        w.write(Duration::from_micros(1_500_000), &[1; 60]).unwrap();
        w.write(Duration::from_secs(2), &[2; 1500]).unwrap();
        w.into_inner()
    }

    #[test]
    fn what_is_written_is_read() {
        let frames: Vec<Frame> = Reader::new(&sample()[..]).unwrap().map(Result::unwrap).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].time, frames[0].data.len()), (Duration::from_micros(1_500_000), 60));
        assert_eq!(frames[1].data, vec![2; 1500]);
    }

    #[test]
    fn damaged_files_end_without_panic() {
        let good = sample();
        for n in 0..good.len() {
            if let Ok(r) = Reader::new(&good[..n]) {
                assert!(r.take(10).filter_map(Result::ok).count() <= 2);
            }
        }
        let mut bad = good;
        bad[24 + 8..24 + 12].fill(0xff);
        assert!(Reader::new(&bad[..]).unwrap().take(5).any(|f| f.is_err()));
        assert!(Reader::new(&[0u8; 24][..]).is_err());
    }
}
