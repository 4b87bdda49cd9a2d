//! Purging the store of a gateway that is stopped.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{AppError, app_error};
use crate::event::to_microsecond;
use crate::record::{
    self, Config, Fault, NewPurge, PurgeBegun, PurgeId, SqliteStore, Store, Target,
};

/// What is to be removed.
#[derive(Debug, Clone)]
pub enum Purge {
    /// Everything of this tenant.
    Tenant(String),
    /// Events of this tenant, or of all, with this attribute.
    Attribute {
        /// Whose events; those of all when absent.
        tenant: Option<String>,
        /// The attribute's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Events of this tenant, or of all, whose data has this value where the pointer leads to.
    Pointer {
        /// Whose events; those of all when absent.
        tenant: Option<String>,
        /// A JSON Pointer (RFC 6901).
        pointer: String,
        /// The value.
        value: Value,
    },
}

/// Removes what is asked for and rewrites the database, so that nothing of it is left. Gives how many events each
/// tenant lost.
///
/// # Errors
/// When there is no database, a gateway uses it, or it cannot be written.
pub async fn purge(data_dir: PathBuf, purge: Purge) -> Result<Vec<(Arc<str>, u64)>, AppError> {
    let config = Config::new(data_dir);
    if !record::exists(&config) {
        let folder = config.data_dir.display();
        return Err(AppError(format!(
            "there is no database in {folder}; `--data` is the configuration's `store.data_dir`"
        )));
    }
    let store = SqliteStore::open(&config).map_err(|error| match error.fault() {
        Fault::InUse => {
            AppError(format!("{error}. While it runs, `POST /v1/purges` of its API does the same"))
        }
        _ => app_error(error),
    })?;
    let (tenant, target, value) = match purge {
        Purge::Tenant(name) => (Some(name), Target::Tenant, Value::Null),
        Purge::Attribute { tenant, name, value } => {
            (tenant, Target::Attribute(name), Value::String(value))
        }
        Purge::Pointer { tenant, pointer, value } => (tenant, Target::Pointer(pointer), value),
    };
    let tenants = match tenant {
        Some(name) => vec![name.into()],
        None => store.tenants().await.map_err(app_error)?,
    };
    let mut purged = Vec::new();
    for tenant in tenants {
        let events = of_tenant(&store, &tenant, &target, &value).await?;
        purged.push((tenant, events));
    }
    store.rewrite().await.map_err(|error| {
        AppError(format!(
            "everything is removed, but the database cannot be rewritten: {error}. It takes as much free space as the \
             database has; until then, traces may be left in the file. Run the command again to rewrite it"
        ))
    })?;
    Ok(purged)
}

async fn of_tenant(
    store: &SqliteStore,
    tenant: &Arc<str>,
    target: &Target,
    value: &Value,
) -> Result<u64, AppError> {
    let (tenant, target, value) = (Arc::clone(tenant), target.clone(), value.clone());
    let created_at = to_microsecond(Timestamp::now());
    let new = NewPurge { id: PurgeId::generate(), tenant, target, value, created_at };
    let id = match store.begin_purge(new).await.map_err(app_error)? {
        PurgeBegun::New(purge) | PurgeBegun::Open(purge) => purge.id,
        PurgeBegun::TooMany => {
            return Err(AppError(
                "too many purges are open; start the gateway, which goes on with them".to_owned(),
            ));
        }
    };
    loop {
        let stepped = store.step_purge(id, Timestamp::now()).await.map_err(app_error)?;
        if stepped.purge.ended_at.is_some() {
            return Ok(stepped.purge.done);
        }
    }
}
