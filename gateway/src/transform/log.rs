//! The messages of one call, up to its limits.

use super::Limits;
use super::contract::hookmill::plugin::log::Level;
use super::usage::{LogLevel, LogLine};
use crate::delivery::{DeliveryId, OneLine};
use crate::event::Event;
use crate::failpoint::{self, Point};

/// The messages of one call, up to its limits.
#[derive(Debug)]
pub(super) struct Log {
    lines: Vec<(Level, String)>,
    lines_left: usize,
    pub(super) bytes_left: usize,
    pub(super) omitted: usize,
}

impl Log {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            lines: Vec::new(),
            lines_left: limits.log_lines,
            bytes_left: limits.log_bytes,
            omitted: 0,
        }
    }

    pub(super) fn push(&mut self, level: Level, mut message: String) {
        failpoint::hit(Point::PluginCalled);
        if self.lines_left == 0 || self.bytes_left == 0 {
            self.omitted += 1;
            return;
        }
        message.truncate(message.floor_char_boundary(self.bytes_left));
        self.lines_left -= 1;
        self.bytes_left -= message.len().min(self.bytes_left);
        self.lines.push((level, message));
    }

    /// The last error, which is where a panic's message stands.
    pub(super) fn last_error(&self) -> Option<&str> {
        let mut errors = self.lines.iter().rev().filter(|(level, _)| *level == Level::Error);
        errors.next().map(|(_, message)| message.as_str())
    }

    /// The messages, and how many more were left out.
    pub(super) fn into_lines(self) -> (Vec<LogLine>, usize) {
        let line = |(level, message)| LogLine { level: LogLevel::from_contract(level), message };
        (self.lines.into_iter().map(line).collect(), self.omitted)
    }

    /// Passes the messages on to the gateway's own log, with what they were about.
    pub(super) fn emit(self, plugin: &str, about: Option<(&Event, DeliveryId)>) {
        if self.lines.is_empty() {
            return;
        }
        let tenant = about.map(|(event, _)| &*event.tenant);
        let event = about.map(|(event, _)| event.id.as_str());
        let delivery = about.map(|(_, delivery)| delivery.to_string());
        // The level of a message has to be known when the gateway is compiled.
        macro_rules! emit {
            ($level:ident, $($field:tt)*) => {
                tracing::$level!(target: "hookmill::plugin", plugin, tenant, event, delivery, $($field)*)
            };
        }
        for (level, message) in self.lines {
            match level {
                Level::Trace => emit!(trace, "{}", OneLine(&message)),
                Level::Debug => emit!(debug, "{}", OneLine(&message)),
                Level::Info => emit!(info, "{}", OneLine(&message)),
                Level::Warn => emit!(warn, "{}", OneLine(&message)),
                Level::Error => emit!(error, "{}", OneLine(&message)),
            }
        }
        if self.omitted > 0 {
            emit!(warn, omitted = self.omitted, "the plugin's log limit is reached");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_says_what_it_left_out() {
        let limits = Limits { log_lines: 3, log_bytes: 8, ..Limits::default() };
        let mut log = Log::new(&limits);
        log.push(Level::Info, "abc".to_owned());
        log.push(Level::Error, "defgéxx".to_owned());
        for _ in 0..5 {
            log.push(Level::Info, "more".to_owned());
        }
        let lines: Vec<_> = log.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["abc", "defg", "m"]);
        assert_eq!(log.last_error(), Some("defg"));
        assert_eq!(log.omitted, 4);
    }
}
