//! Leaves out of a plugin's file what no gateway reads: debug information, the compiler's notes and the like.

use wasmparser::BinaryReader;

use super::anatomy::{DamagedFile, check_magic};

/// The id of custom sections, in modules and in components.
const CUSTOM: u8 = 0;

/// The ids under which a component holds modules and components, and the layer in a header that says that it
/// is a component.
const NESTED: [u8; 2] = [1, 4];
const COMPONENT_LAYER: [u8; 2] = [1, 0];

const HEADER_LEN: usize = 8;

/// Components within components that are looked into; a plugin has a few.
const MAX_DEPTH: usize = 100;

/// The file without the custom sections that the gateway does not read. It keeps the contract's types
/// (`component-type…`), the SDK's notes (`hookmill:…`), and the names of functions, which backtraces need.
///
/// # Errors
/// When the file is damaged.
pub fn shrink(bytes: &[u8]) -> Result<Vec<u8>, DamagedFile> {
    check_magic(bytes)?;
    shrink_nested(bytes, MAX_DEPTH).map_err(DamagedFile::new)
}

fn shrink_nested(bytes: &[u8], depth: usize) -> wasmparser::Result<Vec<u8>> {
    let mut reader = BinaryReader::new(bytes, 0);
    let header = reader.read_bytes(HEADER_LEN)?;
    let is_component = header.ends_with(&COMPONENT_LAYER);
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(header);
    while !reader.eof() {
        let id = reader.read_u8()?;
        let len = reader.read_var_u32()?;
        let content = reader.read_bytes(usize::try_from(len).unwrap_or(usize::MAX))?;
        if id == CUSTOM && !is_needed(BinaryReader::new(content, 0).read_string()?) {
            continue;
        }
        if is_component && NESTED.contains(&id) && depth > 0 {
            push_section(&mut out, id, &shrink_nested(content, depth - 1)?);
        } else {
            push_section(&mut out, id, content);
        }
    }
    Ok(out)
}

fn is_needed(name: &str) -> bool {
    name == "name" || name.starts_with("component-type") || name.starts_with("hookmill:")
}

/// Writes a section: its id, its length as LEB128, its content.
fn push_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    let mut len = content.len();
    loop {
        let low = u8::try_from(len & 0x7f).unwrap_or_default();
        len >>= 7;
        if len == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Anatomy;

    fn sections(wasm: &[u8]) -> Vec<String> {
        Anatomy::of(wasm).unwrap().custom_sections.into_keys().collect()
    }

    #[test]
    fn only_what_the_gateway_reads_stays() {
        let large = "x".repeat(300);
        let wasm = wat::parse_str(format!(
            r#"(module $named
                (func $f (export "f") nop)
                (@custom "component-type:plugin" "t") (@custom "hookmill:world" "1.0.0")
                (@custom "hookmill:large" "{large}")
                (@custom ".debug_info" "d") (@custom "producers" "p")
                (@custom "target_features" "f") (@custom "sourceMappingURL" "s"))"#
        ))
        .unwrap();
        let small = shrink(&wasm).unwrap();
        let kept = ["component-type:plugin", "hookmill:large", "hookmill:world", "name"];
        assert_eq!(sections(&small), kept);
        assert!(small.len() < wasm.len());
        assert_eq!(shrink(&small).unwrap(), small);
        let (before, after) = (Anatomy::of(&wasm).unwrap(), Anatomy::of(&small).unwrap());
        assert_eq!((before.exports, before.code_bytes), (after.exports, after.code_bytes));
    }

    #[test]
    fn modules_in_a_component_shrink_too() {
        let wasm = wat::parse_str(
            r#"(component (component (core module (func $f nop) (@custom "producers" "inner")))
                (core module (@custom ".debug_line" "x")))"#,
        )
        .unwrap();
        let small = shrink(&wasm).unwrap();
        assert_eq!(sections(&small), ["name"]);
        assert!(wasmparser::Parser::new(0).parse_all(&small).all(|payload| payload.is_ok()));
    }

    #[test]
    fn a_cut_off_file_is_refused() {
        let wasm = wat::parse_str(r#"(module (func (export "f") nop) (@custom "a" "b"))"#).unwrap();
        assert!(shrink(&wasm).is_ok());
        for len in (0..HEADER_LEN).chain(HEADER_LEN + 1..HEADER_LEN + 4) {
            assert!(shrink(&wasm[..len]).is_err(), "{len}");
        }
    }
}
