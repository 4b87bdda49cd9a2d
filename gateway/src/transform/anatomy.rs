//! What a plugin's file consists of, told without compiling or running it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use wasmparser::{Encoding, Parser, Payload};

use super::inspect::WORLD_SECTION;
use super::load::TRANSFORMER;

/// What a file consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anatomy {
    /// What it is.
    pub kind: Kind,
    /// The version of the plugin contract that it was built for; none when the file does not say.
    pub contract: Option<String>,
    /// What it imports, in the file's order, each name once. Of a core module, the names of the modules that
    /// it imports from.
    pub imports: Vec<String>,
    /// What it exports, in the file's order.
    pub exports: Vec<String>,
    /// The bytes of functions, in all modules that are in it.
    pub code_bytes: usize,
    /// The bytes of constant data, in all modules that are in it.
    pub data_bytes: usize,
    /// The bytes of custom sections, by name.
    pub custom_sections: BTreeMap<String, usize>,
    /// The bytes of the file.
    pub total_bytes: usize,
}

/// The two kinds of plugin files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A component.
    Component,
    /// A core module, which the gateway turns into a component when it loads it.
    CoreModule,
}

impl Kind {
    /// What it is called.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::CoreModule => "core module",
        }
    }
}

/// Why a file cannot be taken apart: a phrase about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile(String);

impl DamagedFile {
    pub(super) fn new(error: impl fmt::Display) -> Self {
        Self(format!("it is damaged or cut off: {error}"))
    }
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DamagedFile {}

/// Refuses what does not even begin as WebAssembly does.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), DamagedFile> {
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    let found = match bytes.is_empty() {
        true => "it is an empty file",
        false => "it is not WebAssembly: its first bytes are not `\\0asm`",
    };
    Err(DamagedFile(found.to_owned()))
}

impl Anatomy {
    /// Takes a file apart.
    ///
    /// # Errors
    /// When it is not WebAssembly, or damaged.
    pub fn of(bytes: &[u8]) -> Result<Self, DamagedFile> {
        check_magic(bytes)?;
        let mut anatomy = Self {
            kind: Kind::CoreModule,
            contract: None,
            imports: Vec::new(),
            exports: Vec::new(),
            code_bytes: 0,
            data_bytes: 0,
            custom_sections: BTreeMap::new(),
            total_bytes: bytes.len(),
        };
        // Modules and components within one another; the file's own is the first.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(DamagedFile::new)?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && *encoding == Encoding::Component {
                        anatomy.kind = Kind::Component;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ => {}
            }
            anatomy.add(&payload, depth == 1).map_err(DamagedFile::new)?;
        }
        let mut seen = HashSet::new();
        anatomy.imports.retain(|name| seen.insert(name.clone()));
        if anatomy.contract.is_none() {
            anatomy.contract = anatomy.contract_of_exports();
        }
        Ok(anatomy)
    }

    /// Whether it has what makes a file a plugin: the contract's `transform`, in any version.
    #[must_use]
    pub fn is_plugin(&self) -> bool {
        self.contract_of_exports().is_some()
    }

    fn add(&mut self, payload: &Payload<'_>, outermost: bool) -> wasmparser::Result<()> {
        match payload {
            Payload::CodeSectionStart { range, .. } => self.code_bytes += range.len(),
            Payload::DataSection(section) => self.data_bytes += section.range().len(),
            Payload::CustomSection(section) => {
                if section.name() == WORLD_SECTION {
                    self.contract = Some(String::from_utf8_lossy(section.data()).into_owned());
                }
                let size = self.custom_sections.entry(section.name().to_owned()).or_default();
                *size += section.data().len();
            }
            Payload::ImportSection(section) if outermost => {
                for import in section.clone().into_imports() {
                    self.imports.push(import?.module.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if outermost => {
                for import in section.clone() {
                    self.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ExportSection(section) if outermost => {
                for export in section.clone() {
                    self.exports.push(export?.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if outermost => {
                for export in section.clone() {
                    self.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The version in the name of the contract's export, `hookmill:plugin/transformer@1.0.0` or, in a core
    /// module, that with `#transform` behind it.
    fn contract_of_exports(&self) -> Option<String> {
        let interface = TRANSFORMER.split('@').next().unwrap_or_default();
        self.exports.iter().find_map(|export| {
            let (name, version) = export.split_once('@')?;
            let version = version.split('#').next().unwrap_or_default();
            (name == interface).then(|| version.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_module_is_taken_apart() {
        let wasm = wat::parse_str(
            r#"(module
                (import "hookmill:plugin/log@1.0.0" "log" (func (param i32 i32 i32)))
                (import "env" "a" (func)) (import "env" "b" (func))
                (memory (export "memory") 1)
                (data (i32.const 0) "constant")
                (func (export "hookmill:plugin/transformer@1.0.0#transform") nop)
                (@custom "hookmill:world" "1.0.0")
                (@custom "producers" "abc") (@custom "producers" "de"))"#,
        )
        .unwrap();
        let anatomy = Anatomy::of(&wasm).unwrap();
        assert_eq!(anatomy.kind, Kind::CoreModule);
        assert_eq!(anatomy.contract.as_deref(), Some("1.0.0"));
        assert_eq!(anatomy.imports, ["hookmill:plugin/log@1.0.0", "env"]);
        assert_eq!(anatomy.exports, ["memory", "hookmill:plugin/transformer@1.0.0#transform"]);
        assert_eq!(anatomy.custom_sections["producers"], 5);
        assert!(anatomy.code_bytes > 0 && anatomy.data_bytes > 8 && anatomy.is_plugin());
        assert_eq!(anatomy.total_bytes, wasm.len());
    }

    #[test]
    fn what_is_within_a_component_is_not_its_own() {
        let wasm = wat::parse_str(
            r#"(component
                (import "outer" (func))
                (core module (import "inner" "f" (func)) (func (export "g") nop)))"#,
        )
        .unwrap();
        let anatomy = Anatomy::of(&wasm).unwrap();
        assert_eq!(anatomy.kind, Kind::Component);
        assert_eq!(anatomy.imports, ["outer"]);
        assert!(anatomy.exports.is_empty() && anatomy.code_bytes > 0 && !anatomy.is_plugin());
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for (bytes, expected) in [
            (&b""[..], "it is an empty file"),
            (b"MZ\x90", "not WebAssembly"),
            (b"\0asm", "damaged or cut off"),
            (b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f", "damaged or cut off"),
        ] {
            let message = Anatomy::of(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
