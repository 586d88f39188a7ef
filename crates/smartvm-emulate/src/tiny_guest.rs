//! The tiny guest: an ELF of a few bytes that Firecracker boots in place of a kernel, on any
//! host whose KVM opens. An aid for tests and benchmarks of everything around the guest.
//!
//! It prints [`GREETING`] on the first serial port, a byte at a time, and then ends as asked.

/// What it prints.
pub const GREETING: &str = "TINY GUEST UP\n";

/// What it does after its greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Halts for ever: Firecracker lives until it is killed.
    Halt,
    /// Resets the machine through the keyboard controller: Firecracker exits with 0.
    Reset,
}

/// Where it is loaded: above the memory that the boot protocol uses.
const ADDRESS: u64 = 0x100_0000;
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CODE_AT: usize = ELF_HEADER + PROGRAM_HEADER;

/// The ELF executable, x86_64, entered in 64-bit mode.
pub fn elf(ending: Ending) -> Vec<u8> {
    let code = code(ending);
    let size = (CODE_AT + code.len()) as u64;
    let mut elf = Vec::with_capacity(CODE_AT + code.len());
    // e_ident: magic, 64 bit, little endian, version 1.
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [ADDRESS + CODE_AT as u64, ELF_HEADER as u64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, no section headers
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [ELF_HEADER as u16, PROGRAM_HEADER as u16, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for half in [1_u32, 5] {
        elf.extend(half.to_le_bytes()); // PT_LOAD, readable and executable
    }
    for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

fn code(ending: Ending) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8: the first serial port
    for byte in GREETING.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    if ending == Ending::Reset {
        code.extend([0xb0, 0xfe, 0xe6, 0x64]); // mov al, 0xfe; out 0x64, al: pulse the reset line
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; and again
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_elf_that_a_kernel_check_accepts() {
        for ending in [Ending::Halt, Ending::Reset] {
            let elf = elf(ending);
            assert_eq!(&elf[..4], b"\x7fELF");
            assert!(elf.len() < 256, "{} bytes", elf.len());
            let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
            assert_eq!(entry, ADDRESS + CODE_AT as u64);
        }
    }
}
