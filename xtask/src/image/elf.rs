//! Whether an ELF file starts without a dynamic linker.

use anyhow::{Context as _, Result};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Whether the file requests no dynamic linker (elf(5)).
pub(super) fn is_static(file: &[u8]) -> Result<bool> {
    // 64 bits, little-endian: the only machines that lbr runs on.
    let header = FileHeader64::<LittleEndian>::parse(file).context("not a 64-bit little-endian ELF file")?;
    let parts = header.program_headers(LittleEndian, file).context("the ELF file is cut off")?;
    Ok(parts.iter().all(|part| part.p_type(LittleEndian) != PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with these program headers behind it.
    fn file(kinds: &[u32]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
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
    fn file_without_an_elf_header_is_refused() {
        assert!(is_static(b"#!/bin/sh").is_err());
        assert!(is_static(&file(&[1, 1])[..100]).is_err());
    }
}
