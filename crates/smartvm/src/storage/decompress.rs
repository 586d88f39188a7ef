//! The compressions that kernels and archives come in: told by their first bytes, undone as a
//! stream. Memory is bounded; how much comes out is for the caller to bound.

use std::fmt;
use std::io::{self, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// Largest memory that a decoder may take, in KiB: the kernel's own xz and zstd streams ask
/// for dictionaries of 128 MiB.
const MEMORY_KIB: u32 = 384 << 10;

/// Largest block of an lz4 legacy frame, in bytes.
const LZ4_BLOCK: usize = 8 << 20;

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Zstd,
}

impl Compression {
    /// What the first bytes tell; six are enough.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 6] = [
            (&[0x1f, 0x8b], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&LZ4_MAGIC, Self::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            // No magic number, but the usual properties and a dictionary that is a power of 2.
            (&[0x5d, 0, 0], Self::Lzma),
        ];
        magics
            .into_iter()
            .find_map(|(magic, compression)| start.starts_with(magic).then_some(compression))
    }

    /// Undoes it. With `many`, streams that follow one another count as one, as the usual
    /// programs have it; otherwise what follows the first stream is left unread.
    pub(crate) fn reader<'a>(
        self,
        input: impl Read + 'a,
        many: bool,
    ) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match (self, many) {
            (Self::Gzip, true) => Box::new(flate2::read::MultiGzDecoder::new(input)),
            (Self::Gzip, false) => Box::new(flate2::read::GzDecoder::new(input)),
            (Self::Bzip2, true) => Box::new(bzip2::read::MultiBzDecoder::new(input)),
            (Self::Bzip2, false) => Box::new(bzip2::read::BzDecoder::new(input)),
            (Self::Lzma, _) => Box::new(lzma_rust2::LzmaReader::new_mem_limit(
                input, MEMORY_KIB, None,
            )?),
            (Self::Xz, _) => Box::new(lzma_rust2::XzReader::new_mem_limit(input, many, MEMORY_KIB)),
            (Self::Lz4, _) => Box::new(Lz4Legacy::new(input)),
            (Self::Zstd, _) => Box::new(Zstd {
                state: ZstdState::Between(input),
                many,
                began: false,
            }),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The frame format of `lz4 -l`, which kernels use: a magic number, then blocks, each after
/// its compressed size. It ends where the input ends, or with what can't be a block's size.
struct Lz4Legacy<R> {
    input: R,
    block: Vec<u8>,
    position: usize,
    state: Lz4State,
}

#[derive(PartialEq)]
enum Lz4State {
    Start,
    Blocks,
    /// A block of less than the full size is the last one.
    End,
}

impl<R: Read> Lz4Legacy<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            block: Vec::new(),
            position: 0,
            state: Lz4State::Start,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut word = [0; 4];
        if self.state == Lz4State::Start {
            self.input.read_exact(&mut word)?;
            if word != LZ4_MAGIC {
                return Err(damaged("no lz4 legacy frame"));
            }
            self.state = Lz4State::Blocks;
        }
        if !read_word(&mut self.input, &mut word)? {
            self.state = Lz4State::End;
            return Ok(());
        }
        let size = u32::from_le_bytes(word) as usize;
        if size > lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) {
            return Err(damaged("an lz4 block is larger than 8 MiB"));
        }
        let mut compressed = vec![0; size];
        self.input.read_exact(&mut compressed)?;
        self.block.resize(LZ4_BLOCK, 0);
        let length = lz4_flex::block::decompress_into(&compressed, &mut self.block)
            .map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause))?;
        self.block.truncate(length);
        self.position = 0;
        if length < LZ4_BLOCK {
            self.state = Lz4State::End;
        }
        Ok(())
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.block.len() && self.state != Lz4State::End {
            self.next_block()?;
        }
        let rest = &self.block[self.position..];
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.position += length;
        Ok(length)
    }
}

/// Reads four bytes; false at the end of the input.
fn read_word(input: &mut impl Read, word: &mut [u8; 4]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < word.len() {
        match input.read(&mut word[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(true)
}

/// One zstd frame after the other; frames meant to be skipped are.
struct Zstd<R: Read> {
    state: ZstdState<R>,
    many: bool,
    began: bool,
}

enum ZstdState<R: Read> {
    Between(R),
    Frame(Box<StreamingDecoder<Ahead<R>, FrameDecoder>>),
    End,
}

/// An input whose first four bytes were looked at already.
type Ahead<R> = io::Chain<io::Cursor<[u8; 4]>, R>;

impl<R: Read> Zstd<R> {
    fn next_frame(&mut self, mut input: R) -> io::Result<ZstdState<R>> {
        if self.began && !self.many {
            return Ok(ZstdState::End);
        }
        let mut word = [0; 4];
        if !read_word(&mut input, &mut word)? {
            return Ok(ZstdState::End);
        }
        self.began = true;
        // Skippable frames are 0x184D2A50 to 0x184D2A5F, with their length behind.
        if u32::from_le_bytes(word) & !0xf == 0x184d_2a50 {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            let skipped = io::copy(&mut input.by_ref().take(length), &mut io::sink())?;
            if skipped < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.began = false;
            return Ok(ZstdState::Between(input));
        }
        StreamingDecoder::new(io::Cursor::new(word).chain(input))
            .map(|decoder| ZstdState::Frame(Box::new(decoder)))
            .map_err(|cause| match cause {
                FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(
                    _,
                )) => damaged("no zstd frame where one should begin"),
                cause => io::Error::new(io::ErrorKind::InvalidData, cause),
            })
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            self.state = match std::mem::replace(&mut self.state, ZstdState::End) {
                ZstdState::Between(input) => self.next_frame(input)?,
                ZstdState::Frame(mut decoder) => {
                    let read = decoder.read(out)?;
                    if read > 0 {
                        self.state = ZstdState::Frame(decoder);
                        return Ok(read);
                    }
                    let (_, input) = decoder.into_inner().into_inner();
                    ZstdState::Between(input)
                }
                ZstdState::End => return Ok(0),
            };
        }
    }
}

#[cfg(test)]
#[path = "decompress/tests.rs"]
pub(crate) mod tests;
