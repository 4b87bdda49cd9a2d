//! `clock`: the time of the event's acceptance, whenever it is asked for.

use super::contract::hookmill::plugin::clock::Host;
use crate::transform::state::State;

impl Host for State {
    fn now(&mut self) -> wasmtime::Result<String> {
        Ok(format!("{:.3}", self.session()?.about().accepted_at))
    }

    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        let millis = self.session()?.about().accepted_at.as_millisecond();
        Ok(u64::try_from(millis).unwrap_or(0))
    }
}
