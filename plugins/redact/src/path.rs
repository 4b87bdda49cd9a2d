//! Where values stand in a payload: JSON pointers in which `*` stands for every member or item.

use hookmill_plugin::config;
use hookmill_plugin::json::Pointer;

/// A JSON pointer in which the step `*` stands for every member of an object and every item of a list.
/// A member that is called `*` can only be reached together with all others.
#[config]
#[derive(Debug)]
#[serde(try_from = "Pointer")]
#[schemars(extend("minLength" = 1))]
pub(crate) struct Path(Pointer);

impl Path {
    /// The steps from the whole payload to the values; never none.
    pub(crate) fn steps(&self) -> &[String] {
        self.0.tokens()
    }
}

impl TryFrom<Pointer> for Path {
    type Error = &'static str;

    fn try_from(pointer: Pointer) -> Result<Self, &'static str> {
        if pointer.tokens().is_empty() {
            return Err("a path cannot lead to the whole payload: drop the event instead");
        }
        Ok(Self(pointer))
    }
}

/// Whether a step of a path leads to the member or item with this name.
pub(crate) fn leads_to(step: &str, name: &str) -> bool {
    step == "*" || step == name
}
