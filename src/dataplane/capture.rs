//! Reads captures, pcapng and classic pcap, as a sequence of frames with their times and ports.
//!
//! The format comes from the library; what the library leaves open is done here: timestamps in
//! the resolution that each interface declares (pcapng's default is microseconds), captures with a
//! snap length shorter than the frames, and errors that name the packet.

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Why a capture cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither format.
    #[error("{0} is neither a pcapng nor a pcap file")]
    Format(PathBuf),
    /// The contents.
    #[error("{path} is damaged behind packet {packet}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How many packets could be read.
        packet: u64,
        /// What is wrong.
        what: String,
    },
    /// Not Ethernet.
    #[error("{path} holds {link:?} frames; only Ethernet captures can be replayed")]
    Link {
        /// The file.
        path: PathBuf,
        /// The link type.
        link: DataLink,
    },
}

/// One frame of a capture.
#[derive(Debug)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// Name of the interface, if the capture knows it.
    pub interface: Option<String>,
    /// The bytes that were captured.
    pub data: Vec<u8>,
    /// Bytes that the frame had.
    pub len: usize,
}

enum Format {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(Box<PcapNgReader<BufReader<File>>>),
}

/// An open capture.
pub struct Capture {
    path: PathBuf,
    format: Format,
    packets: u64,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Open {
            path: path.into(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 4];
        if file.metadata().map_err(failed)?.is_dir() || file.read_exact(&mut magic).is_err() {
            return Err(CaptureError::Format(path.into()));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let file = BufReader::new(file);
        let wrong = |_| CaptureError::Format(path.into());
        let format = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            Format::PcapNg(Box::new(PcapNgReader::new(file).map_err(wrong)?))
        } else {
            let reader = PcapReader::new(file).map_err(wrong)?;
            let link = reader.header().datalink;
            if link != DataLink::ETHERNET {
                return Err(CaptureError::Link {
                    path: path.into(),
                    link,
                });
            }
            Format::Pcap(reader)
        };
        Ok(Self {
            path: path.into(),
            format,
            packets: 0,
        })
    }

    /// The next frame; `None` at the end.
    pub fn next_frame(&mut self) -> Option<Result<Captured, CaptureError>> {
        let next = match &mut self.format {
            Format::Pcap(reader) => next_pcap(reader),
            Format::PcapNg(reader) => next_pcapng(reader),
        }?;
        Some(match next {
            Ok(captured) => {
                self.packets += 1;
                Ok(captured)
            }
            Err(Bad::Link(link)) => Err(CaptureError::Link {
                path: self.path.clone(),
                link,
            }),
            Err(Bad::What(what)) => {
                let (path, packet) = (self.path.clone(), self.packets);
                Err(CaptureError::Damaged { path, packet, what })
            }
        })
    }
}

enum Bad {
    Link(DataLink),
    What(String),
}

impl From<PcapError> for Bad {
    fn from(error: PcapError) -> Self {
        Bad::What(match error {
            PcapError::IncompleteBuffer => "the file ends inside a packet".into(),
            PcapError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                "the file ends inside a packet".into()
            }
            PcapError::IoError(error) => error.to_string(),
            other => other.to_string(),
        })
    }
}

fn next_pcap(reader: &mut PcapReader<BufReader<File>>) -> Option<Result<Captured, Bad>> {
    let scale = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // The raw packet: the checked one refuses frames longer than the snap length.
    let packet = match reader.next_raw_packet()? {
        Ok(packet) => packet,
        Err(error) => return Some(Err(error.into())),
    };
    let data = packet.data.into_owned();
    Some(Ok(Captured {
        nanos: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * scale,
        interface: None,
        len: data.len().max(packet.orig_len as usize),
        data,
    }))
}

fn next_pcapng(reader: &mut PcapNgReader<BufReader<File>>) -> Option<Result<Captured, Bad>> {
    loop {
        let (stamp, id, data, len) = match reader.next_block()? {
            Err(error) => return Some(Err(error.into())),
            Ok(Block::EnhancedPacket(packet)) => (
                packet.timestamp.as_nanos() as u64, // in the interface's unit, in truth
                packet.interface_id,
                packet.data.into_owned(),
                packet.original_len,
            ),
            Ok(Block::SimplePacket(packet)) => {
                (0, 0, packet.data.into_owned(), packet.original_len)
            }
            Ok(_) => continue,
        };
        let Some(interface) = reader.interfaces().get(id as usize) else {
            return Some(Err(Bad::What(format!("there is no interface {id}"))));
        };
        if interface.linktype != DataLink::ETHERNET {
            return Some(Err(Bad::Link(interface.linktype)));
        }
        let (name, nanos) = describe(interface, stamp);
        let len = data.len().max(len as usize);
        return Some(Ok(Captured {
            nanos,
            interface: name,
            data,
            len,
        }));
    }
}

/// The interface's name, and `stamp` in nanoseconds.
fn describe(interface: &InterfaceDescriptionBlock<'_>, stamp: u64) -> (Option<String>, u64) {
    let mut name = None;
    let mut resolution = 6;
    let mut offset = 0;
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfName(text) => name = Some(text.to_string()),
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let units = if resolution & 0x80 == 0 {
        10u128.checked_pow(exponent)
    } else {
        2u128.checked_pow(exponent)
    };
    let nanos = u128::from(stamp) * 1_000_000_000 / units.unwrap_or(u128::MAX);
    (
        name,
        (nanos as u64).wrapping_add(offset.wrapping_mul(1_000_000_000)),
    )
}
