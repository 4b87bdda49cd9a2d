//! A look at a file before it is compiled: whether it is WebAssembly, for which version of the contract it was
//! built, and whether it is of a size that compiling it can be risked.
//!
//! One pass over the bytes, without validating them: what is counted here bounds what the validator, the
//! encoder of components and the compiler are given to do. The limits lie far above what compilers
//! make, heavy languages included.

use std::fmt;

use wasmparser::{Encoding, FunctionBody, Operator, Parser, Payload};

use super::anatomy::check_magic;
use super::text;

/// The custom section in which the SDK leaves the contract's version.
pub(super) const WORLD_SECTION: &str = "hookmill:world";

/// The version of the contract that plugins are linked against.
const WORLD_VERSION: &str = "1.0.0";

/// How deep components may be nested.
const MAX_NESTING: u64 = 8;

/// The largest body of one function, in bytes.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;

/// The most local variables of one function.
const MAX_FUNCTION_LOCALS: u64 = 10_000;

/// How deep the blocks of one function may be nested.
const MAX_FUNCTION_NESTING: u64 = 10_000;

/// The most targets of all branch tables of one function together.
const MAX_FUNCTION_TARGETS: u64 = 50_000;

/// Declares what is counted over the whole file, nested modules and components included: field, the most
/// that is allowed, and the words for it.
macro_rules! counts {
    ($($field:ident <= $most:expr, $what:literal;)*) => {
        #[derive(Debug, Default)]
        struct Counts { $($field: u64,)* }

        impl Counts {
            fn check(&self) -> Result<(), Refusal> {
                $(at_most(self.$field, $most, $what)?;)*
                Ok(())
            }
        }
    };
}

/// Data segments: Go makes one of each constant, 37,000 for a small program.
const DATA: u64 = 100_000;

counts! {
    modules <= 100, "core modules";
    components <= 100, "components";
    instances <= 500, "instances";
    aliases <= 100_000, "aliases";
    types <= 50_000, "types";
    imports <= 20_000, "imports";
    exports <= 20_000, "exports";
    functions <= 200_000, "functions";
    locals <= 5_000_000, "local variables in all functions";
    globals <= 50_000, "globals";
    memories <= 100, "memories";
    tables <= 100, "tables";
    elements <= 20_000, "element segments";
    data <= DATA, "data segments";
    custom <= 1_000, "custom sections";
}

/// Why a file is not compiled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(format!("it is damaged or cut off: {error}"))
    }
}

fn at_most(count: u64, most: u64, what: &str) -> Result<(), Refusal> {
    if count <= most {
        return Ok(());
    }
    Err(Refusal(format!("it has {count} {what}; at most {most} are allowed")))
}

/// Tells a component from a core module, and refuses what is of another version of the contract or too large
/// in some respect, by name.
pub(super) fn inspect(bytes: &[u8]) -> Result<Encoding, Refusal> {
    check_magic(bytes).map_err(|damaged| Refusal(damaged.to_string()))?;
    let mut outermost = None;
    let mut nesting = 0;
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding, .. } => {
                outermost = outermost.or(Some(*encoding));
                nesting += 1;
                at_most(nesting, MAX_NESTING, "levels of nested components and modules")?;
            }
            Payload::End(_) => nesting = nesting.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == WORLD_SECTION => {
                check_version(section.data())?;
            }
            _ => {}
        }
        counts.add(&payload)?;
        counts.check()?;
    }
    outermost.ok_or_else(|| Refusal("it is an empty file".to_owned()))
}

fn check_version(version: &[u8]) -> Result<(), Refusal> {
    if version == WORLD_VERSION.as_bytes() {
        return Ok(());
    }
    let version = String::from_utf8_lossy(version);
    let version = text::cut_to(&version, 32);
    Err(Refusal(format!(
        "it was built for version {} of the plugin contract; this gateway knows {WORLD_VERSION}",
        version.escape_debug()
    )))
}

impl Counts {
    /// Counts what a section holds. What counts itself by a number before its items is believed: a number that
    /// is too large is refused, and one that is too small is damage that the validator finds.
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => self.modules += 1,
            Payload::Version { encoding: Encoding::Component, .. } => self.components += 1,
            Payload::TypeSection(it) => self.types += u64::from(it.count()),
            Payload::CoreTypeSection(it) => self.types += u64::from(it.count()),
            Payload::ComponentTypeSection(it) => self.types += u64::from(it.count()),
            Payload::ImportSection(it) => self.imports += u64::from(it.count()),
            Payload::ComponentImportSection(it) => self.imports += u64::from(it.count()),
            Payload::ExportSection(it) => self.exports += u64::from(it.count()),
            Payload::ComponentExportSection(it) => self.exports += u64::from(it.count()),
            Payload::FunctionSection(it) => self.functions += u64::from(it.count()),
            Payload::ComponentCanonicalSection(it) => self.functions += u64::from(it.count()),
            Payload::CodeSectionEntry(body) => self.locals += function(body)?,
            Payload::GlobalSection(it) => self.globals += u64::from(it.count()),
            Payload::MemorySection(it) => self.memories += u64::from(it.count()),
            Payload::TableSection(it) => self.tables += u64::from(it.count()),
            Payload::ElementSection(it) => self.elements += u64::from(it.count()),
            Payload::DataSection(it) => self.data += u64::from(it.count()),
            Payload::DataCountSection { count, .. } => {
                at_most(u64::from(*count), DATA, "data segments")?;
            }
            Payload::InstanceSection(it) => self.instances += u64::from(it.count()),
            Payload::ComponentInstanceSection(it) => self.instances += u64::from(it.count()),
            Payload::ComponentAliasSection(it) => self.aliases += u64::from(it.count()),
            Payload::CustomSection(_) => self.custom += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Looks over the body of a function, and counts its local variables.
fn function(body: &FunctionBody<'_>) -> Result<u64, Refusal> {
    let bytes = body.range().len() as u64;
    at_most(bytes, MAX_FUNCTION_BYTES, "bytes in one function")?;
    let mut locals = 0;
    for group in body.get_locals_reader()? {
        let (count, _) = group?;
        locals += u64::from(count);
        at_most(locals, MAX_FUNCTION_LOCALS, "local variables in one function")?;
    }
    let (mut nesting, mut targets) = (0_u64, 0_u64);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        match operators.read()? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                nesting += 1;
                at_most(nesting, MAX_FUNCTION_NESTING, "levels of nested blocks in one function")?;
            }
            Operator::End => nesting = nesting.saturating_sub(1),
            Operator::BrTable { targets: table } => {
                targets += u64::from(table.len());
                let what = "targets of branch tables in one function";
                at_most(targets, MAX_FUNCTION_TARGETS, what)?;
            }
            _ => {}
        }
    }
    Ok(locals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        inspect(&wat::parse_str(text).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn tells_modules_from_components_and_from_other_things() {
        assert_eq!(inspect(&wat::parse_str("(module)").unwrap()), Ok(Encoding::Module));
        assert_eq!(inspect(&wat::parse_str("(component)").unwrap()), Ok(Encoding::Component));
        assert!(inspect(b"").unwrap_err().to_string().contains("empty file"));
        assert!(inspect(b"\x7fELF").unwrap_err().to_string().contains("not WebAssembly"));
        assert!(inspect(b"\0asm").unwrap_err().to_string().contains("damaged or cut off"));
        let version = refusal(r#"(module (@custom "hookmill:world" "2.0.0\n"))"#);
        assert!(version.contains(r"version 2.0.0\n of"), "{version}");
    }

    #[test]
    fn what_is_too_much_is_named_and_counted() {
        let many = |item: &str, count| item.repeat(count);
        for (text, expected) in [
            (format!("(module {})", many("(func)", 200_001)), "it has 200001 functions"),
            (
                format!("(module (func (local {})))", many("i32 ", 10_001)),
                "it has 10001 local variables in one function; at most 10000",
            ),
            (
                format!(
                    "(module {})",
                    many(&format!("(func (local {}))", many("i32 ", 9_999)), 501)
                ),
                "local variables in all functions; at most 5000000",
            ),
            (
                format!("(module (func (param i32) local.get 0 br_table {}))", many("0 ", 50_002)),
                "it has 50001 targets of branch tables in one function",
            ),
            (
                format!("(module (func {} {}))", many("block ", 10_001), many("end ", 10_001)),
                "it has 10001 levels of nested blocks in one function",
            ),
            (
                format!("(module (func {}))", many("nop ", (1 << 20) + 1)),
                "bytes in one function; at most 1048576",
            ),
            (
                format!("(module (memory 1) {})", many("(data (i32.const 0) \"\")", 100_001)),
                "it has 100001 data segments",
            ),
            (format!("(module {})", many("(global i32 (i32.const 0))", 50_001)), "50001 globals"),
            (format!("(module {})", many("(table 0 funcref)", 101)), "it has 101 tables"),
            (format!("(component {})", many("(core module)", 101)), "it has 101 core modules"),
            (format!("(component {})", many("(component)", 100)), "it has 101 components"),
            (
                format!("{}{}", many("(component ", 9), many(")", 9)),
                "it has 9 levels of nested components",
            ),
            (
                format!(
                    "(component (core module $m) {})",
                    many("(core instance (instantiate $m))", 501)
                ),
                "it has 501 instances",
            ),
            (format!("(component {})", many("(type string)", 50_001)), "it has 50001 types"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
