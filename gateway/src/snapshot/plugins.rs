//! The plugins there are, by name: those for all tenants, and those of one, each with its versions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::{Shelf, Version};
use crate::digest::{Digest, DigestPrefix};
use crate::transform::Plugin;

/// What a plugin is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginKey {
    /// The tenant whose own it is; none when it is for all.
    pub tenant: Option<Arc<str>>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PluginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The plugins there are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PluginSet {
    shared: Arc<ByName>,
    own: Arc<HashMap<Arc<str>, Arc<ByName>>>,
}

type ByName = HashMap<String, Arc<Shelf>>;

impl PluginSet {
    /// The plugin that a tenant means by this name: its own before the one for all.
    #[must_use]
    pub fn find(&self, tenant: &str, name: &str) -> Option<&Arc<Plugin>> {
        self.shelves(tenant, name).find_map(|shelf| shelf.active.as_ref())
    }

    /// The version that a tenant means. A hash that it pins may be its own or one for all, whichever of the
    /// two plugins is the latest.
    ///
    /// # Errors
    /// Why there is none, in a sentence.
    pub fn choose(
        &self,
        tenant: &str,
        name: &str,
        version: &Version,
    ) -> Result<&Arc<Plugin>, String> {
        let prefix = match version {
            Version::Latest => {
                let found = self.find(tenant, name);
                return found.ok_or_else(|| format!("the plugin `{name}` is not loaded"));
            }
            Version::Pinned(prefix) => prefix,
        };
        let version = self.resolve(tenant, name, prefix)?;
        let mut shelves = self.shelves(tenant, name);
        shelves.find_map(|shelf| shelf.loaded(version)).ok_or_else(|| {
            let mut shelves = self.shelves(tenant, name);
            let why = shelves.find_map(|shelf| shelf.why_unusable(version));
            let why = why.unwrap_or("it is not loaded yet");
            format!("the version {} of the plugin `{name}` cannot be used: {why}", version.brief())
        })
    }

    /// The one version whose hash begins like this.
    fn resolve(&self, tenant: &str, name: &str, prefix: &DigestPrefix) -> Result<Digest, String> {
        let mut fitting = self.shelves(tenant, name).flat_map(|shelf| shelf.fitting(prefix));
        let Some(version) = fitting.next() else {
            let known =
                self.shelves(tenant, name).flat_map(|shelf| shelf.versions()).map(|it| it.brief());
            let known: Vec<_> = known.collect();
            return Err(match known.is_empty() {
                true => format!("the plugin `{name}` has no version {prefix}, nor any other"),
                false => format!(
                    "the plugin `{name}` has no version {prefix}; there are {}",
                    known.join(", ")
                ),
            });
        };
        // The same content may be the tenant's own and there for all.
        match fitting.find(|other| *other != version) {
            None => Ok(version),
            Some(other) => Err(format!(
                "the plugin `{name}` has several versions that begin with {prefix}, as {version} and {other}; \
                 write more digits"
            )),
        }
    }

    /// Where the version is that a tenant pins, if there is just one that it can mean.
    #[must_use]
    pub fn locate(
        &self,
        tenant: &Arc<str>,
        name: &str,
        prefix: &DigestPrefix,
    ) -> Option<(PluginKey, Digest)> {
        let version = self.resolve(tenant, name, prefix).ok()?;
        let own = self.own.get(tenant).and_then(|own| own.get(name));
        let is_own = own.is_some_and(|own| own.versions().any(|own| own == version));
        let tenant = is_own.then(|| Arc::clone(tenant));
        Some((PluginKey { tenant, name: name.to_owned() }, version))
    }

    /// The plugins that a tenant may use, by name, each with whether it is the tenant's own.
    #[must_use]
    pub fn visible_to(&self, tenant: &str) -> BTreeMap<&str, (&Arc<Shelf>, bool)> {
        let shared = self.shared.iter().map(|(name, shelf)| (name, (shelf, false)));
        let own = self.own.get(tenant).into_iter().flat_map(|own| own.iter());
        let own = own.map(|(name, shelf)| (name, (shelf, true)));
        let mut visible: BTreeMap<_, _> =
            shared.map(|(name, shelf)| (name.as_str(), shelf)).collect();
        for (name, shelf) in own {
            // What is left of a plugin that is gone hides no other one.
            let hides = shelf.0.active.is_some() || !visible.contains_key(name.as_str());
            if hides {
                visible.insert(name, shelf);
            }
        }
        visible
    }

    /// The same with other shelves; empty ones are left out.
    #[must_use]
    pub fn with(&self, shelves: impl IntoIterator<Item = (PluginKey, Shelf)>) -> Self {
        let mut set = self.clone();
        // Each is copied once for all of the shelves, not for each of them.
        let (all_shared, all_own) = (Arc::make_mut(&mut set.shared), Arc::make_mut(&mut set.own));
        for (PluginKey { tenant, name }, shelf) in shelves {
            let by_name = match tenant {
                Some(tenant) => Arc::make_mut(all_own.entry(tenant).or_default()),
                None => &mut *all_shared,
            };
            match shelf.is_empty() {
                true => by_name.remove(&name),
                false => by_name.insert(name, Arc::new(shelf)),
            };
        }
        set
    }

    /// The same with other latest versions. Those that they replace stay loaded.
    #[must_use]
    pub fn with_latest<'a>(
        &self,
        plugins: impl IntoIterator<Item = (&'a PluginKey, &'a Arc<Plugin>)>,
    ) -> Self {
        let shelves = plugins.into_iter().map(|(key, plugin)| {
            let by_name = match &key.tenant {
                Some(tenant) => self.own.get(tenant),
                None => Some(&self.shared),
            };
            let shelf = by_name.and_then(|by_name| by_name.get(&key.name));
            let mut shelf = shelf.map_or_else(Shelf::default, |shelf| Shelf::clone(shelf));
            shelf.held.extend(shelf.active.replace(Arc::clone(plugin)));
            (key.clone(), shelf)
        });
        self.with(shelves)
    }

    /// All that is known of all plugins.
    pub fn all(&self) -> impl Iterator<Item = (PluginKey, &Shelf)> {
        let shared = self.shared.iter().map(|(name, shelf)| (None, name, shelf));
        let own = self.own.iter().flat_map(|(tenant, own)| {
            own.iter().map(move |(name, shelf)| (Some(Arc::clone(tenant)), name, shelf))
        });
        shared
            .chain(own)
            .map(|(tenant, name, shelf)| (PluginKey { tenant, name: name.clone() }, &**shelf))
    }

    /// Where a tenant's plugin of this name may be: its own shelf before the one for all.
    fn shelves(&self, tenant: &str, name: &str) -> impl Iterator<Item = &Shelf> {
        let own = self.own.get(tenant).and_then(|own| own.get(name));
        own.into_iter().chain(self.shared.get(name)).map(|shelf| &**shelf)
    }

    /// What the plugin is known by whose latest version a tenant means by this name.
    #[must_use]
    pub fn key(&self, tenant: &Arc<str>, name: &str) -> PluginKey {
        let own = self.own.get(tenant).and_then(|own| own.get(name));
        let is_own = own.is_some_and(|own| own.active.is_some());
        PluginKey { tenant: is_own.then(|| Arc::clone(tenant)), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::snapshot::KeptVersion;

    /// A set with this plugin's kept versions, for all or of one tenant; nothing is loaded.
    fn kept(set: &PluginSet, tenant: Option<&str>, versions: &[Digest]) -> PluginSet {
        let kept = |version: &Digest| KeptVersion {
            version: *version,
            described: String::new(),
            size_bytes: 0,
            first_seen: Timestamp::UNIX_EPOCH,
            last_active: Timestamp::UNIX_EPOCH,
        };
        let shelf = Shelf { kept: versions.iter().map(kept).collect(), ..Shelf::default() };
        let key = PluginKey { tenant: tenant.map(Into::into), name: "redact".to_owned() };
        set.with([(key, shelf)])
    }

    fn digest(begin: &str, end: char) -> Digest {
        Digest::parse(&format!("{begin}{}", end.to_string().repeat(64 - begin.len()))).unwrap()
    }

    fn prefix(text: &str) -> DigestPrefix {
        DigestPrefix::parse(text).unwrap()
    }

    #[test]
    fn a_pin_means_the_one_version_that_begins_like_it() {
        let (a, b, c) = (digest("aaaaaaaa", '1'), digest("aaaaaaaa", '2'), digest("cccccccc", '3'));
        let set = kept(&PluginSet::default(), None, &[a, b, c]);
        let resolve = |text: &str| set.resolve("acme", "redact", &prefix(text));
        assert_eq!(resolve("cccccccc"), Ok(c));
        assert_eq!(resolve("aaaaaaaa2"), Ok(b));
        assert_eq!(resolve(&a.to_string()), Ok(a));
        let several = resolve("aaaaaaaa").unwrap_err();
        assert!(several.contains(&format!("as {a} and {b}; write more digits")), "{several}");
        let none = resolve("dddddddd").unwrap_err();
        assert!(none.contains("there are aaaaaaaa1111, aaaaaaaa2222, cccccccc3333"), "{none}");
        let nothing = set.resolve("acme", "other", &prefix("dddddddd")).unwrap_err();
        assert_eq!(nothing, "the plugin `other` has no version dddddddd, nor any other");
        let unloaded = set.choose("acme", "redact", &Version::Pinned(prefix("cccccccc")));
        assert!(unloaded.unwrap_err().ends_with("cannot be used: it is not loaded yet"));
    }

    #[test]
    fn a_pin_may_be_the_tenants_own_or_for_all_but_never_another_tenants() {
        let (shared, own) = (digest("aaaaaaaa", '1'), digest("bbbbbbbb", '2'));
        let set = kept(&PluginSet::default(), None, &[shared]);
        let set = kept(&set, Some("acme"), &[own, shared]);
        let locate = |tenant: &str, text: &str| {
            let found = set.locate(&tenant.into(), "redact", &prefix(text));
            found.map(|(key, version)| (key.to_string(), version))
        };
        assert_eq!(locate("acme", "bbbbbbbb"), Some(("acme/redact".to_owned(), own)));
        assert_eq!(locate("acme", "aaaaaaaa"), Some(("acme/redact".to_owned(), shared)));
        assert_eq!(locate("globex", "aaaaaaaa"), Some(("redact".to_owned(), shared)));
        assert_eq!(locate("globex", "bbbbbbbb"), None);
    }

    #[test]
    fn what_is_left_of_a_tenants_own_plugin_hides_none_for_all() {
        let version = digest("aaaaaaaa", '1');
        let set = kept(&kept(&PluginSet::default(), None, &[version]), Some("acme"), &[version]);
        let is_own = |set: &PluginSet| set.visible_to("acme").get("redact").map(|(_, own)| *own);
        assert_eq!(is_own(&set), Some(false));
        let emptied = kept(&set, None, &[]);
        assert_eq!(is_own(&emptied), Some(true));
        assert!(kept(&emptied, Some("acme"), &[]).visible_to("acme").is_empty());
    }
}
