//! What single values mean: text, numbers, sizes, durations, names, addresses.
//!
//! Each function makes a value of a node, or says what is wrong in a phrase that follows the setting's path.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use url::Host;

use super::suggest;
use super::tree::{Node, Value};

/// A kibibyte.
pub(super) const KIB: u64 = 1 << 10;
/// A mebibyte.
pub(super) const MIB: u64 = 1 << 20;
/// A gibibyte.
pub(super) const GIB: u64 = 1 << 30;

const SIZES: [(&str, u64); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// A second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// A minute, in seconds.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// An hour.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// A day.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A millisecond.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

const DURATIONS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1_000),
    ("h", 60 * 60 * 1_000),
    ("m", 60 * 1_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A string.
pub(super) fn text(node: &Node) -> Result<String, String> {
    node.text().map(str::to_owned).ok_or_else(|| wrong(node, "a string"))
}

/// A string that says something.
pub(super) fn non_empty(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text)
}

/// What `parse` makes of a string.
pub(super) fn parsed<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&Node) -> Result<T, String> {
    |node| parse(&text(node)?)
}

/// True or false.
pub(super) fn flag(node: &Node) -> Result<bool, String> {
    match *node.typed() {
        Value::Boolean(flag) => Ok(flag),
        _ => Err(wrong(node, "`true` or `false`")),
    }
}

/// `"never"`, or else this.
pub(super) fn unless_never<T>(
    read: impl FnOnce(&Node) -> Result<T, String>,
) -> impl FnOnce(&Node) -> Result<Option<T>, String> {
    |node| match node.text() {
        Some("never") => Ok(None),
        _ => read(node).map(Some),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &[(&str, T)]) -> impl FnOnce(&Node) -> Result<T, String> {
    move |node| {
        let text = text(node)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            format!("is {text:?}; possible are {}", suggest::list(&words))
        })
    }
}

/// A number of things.
pub(super) fn count<T>(range: RangeInclusive<T>) -> impl FnOnce(&Node) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |node| {
        let Value::Integer(number) = *node.typed() else {
            return Err(wrong(node, "an integer"));
        };
        let fitting = T::try_from(number).ok().filter(|count| range.contains(count));
        fitting.ok_or_else(|| {
            format!("is {number}; it must be from {} to {}", range.start(), range.end())
        })
    }
}

/// A number of bytes: an integer, or a string with a unit.
pub(super) fn size<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&Node) -> Result<T, String> {
    move |node| {
        const NEEDED: &str = "a number of bytes or a string such as \"64 KiB\" or \"1 MiB\"";
        let bytes = match &*node.typed() {
            Value::Integer(bytes) => {
                u64::try_from(*bytes).map_err(|_| format!("is {bytes}; {NEEDED} is needed"))?
            }
            Value::Text(text) => {
                with_unit(text, &SIZES).ok_or_else(|| format!("is {text:?}; {NEEDED} is needed"))?
            }
            _ => return Err(wrong(node, NEEDED)),
        };
        let refusal = || {
            format!(
                "is {}; it must be from {} to {}",
                show_size(bytes),
                show_size(*range.start()),
                show_size(*range.end())
            )
        };
        if !range.contains(&bytes) {
            return Err(refusal());
        }
        T::try_from(bytes).map_err(|_| refusal())
    }
}

/// A length of time: a string with a unit.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Node) -> Result<Duration, String> {
    move |node| {
        let unitless = |number: &str| {
            format!(
                "is the bare number {number}; give it a unit, as in \"{number}s\" or \"{number}ms\""
            )
        };
        let text = match (&node.value, node.text()) {
            (_, Some(text)) => text,
            (Value::Integer(number), None) => return Err(unitless(&number.to_string())),
            (_, None) => return Err(wrong(node, "a string such as \"15s\"")),
        };
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unitless(text));
        }
        let millis = with_unit(text, &DURATIONS).ok_or_else(|| {
            format!("is {text:?}; a whole number and a unit are needed, as in \"500ms\", \"15s\", \"5m\", \"2h\" or \"1d\"")
        })?;
        let duration = Duration::from_millis(millis);
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!(
            "is {}; it must be from {} to {}",
            show_duration(duration),
            show_duration(*range.start()),
            show_duration(*range.end())
        ))
    }
}

/// The number before a unit, in the smallest unit. A space between the two is welcome.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A number of bytes in the largest unit that leaves it whole.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, factor) = largest_whole(bytes, &SIZES).unwrap_or(("B", 1));
    format!("{} {unit}", bytes / factor)
}

fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = largest_whole(millis, &DURATIONS).unwrap_or(("s", 1));
    format!("{}{unit}", millis / factor)
}

fn largest_whole<'a>(number: u64, units: &[(&'a str, u64)]) -> Option<(&'a str, u64)> {
    let whole = |unit: &&(&str, u64)| number != 0 && number.is_multiple_of(unit.1);
    units.iter().find(whole).copied()
}

/// What names are made of.
const LOWER_CASE: &str = "`a-z`, `0-9`, `_` and `-`";
const ANY_CASE: &str = "`A-Z`, `a-z`, `0-9`, `_` and `-`";

/// A name in lower case, of a tenant.
pub(super) fn lower_case_name(node: &Node) -> Result<String, String> {
    name_of(node, LOWER_CASE, u8::is_ascii_lowercase)
}

/// A name of a webhook or a plugin.
pub(super) fn name(node: &Node) -> Result<String, String> {
    name_of(node, ANY_CASE, u8::is_ascii_alphabetic)
}

fn name_of(node: &Node, allowed: &str, letter: fn(&u8) -> bool) -> Result<String, String> {
    let name = non_empty(node)?;
    check_name(&name, allowed, letter).map(|()| name)
}

/// Checks the name of a plugin.
///
/// # Errors
/// What is wrong with it, with the rule.
pub fn check_plugin_name(name: &str) -> Result<(), String> {
    check_name(name, ANY_CASE, u8::is_ascii_alphabetic)
}

/// Checks the name of a tenant.
///
/// # Errors
/// What is wrong with it, with the rule.
pub fn check_tenant_name(name: &str) -> Result<(), String> {
    check_name(name, LOWER_CASE, u8::is_ascii_lowercase)
}

fn check_name(name: &str, allowed: &str, letter: fn(&u8) -> bool) -> Result<(), String> {
    const MAX_LEN: usize = 64;
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > MAX_LEN {
        return Err(format!("is {} bytes long; at most {MAX_LEN} are allowed", name.len()));
    }
    let fits = |b: u8| letter(&b) || b.is_ascii_digit() || b == b'_' || b == b'-';
    match name.chars().find(|c| !u8::try_from(*c).is_ok_and(fits)) {
        Some(bad) => Err(format!("has the character {bad:?}; {allowed} are allowed")),
        None => Ok(()),
    }
}

/// An address to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "is {text:?}; an IP address and a port are needed, as in \"127.0.0.1:8080\", or \
             \"0.0.0.0:8080\" to listen on every interface"
        )
    })
}

/// A network, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        format!(
            "is {text:?}; a network or an address is needed, as in \"10.0.0.0/8\" or \"10.1.2.3\""
        )
    })?;
    if network != network.trunc() {
        return Err(format!(
            "is {text:?}, an address inside a network; write \"{}\" for all of it, or the address alone",
            network.trunc()
        ));
    }
    Ok(network)
}

/// A host's name, in lower case.
pub(super) fn host(text: &str) -> Result<String, String> {
    match Host::parse(text) {
        Ok(Host::Domain(host)) if !host.contains('*') => Ok(host.trim_end_matches('.').to_owned()),
        Ok(Host::Domain(_)) => {
            Err(format!("is {text:?}; hosts are allowed one by one, without `*`"))
        }
        Ok(_) => {
            Err(format!("is the address {text:?}; addresses belong in `delivery.allow_networks`"))
        }
        Err(_) => {
            Err(format!("is {text:?}, not the name of a host; write it without scheme and port"))
        }
    }
}

/// The message for a value of the wrong type.
pub(super) fn wrong(node: &Node, needed: &str) -> String {
    format!("is {}; {needed} is needed", node.typed().kind())
}
