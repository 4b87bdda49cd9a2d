//! Grants: which capabilities the operator gives to a plugin, and how far they reach.

use std::fmt;

use super::AllowedUrl;
use crate::transform::Limits;

/// Something that a plugin can do only where the operator says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// The time.
    Clock,
    /// Random numbers.
    Random,
    /// The tenant's secrets.
    Secrets,
    /// Keys and values that outlive a call.
    Kv,
    /// HTTP requests.
    Http,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Clock, Self::Random, Self::Secrets, Self::Kv, Self::Http];

    /// The name in the contract, and in the `[grants]` of a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Random => "random",
            Self::Secrets => "secrets",
            Self::Kv => "kv",
            Self::Http => "http",
        }
    }

    /// The capability of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }

    /// The capability whose interface this import names, as in `hookmill:plugin/kv@1.0.0`.
    #[must_use]
    pub fn of_import(import: &str) -> Option<Self> {
        let (name, version) = import.strip_prefix("hookmill:plugin/")?.split_once('@')?;
        version.starts_with("1.").then(|| Self::parse(name))?
    }

    /// What the operator can write to grant it.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Clock => "clock = true",
            Self::Random => "random = true",
            Self::Secrets => "secrets = [\"NAME\"]",
            Self::Kv => "kv = true",
            Self::Http => "http = [\"https://HOST/PATH/\"]",
        }
    }
}

/// What a plugin may do beside transforming: nothing, unless the operator grants it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// The time.
    pub clock: bool,
    /// Random numbers.
    pub random: bool,
    /// The names of the tenant's secrets that it may read.
    pub secrets: Vec<String>,
    /// Keys and values that outlive a call.
    pub kv: bool,
    /// Where it may send requests.
    pub http: Vec<AllowedUrl>,
}

impl Grants {
    /// The capabilities that are granted.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(|capability| self.has(*capability))
    }

    /// Whether this one is granted.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::Clock => self.clock,
            Capability::Random => self.random,
            Capability::Secrets => !self.secrets.is_empty(),
            Capability::Kv => self.kv,
            Capability::Http => !self.http.is_empty(),
        }
    }

    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a call may have to wait for something outside the sandbox.
    pub(in crate::transform) fn may_wait(&self) -> bool {
        self.has(Capability::Kv) || self.has(Capability::Http)
    }
}

/// What the file beside a plugin says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// What one call may use.
    pub limits: Limits,
    /// What it may do beside transforming.
    pub grants: Grants,
}

impl From<Limits> for Manifest {
    /// These limits, and no grants.
    fn from(limits: Limits) -> Self {
        Self { limits, grants: Grants::default() }
    }
}

/// A capability that a plugin wants and does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transform) struct NotGranted<'a> {
    pub(in crate::transform) plugin: &'a str,
    pub(in crate::transform) capability: Capability,
}

impl fmt::Display for NotGranted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, capability } = self;
        write!(
            f,
            "which is not granted; to grant it, put `{}` under `[grants]` in {plugin}.toml",
            capability.example()
        )
    }
}
