//! How a plugin's files fare, as the reloader last saw them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::digest::Digest;

/// How a plugin's files fare. What is active was loaded before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginStatus {
    /// Why the files as they are now do not run.
    pub rejected: Option<Rejection>,
    /// The files have changed, and are being read or compiled.
    pub loading: bool,
    /// The file is gone, and webhooks use the plugin, so that it stays active.
    pub missing: bool,
}

/// A file that is not run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The hash of its content; none when it could not be read.
    pub version: Option<Digest>,
    /// Why, for the operator.
    pub reason: String,
    /// The uses of the plugin that it would not work for, each with the tenant whose it is. None where the file itself
    /// is at fault.
    pub broken: Vec<(Arc<str>, String)>,
    /// When it was first refused for that reason.
    pub since: Timestamp,
}

impl Rejection {
    /// Why a plugin is refused that would not work for these uses.
    #[must_use]
    pub fn would_break(uses: &[&str]) -> String {
        format!(
            "configs that fit what runs now do not fit it; it waits until they are changed: {}",
            uses.join("; ")
        )
    }

    /// Why, for a tenant, which is not told of the webhooks and configs of others.
    #[must_use]
    pub fn reason_for(&self, tenant: &str) -> String {
        let own = self.broken.iter().filter(|(of, _)| **of == *tenant);
        let mut uses: Vec<_> = own.map(|(_, of)| of.as_str()).collect();
        if uses.len() == self.broken.len() {
            return self.reason.clone();
        }
        uses.push("other tenants");
        Self::would_break(&uses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_of_its_own_configs_alone() {
        let of = |tenant: &str| (tenant.into(), format!("webhook {tenant}/it: `limit` is missing"));
        let reason = |broken: Vec<_>| {
            let since = Timestamp::UNIX_EPOCH;
            let reason = "all of it".to_owned();
            Rejection { version: None, reason, broken, since }.reason_for("acme")
        };
        assert_eq!(reason(Vec::new()), "all of it");
        assert_eq!(reason(vec![of("acme")]), "all of it");
        let both = reason(vec![of("acme"), of("globex")]);
        assert!(both.ends_with(": webhook acme/it: `limit` is missing; other tenants"), "{both}");
        let others = reason(vec![of("globex")]);
        assert!(others.ends_with("until they are changed: other tenants"), "{others}");
    }
}
