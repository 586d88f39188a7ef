use std::io::Write;

use proptest::prelude::*;

use super::*;

const ALL: [Compression; 6] = [
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Lzma,
    Compression::Xz,
    Compression::Lz4,
    Compression::Zstd,
];

/// Compresses for the tests of this module and of the kernel's.
pub(crate) fn compress(compression: Compression, data: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Compression::Lzma => {
            let options = lzma_rust2::LzmaOptions::with_preset(1);
            let mut writer =
                lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Compression::Xz => {
            let mut options = lzma_rust2::XzOptions::with_preset(1);
            // As the kernel's own xz_wrap.sh asks for.
            options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
            options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
            let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut out = LZ4_MAGIC.to_vec();
            for block in data.chunks(LZ4_BLOCK) {
                let block = lz4_flex::block::compress(block);
                out.extend((block.len() as u32).to_le_bytes());
                out.extend(block);
            }
            out
        }
        Compression::Zstd => {
            ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
        }
    }
}

fn undo(compression: Compression, input: &[u8], many: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    compression.reader(input, many)?.read_to_end(&mut out)?;
    Ok(out)
}

/// Machine code with relative calls, which the x86 filter changes.
fn calls() -> Vec<u8> {
    (0..40_000u32)
        .flat_map(|n| [[0xe8, 0, 0, 0], (n * 3).to_le_bytes()].concat())
        .collect()
}

#[test]
fn each_is_told_by_its_first_bytes_and_undone() {
    for compression in ALL {
        let packed = compress(compression, &calls());
        assert_eq!(Compression::of(&packed[..6]), Some(compression));
        assert!(
            undo(compression, &packed, false).unwrap() == calls(),
            "{compression}"
        );
    }
    assert_eq!(Compression::of(b"\x7fELF"), None);
    assert_eq!(Compression::of(b""), None);
}

#[test]
fn what_follows_the_first_stream_of_a_kernel_is_left_alone() {
    // The size that a bzImage has behind its payload.
    for compression in [
        Compression::Bzip2,
        Compression::Xz,
        Compression::Zstd,
        Compression::Lz4,
    ] {
        let mut packed = compress(compression, b"payload");
        packed.extend(7u32.to_le_bytes());
        assert_eq!(
            undo(compression, &packed, false).unwrap(),
            b"payload",
            "{compression}"
        );
    }
}

#[test]
fn streams_that_follow_one_another_count_as_one() {
    for compression in [
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Xz,
        Compression::Zstd,
    ] {
        let mut packed = compress(compression, b"one ");
        if compression == Compression::Zstd {
            packed.extend([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9]);
        }
        packed.extend(compress(compression, b"two"));
        assert_eq!(
            undo(compression, &packed, true).unwrap(),
            b"one two",
            "{compression}"
        );
    }
}

#[test]
fn an_lz4_kernel_larger_than_one_block_comes_out_whole() {
    let data: Vec<u8> = calls()
        .into_iter()
        .cycle()
        .take(2 * LZ4_BLOCK + 99)
        .collect();
    assert!(undo(Compression::Lz4, &compress(Compression::Lz4, &data), false).unwrap() == data);
}

#[test]
fn a_truncated_stream_is_an_error() {
    for compression in ALL {
        let packed = compress(compression, &calls());
        let cut = undo(compression, &packed[..packed.len() / 2], true);
        assert!(cut.is_err(), "{compression}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_never_panics(which in 0usize..6, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let compression = ALL[which];
        let mut packed = compress(compression, b"x");
        packed.truncate(7);
        packed.extend(tail);
        let mut out = Vec::new();
        if let Ok(reader) = compression.reader(packed.as_slice(), true) {
            let _ = reader.take(1 << 20).read_to_end(&mut out);
        }
    }
}
