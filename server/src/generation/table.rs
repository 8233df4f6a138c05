//! A table of sessions by slot number.
//!
//! It grows by pages and moves nothing: a table that doubles in one piece would copy thousands of sessions while their peers
//! wait, and leave a hole of the old size behind.

use std::ops::Range;

/// Slots of a page: some 32 KiB of sessions.
const PAGE: usize = 256;

/// No slot.
const NONE: u32 = u32::MAX;

pub(super) struct Table<T> {
    pages: Vec<Box<[Slot<T>]>>,
    /// The first of the vacant slots, which are chained.
    vacant: u32,
    len: usize,
}

enum Slot<T> {
    Vacant { next: u32 },
    Taken(T),
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), vacant: NONE, len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot that the next [`insert`](Self::insert) takes.
    pub(super) fn next_slot(&mut self) -> u32 {
        if self.vacant == NONE {
            let first = (self.pages.len() * PAGE) as u32;
            let last = first + PAGE as u32 - 1;
            let next = |slot| if slot == last { NONE } else { slot + 1 };
            self.pages.push((first..=last).map(|slot| Slot::Vacant { next: next(slot) }).collect());
            self.vacant = first;
        }
        self.vacant
    }

    /// Puts a value into the slot that [`next_slot`](Self::next_slot) named.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let slot = self.next_slot();
        let Slot::Vacant { next } = std::mem::replace(self.place(slot), Slot::Taken(value)) else {
            unreachable!("the chain of vacant slots leads to vacant slots")
        };
        self.vacant = next;
        self.len += 1;
        slot
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)? {
            Slot::Taken(value) => Some(value),
            Slot::Vacant { .. } => None,
        }
    }

    /// Takes the value out of a slot. An empty table keeps no pages.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        self.get_mut(slot)?;
        let vacant = Slot::Vacant { next: self.vacant };
        let Slot::Taken(value) = std::mem::replace(self.place(slot), vacant) else { return None };
        self.vacant = slot;
        self.len -= 1;
        if self.is_empty() {
            *self = Self::new();
        }
        Some(value)
    }

    /// Every slot number so far, taken or not.
    pub(super) fn slots(&self) -> Range<u32> {
        0..(self.pages.len() * PAGE) as u32
    }

    fn place(&mut self, slot: u32) -> &mut Slot<T> {
        &mut self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_values_stay_where_they_are() {
        let mut table = Table::new();
        let slots: Vec<u32> = (0..1000).map(|value| table.insert(value)).collect();
        assert!(
            slots.iter().enumerate().all(|(value, slot)| table.get_mut(*slot) == Some(&mut value.clone()))
        );
        assert_eq!(table.remove(500), Some(500));
        assert_eq!(table.get_mut(500), None);
        assert_eq!(table.remove(500), None);
        assert_eq!(table.next_slot(), 500);
        assert_eq!(table.insert(7), 500);
        assert_eq!(table.get_mut(1_000_000), None);
    }

    #[test]
    fn an_empty_table_keeps_no_memory() {
        let mut table = Table::new();
        for value in 0..600 {
            table.insert(value);
        }
        for slot in 0..600 {
            assert_eq!(table.remove(slot), Some(slot));
        }
        assert!(table.is_empty() && table.pages.is_empty());
        assert_eq!(table.insert(1), 0);
    }
}
