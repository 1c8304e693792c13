//! `capture`: packets as they come, as pcapng for Wireshark or a line each, with what became of them.

use super::args::CaptureArgs;
use super::output::{Output, Result};
use super::trace::{Time, follow};
use crate::control::Request;
use crate::control::snapshot::VERSION;
use crate::control::trace::{Begun, Frame, Told};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Times in nanoseconds (if_tsresol of the pcapng format: ten to the minus ninth).
const NANOSECONDS: u8 = 9;
/// The direction of a packet (epb_flags).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Captures.
pub(super) fn execute(args: &CaptureArgs, socket: &Path, out: &mut Output<'_>) -> Result {
    let ask = Request::Trace(args.ask());
    let Some(path) = args.write.as_deref() else {
        return lines(ask, socket, out);
    };
    let path = (path != Path::new("-")).then_some(path);
    let verb = match path {
        Some(path) => format!("capturing to {}", path.display()),
        None => "capturing".into(),
    };
    let (mut pcapng, mut file) = (None, None);
    follow(ask, &verb, socket, out, |told, more, out| {
        match told {
            // Not before it is known that there will be a capture.
            Told::Begun(begun) => {
                pcapng = Some(Pcapng::new(&begun)?);
                file = path.map(create).transpose()?.map(BufWriter::new);
            }
            Told::Frame(frame) => {
                if let Some(pcapng) = &mut pcapng {
                    pcapng.packet(&frame)?;
                }
            }
            Told::Packet(_) | Told::LeftOut(_) => {}
        }
        let to: &mut dyn Write = match &mut file {
            Some(file) => file,
            None => out.out,
        };
        if let Some(pcapng) = &mut pcapng {
            to.write_all(&pcapng.take())?;
        }
        if !more {
            to.flush()?;
        }
        Ok(())
    })
}

/// What people sent is for nobody else to read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    options.open(path).map_err(failed)
}

/// A line for each packet.
fn lines(ask: Request, socket: &Path, out: &mut Output<'_>) -> Result {
    let json = out.is_json();
    let mut ports = Vec::new();
    follow(ask, "capturing", socket, out, |told, more, out| {
        match told {
            Told::Begun(begun) => ports = begun.ports,
            Told::Frame(frame) if json => {
                writeln!(out.out, "{}", serde_json::to_string(&frame)?)?;
            }
            Told::Frame(frame) => {
                let port = ports
                    .get(usize::from(frame.port))
                    .map_or("", String::as_str);
                let way = if frame.leaving { "to" } else { "in" };
                let Frame {
                    packet, comment, ..
                } = &frame;
                writeln!(
                    out.out,
                    "[{}] {way} {port}: {packet}; {comment}",
                    Time(frame.time_ns)
                )?;
            }
            Told::Packet(_) | Told::LeftOut(_) => {}
        }
        if !more {
            out.out.flush()?;
        }
        Ok(())
    })
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// The blocks of a capture with an interface for each port, in the making.
struct Pcapng(PcapNgWriter<Vec<u8>>);

impl Pcapng {
    fn new(begun: &Begun) -> io::Result<Self> {
        let application = format!("shardwall {VERSION}");
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section);
        let mut writer = writer.map_err(failed)?;
        for port in &begun.ports {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(port.into()),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            };
            writer.write_pcapng_block(interface).map_err(failed)?;
        }
        Ok(Self(writer))
    }

    fn packet(&mut self, frame: &Frame) -> io::Result<()> {
        let data = frame.bytes();
        let data = data.ok_or_else(|| io::Error::other("a frame cannot be read"))?;
        let direction = if frame.leaving { OUTBOUND } else { INBOUND };
        let packet = EnhancedPacketBlock {
            interface_id: frame.port.into(),
            // In the interface's unit.
            timestamp: Duration::from_nanos(frame.time_ns),
            original_len: frame.len.max(data.len() as u32),
            data: data.into(),
            options: vec![
                EnhancedPacketOption::Comment(frame.comment.as_str().into()),
                EnhancedPacketOption::Flags(direction),
            ],
        };
        self.0.write_pcapng_block(packet).map(drop).map_err(failed)
    }

    /// What was made since this was called last.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut())
    }
}
