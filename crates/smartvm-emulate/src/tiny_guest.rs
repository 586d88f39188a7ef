//! The tiny guest: a kernel of a few bytes, as an aid for tests and benchmarks.
//!
//! It writes [`LINE`] to the first serial port and then does one thing for ever, or ends.
//! Firecracker boots it in milliseconds, and it needs so little of a processor that it also
//! runs where a stock kernel can't: on a /dev/kvm without hardware virtualization.

/// What the tiny guest writes.
pub const LINE: &str = "TINY GUEST UP\n";

/// Where it is loaded: above the first MiB, where kernels usually are.
const ADDRESS: u64 = 0x0100_0000;

/// The sizes of ELF's file header and of one program header.
const HEADERS: u64 = 64 + 56;

/// What the tiny guest does after its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It halts for ever: the VM stays until it is stopped.
    Halt,
    /// It resets its machine through the keyboard controller: Firecracker ends with status 0.
    Reset,
    /// It faults without a handler, as a kernel gone wrong would: that resets the machine too.
    TripleFault,
}

/// The tiny guest as an ELF kernel for x86-64.
pub fn elf(ending: Ending) -> Vec<u8> {
    let code = code(ending);
    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::new();
    // 64 bits, little endian, version 1.
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // An executable for x86-64.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [ADDRESS + HEADERS, 64, 0] {
        // The entry, and where program and section headers are.
        elf.extend(u64::to_le_bytes(word));
    }
    elf.extend([0; 4]);
    // Sizes and numbers: this header, one program header, no section headers.
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // One segment, readable, writable and executable: this whole file.
    elf.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        elf.extend(u64::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

/// The instructions, then the line, ended by a zero byte.
fn code(ending: Ending) -> Vec<u8> {
    const PRINT: [u8; 19] = [
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x48, 0x8d, 0x35, 0, 0, 0, 0,    // lea rsi, [rip + distance of the line]
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz done
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
    ];
    const RESET: [u8; 7] = [
        0xb0, 0xfe, // mov al, 0xfe
        0x66, 0xba, 0x64, 0x00, // mov dx, 0x64
        0xee, // out dx, al
    ];
    const FAULT: [u8; 10] = [
        0x6a, 0x00, // push 0
        0x6a, 0x00, // push 0
        0x0f, 0x01, 0x1c, 0x24, // lidt [rsp]: a table without entries
        0x0f, 0x0b, // ud2
    ];
    const HALT: [u8; 3] = [
        0xf4, // again: hlt
        0xeb, 0xfd, // jmp again
    ];
    let before_halt: &[u8] = match ending {
        Ending::Halt => &[],
        Ending::Reset => &RESET,
        Ending::TripleFault => &FAULT,
    };
    let mut code = [&PRINT, before_halt, &HALT].concat();
    // The distance counts from the instruction after lea.
    let distance = (code.len() - 11) as u32;
    code[7..11].copy_from_slice(&distance.to_le_bytes());
    code.extend(LINE.bytes());
    code.push(0);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_where_the_code_looks_for_it() {
        for ending in [Ending::Halt, Ending::Reset, Ending::TripleFault] {
            let code = code(ending);
            let distance = u32::from_le_bytes(code[7..11].try_into().unwrap()) as usize;
            let line = &code[11 + distance..];
            assert_eq!(line, [LINE.as_bytes(), &[0]].concat(), "{ending:?}");
        }
    }

    #[test]
    fn the_segment_holds_the_whole_file() {
        let elf = elf(Ending::Reset);
        let size = u64::from_le_bytes(elf[96..104].try_into().unwrap());
        assert_eq!(size, elf.len() as u64);
        let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
        assert_eq!(elf[(entry - ADDRESS) as usize], 0x66);
    }
}
