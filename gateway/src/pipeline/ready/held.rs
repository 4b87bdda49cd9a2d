//! How much is held, by number and by bytes, and the shares of it.

/// Of all that is held, a lane may hold a quarter, and a tenant three.
const PARTS: usize = 4;

/// What is held: deliveries, and the bytes of their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Held {
    pub(super) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// Gives back the room of one delivery. True when something found no room here and now there is some:
    /// `full` says so until then.
    pub(super) fn give_back(&mut self, bytes: usize, full: &mut bool, max: Self) -> bool {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        let room = *full && self.has_room(max);
        *full &= !room;
        room
    }

    /// How many more deliveries may be held; `full` is set when that is none.
    pub(super) fn room(self, full: &mut bool, max: Self) -> usize {
        *full = self.is_full(max);
        if *full { 0 } else { max.count.saturating_sub(self.count) }
    }

    /// Whether nothing fresh may be held, `full` saying that something waits in the store for room: that comes
    /// first, or what is fresh would take all that is made.
    pub(super) fn refuses(self, full: &mut bool, max: Self) -> bool {
        *full |= self.is_full(max);
        *full && !self.has_room(max)
    }

    /// Whether nothing more may be held. What is held may be one delivery over the limit of bytes.
    pub(super) fn is_full(self, max: Self) -> bool {
        self.count >= max.count || self.bytes >= max.bytes
    }

    /// Room counts only once half is free, so that a full lane does not ask the store for each delivery.
    pub(super) fn has_room(self, max: Self) -> bool {
        self.count <= max.count / 2 && self.bytes <= max.bytes / 2
    }

    /// The share of a lane.
    pub(super) fn of_lane(self) -> Self {
        Self { count: (self.count / PARTS).max(1), bytes: (self.bytes / PARTS).max(1) }
    }

    /// The share of a tenant: all but one of the parts.
    pub(super) fn of_tenant(self) -> Self {
        let but_one = |all: usize| (all - all / PARTS).max(1);
        Self { count: but_one(self.count), bytes: but_one(self.bytes) }
    }
}
