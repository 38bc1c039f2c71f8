//! Whether an ELF file starts by itself.

use anyhow::{Result, bail};

/// Type of the program header that names a dynamic linker.
const PT_INTERP: u32 = 3;

/// Whether no dynamic linker is asked for (elf(5)).
pub(super) fn is_static(file: &[u8]) -> Result<bool> {
    // 64 bits, least significant byte first: all that lbr runs on.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let headers = number(file, 0x20, 8)?;
    let size = number(file, 0x36, 2)?;
    for n in 0..number(file, 0x38, 2)? {
        if number(file, headers + n * size, 4)? == PT_INTERP as usize {
            return Ok(false);
        }
    }
    Ok(true)
}

fn number(file: &[u8], at: usize, len: usize) -> Result<usize> {
    let Some(bytes) = file.get(at..at.saturating_add(len)) else { bail!("the ELF file is cut off") };
    Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with these program headers behind it.
    fn file(kinds: &[u32]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[0x20] = 64;
        file[0x36] = 56;
        file[0x38] = kinds.len() as u8;
        for kind in kinds {
            file.extend_from_slice(&kind.to_le_bytes());
            file.resize(file.len() + 52, 0);
        }
        file
    }

    #[test]
    fn an_interpreter_is_found_wherever_it_is() {
        assert!(is_static(&file(&[1, 2])).unwrap());
        assert!(!is_static(&file(&[6, 3, 1])).unwrap());
        assert!(!is_static(&file(&[1, 1, 3])).unwrap());
    }

    #[test]
    fn this_test_is_linked_dynamically() {
        assert!(!is_static(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(is_static(b"#!/bin/sh").is_err());
        assert!(is_static(&file(&[1, 1])[..100]).is_err());
    }
}
