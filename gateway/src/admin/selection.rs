//! Which deliveries a request means: from its words to a filter or a selection, with every wrong field named.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::request::wrong;
use crate::delivery::{DeliveryId, State, WebhookId};
use crate::event::{EventId, EventType};
use crate::problem::{FieldError, Problem};
use crate::record::{Action, Filter, Selection};
use crate::snapshot::Tenant;

/// The fields of a filter.
pub(super) const FIELDS: [&str; 6] =
    ["webhook", "event_type", "state", "accepted_after", "accepted_before", "failed_since"];

/// The most deliveries in a list.
const MAX_LISTED: usize = 1_000;

/// Reads one field of a filter.
pub(super) fn read_field(
    filter: &mut Filter,
    tenant: &Tenant,
    name: &str,
    text: &str,
) -> Result<(), FieldError> {
    let time = || {
        text.parse::<Timestamp>().map_err(|error| {
            wrong(name, format!("is no time such as 2026-01-31T12:00:00Z: {error}"))
        })
    };
    match name {
        "webhook" => filter.webhook = Some(webhook(tenant, text)?),
        "event_type" => {
            let parsed = EventType::parse(text).map_err(|error| wrong(name, error.to_string()))?;
            filter.event_type = Some(parsed);
        }
        "state" => {
            let known = State::ALL.map(State::as_str).join(", ");
            let parsed = State::parse(text)
                .ok_or_else(|| wrong(name, format!("{text:?} is no state; there are: {known}")))?;
            filter.state = Some(parsed);
        }
        "accepted_after" => filter.accepted_after = Some(time()?),
        "accepted_before" => filter.accepted_before = Some(time()?),
        "failed_since" => filter.failed_since = Some(time()?),
        _ => {
            let known = FIELDS.join(", ");
            return Err(wrong(name, format!("is not known; a filter has: {known}")));
        }
    }
    Ok(())
}

/// A webhook by its name or its id. One that is no longer declared, whose deliveries are still there, is known by
/// its id alone.
fn webhook(tenant: &Tenant, text: &str) -> Result<WebhookId, FieldError> {
    let declared = tenant.webhooks();
    let found = declared
        .iter()
        .find(|webhook| *webhook.id.0 == *text || webhook.definition.name == text)
        .map(|webhook| webhook.id.clone());
    let is_id = || {
        text.strip_prefix("wh_").is_some_and(|digits| {
            digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    found.or_else(|| is_id().then(|| WebhookId(text.into()))).ok_or_else(|| {
        wrong("webhook", format!("{text:?} is neither the name of a webhook nor an id, `wh_…`"))
    })
}

/// What a body asks for: `{"deliveries": [ids]}`, `{"event": id}`, or the fields of a filter; a replay may say
/// `"same_bytes": true`.
pub(super) fn read(
    body: &[u8],
    tenant: &Tenant,
    action: Action,
) -> Result<(Action, Selection), Problem> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::invalid_json(format!("the body is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(Problem::invalid_selection("the body must be a JSON object"));
    };
    let mut errors = Vec::new();
    let action = match (action, fields.remove("same_bytes")) {
        (Action::Replay, Some(Value::Bool(true))) => Action::ReplaySameBytes,
        (Action::Replay, None | Some(Value::Bool(false))) | (_, None) => action,
        (Action::Cancel | Action::Resume | Action::Discard, Some(_)) => {
            errors.push(wrong("same_bytes", "is for replays alone"));
            action
        }
        (_, Some(_)) => {
            errors.push(wrong("same_bytes", "must be true or false"));
            action
        }
    };
    let selection = selection(fields, tenant, action, &mut errors);
    match selection {
        Some(selection) if errors.is_empty() => Ok((action, selection)),
        _ => Err(Problem::invalid_selection("`errors` has what is wrong with each field")
            .with_errors(errors)),
    }
}

fn selection(
    mut fields: Map<String, Value>,
    tenant: &Tenant,
    action: Action,
    errors: &mut Vec<FieldError>,
) -> Option<Selection> {
    let (listed, event) = (fields.remove("deliveries"), fields.remove("event"));
    let alone = listed.is_none() && event.is_none();
    match (listed, event) {
        (Some(_), Some(_)) => errors.push(wrong("event", "cannot stand beside `deliveries`")),
        (Some(listed), None) if fields.is_empty() => {
            return self::listed(&listed).map_err(|error| errors.push(error)).ok();
        }
        (None, Some(event)) if fields.is_empty() => {
            let parsed = event.as_str().and_then(|id| EventId::parse(id).ok());
            if parsed.is_none() {
                errors.push(wrong("event", "must be the id of an event, such as \"evt_…\""));
            }
            return parsed.map(Selection::Event);
        }
        (Some(_), None) | (None, Some(_)) => {
            for name in fields.keys() {
                errors.push(wrong(name, "cannot stand beside `deliveries` or `event`"));
            }
        }
        (None, None) => {}
    }
    if !alone {
        return None;
    }
    let mut filter = Filter::default();
    for (name, value) in &fields {
        let read = match value.as_str() {
            Some(text) => read_field(&mut filter, tenant, name, text),
            None if FIELDS.contains(&&**name) => Err(wrong(name, "must be a string")),
            None => read_field(&mut filter, tenant, name, ""),
        };
        errors.extend(read.err());
    }
    if fields.is_empty() {
        errors.push(wrong(
            "deliveries",
            "the body selects nothing: give `deliveries`, `event`, or a field of a filter",
        ));
    }
    check_state(&mut filter, action, errors);
    Some(Selection::Filter(filter))
}

/// A replay is of what is dead unless it says otherwise; a state that the action does not take finds nothing.
fn check_state(filter: &mut Filter, action: Action, errors: &mut Vec<FieldError>) {
    match (filter.state, action) {
        (None, Action::Replay | Action::ReplaySameBytes) => filter.state = Some(State::Dead),
        (Some(state), _) if !action.takes(state) => {
            let fitting = State::ALL.into_iter().filter(|state| action.takes(*state));
            let fitting: Vec<_> = fitting.map(State::as_str).collect();
            let fitting = fitting.join(", ");
            errors.push(wrong("state", format!("must be one of: {fitting}")));
        }
        _ => {}
    }
}

fn listed(value: &Value) -> Result<Selection, FieldError> {
    let expected = || {
        let detail =
            format!("must be a list of 1 to {MAX_LISTED} ids; a filter can select more at once");
        wrong("deliveries", detail)
    };
    let list = value.as_array().ok_or_else(expected)?;
    if list.is_empty() || list.len() > MAX_LISTED {
        return Err(expected());
    }
    let ids = list.iter().enumerate().map(|(index, value)| {
        value.as_str().and_then(DeliveryId::parse).ok_or_else(|| {
            let detail = format!("{value} is not the id of a delivery, such as \"dlv_…\"");
            wrong(&format!("deliveries[{index}]"), detail)
        })
    });
    ids.collect::<Result<_, _>>().map(Selection::Deliveries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::KeyHash;
    use crate::snapshot::{PluginSet, Snapshot, TenantDefinition};
    use crate::transform::Secrets;

    fn read(body: &str, action: Action) -> Result<(Action, Selection), Problem> {
        let key = "a-key-of-the-tests-alone-1";
        let tenant = TenantDefinition {
            name: "acme".to_owned(),
            keys: vec![KeyHash::of(key)],
            plugins: Vec::new(),
            rate_limit: None,
            secrets: Secrets::default(),
            retention: crate::snapshot::Retention::default(),
            max_backlog: 1,
            webhooks: Vec::new(),
            ad_hoc: None,
        };
        let snapshot = Snapshot::new(vec![tenant], PluginSet::default());
        super::read(body.as_bytes(), snapshot.tenant_of_key(key).unwrap(), action)
    }

    #[test]
    fn a_replay_by_filter_is_of_what_is_dead_unless_it_says_otherwise() {
        for (body, state) in [
            (r#"{"event_type": "order.paid"}"#, State::Dead),
            (r#"{"failed_since": "2026-01-31T12:00:00Z"}"#, State::Dead),
            (r#"{"state": "delivered"}"#, State::Delivered),
        ] {
            let (_, selection) = read(body, Action::Replay).unwrap();
            let Selection::Filter(filter) = selection else { panic!("{selection:?}") };
            assert_eq!(filter.state, Some(state), "{body}");
        }
        let (_, selection) = read(r#"{"event_type": "a"}"#, Action::Cancel).unwrap();
        let Selection::Filter(filter) = selection else { panic!("{selection:?}") };
        assert_eq!(filter.state, None);
    }

    #[test]
    fn same_bytes_is_a_replay_of_its_own() {
        let body = r#"{"event": "evt_1", "same_bytes": true}"#;
        let event = Selection::Event(EventId::parse("evt_1").unwrap());
        assert_eq!(read(body, Action::Replay).unwrap(), (Action::ReplaySameBytes, event));
    }

    #[test]
    fn every_wrong_field_is_named() {
        for (body, action, fields) in [
            ("{}", Action::Replay, &["deliveries"][..]),
            (r#"{"same_bytes": true}"#, Action::Replay, &["deliveries"]),
            (r#"{"same_bytes": 1, "event": "evt_1"}"#, Action::Replay, &["same_bytes"]),
            (r#"{"same_bytes": true, "event": "evt_1"}"#, Action::Cancel, &["same_bytes"]),
            (r#"{"deliveries": []}"#, Action::Replay, &["deliveries"]),
            (r#"{"deliveries": ["evt_1"]}"#, Action::Replay, &["deliveries[0]"]),
            (r#"{"event": 1}"#, Action::Replay, &["event"]),
            (r#"{"event": "evt_1", "state": "dead"}"#, Action::Replay, &["state"]),
            (r#"{"stat": "dead"}"#, Action::Replay, &["stat"]),
            (r#"{"state": "held", "webhook": "no"}"#, Action::Replay, &["state", "webhook"]),
            (r#"{"state": "dead"}"#, Action::Cancel, &["state"]),
            (r#"{"state": 1}"#, Action::Cancel, &["state"]),
            (r#"{"accepted_after": "noon"}"#, Action::Cancel, &["accepted_after"]),
        ] {
            let problem = read(body, action).unwrap_err();
            let mut named: Vec<_> = problem.errors().iter().map(|error| &*error.field).collect();
            named.sort_unstable();
            assert_eq!(named, fields, "{body}: {problem:?}");
        }
    }
}
