//! The keys for thread-local values that exist in this process, and what each of them leads to.
//!
//! In: every `pthread_key_create` and `pthread_key_delete`, by `interpose`. Out: which keys are a library's. Such a key has to be
//! deleted when the library goes: its destructor would be called in memory that is no longer there, and a process has no more
//! than 1024 of them. The std of a library in Rust makes one and never deletes it.
//!
//! A key is a library's if its destructor lies in it, or if the variable that it was written to does. A variable that lay in no
//! library then, but on a stack, tells nothing: its addresses may be a library's later. A key without destructor that was made
//! in such a variable cannot be told apart. It is never deleted, which costs its slot and nothing else: nothing is called for it.
//!
//! Keys are numbers below 1024, so this is a table, and recording one takes no lock and no memory.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What is known of a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: libc::pthread_key_t,
    /// Never the same for two keys, also where they have the same number.
    serial: u64,
    destructor: usize,
    variable: usize,
    /// The owner of the thread that made it.
    pub(super) maker: u64,
}

impl Key {
    pub(super) fn leads_into(&self, range: &Range<usize>) -> bool {
        range.contains(&self.destructor) || range.contains(&self.variable)
    }

    /// True for one caller only, who then has to delete the key; false if it was deleted meanwhile.
    pub(super) fn take(&self) -> bool {
        let Some(slot) = SLOTS.get(self.number as usize) else { return false };
        slot.serial.compare_exchange(self.serial, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The C library made this key. 0 is no destructor, and no variable that tells whose the key is.
pub(super) fn record(number: libc::pthread_key_t, destructor: usize, variable: usize, maker: u64) {
    let Some(slot) = SLOTS.get(number as usize) else { return };
    slot.destructor.store(destructor, Ordering::Relaxed);
    slot.variable.store(variable, Ordering::Relaxed);
    slot.maker.store(maker, Ordering::Relaxed);
    // The number was free until now, so nobody else writes here. The serial comes last, for `existing`.
    slot.serial.store(SERIAL.fetch_add(1, Ordering::Relaxed), Ordering::Release);
}

/// This key is about to be deleted.
pub(super) fn forget(number: libc::pthread_key_t) {
    if let Some(slot) = SLOTS.get(number as usize) {
        slot.serial.store(FREE, Ordering::Release);
    }
}

/// The keys that exist now.
pub(super) fn existing() -> Vec<Key> {
    let read = |(number, slot): (usize, &Slot)| {
        let serial = slot.serial.load(Ordering::Acquire);
        let key = Key {
            number: number as libc::pthread_key_t,
            serial,
            destructor: slot.destructor.load(Ordering::Acquire),
            variable: slot.variable.load(Ordering::Acquire),
            maker: slot.maker.load(Ordering::Acquire),
        };
        // A slot that changed meanwhile is the key of a thread that runs now, so it is none that anybody asks for.
        (serial != FREE && slot.serial.load(Ordering::Relaxed) == serial).then_some(key)
    };
    SLOTS.iter().enumerate().filter_map(read).collect()
}

struct Slot {
    serial: AtomicU64,
    destructor: AtomicUsize,
    variable: AtomicUsize,
    maker: AtomicU64,
}

const FREE: u64 = 0;

/// `PTHREAD_KEYS_MAX` of glibc; it hands out the numbers below.
const KEYS_MAX: usize = 1024;

static SLOTS: [Slot; KEYS_MAX] = [const {
    Slot {
        serial: AtomicU64::new(FREE),
        destructor: AtomicUsize::new(0),
        variable: AtomicUsize::new(0),
        maker: AtomicU64::new(0),
    }
}; KEYS_MAX];

static SERIAL: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// The highest number, which no thread of a test gets.
    const NUMBER: libc::pthread_key_t = KEYS_MAX as libc::pthread_key_t - 1;

    fn key() -> Option<Key> {
        existing().into_iter().find(|key| key.number == NUMBER)
    }

    #[test]
    fn a_key_is_taken_once_and_never_its_successor() {
        assert_eq!(key(), None);
        record(NUMBER, 0x1000, 0x5000, 7);
        let first = key().expect("it was recorded");
        assert!(first.leads_into(&(0x1000..0x2000)) && first.leads_into(&(0x4000..0x6000)));
        assert!(!first.leads_into(&(0x2000..0x5000)));
        assert!(first.take() && !first.take());
        assert_eq!(key(), None);
        record(NUMBER, 0x1000, 0x5000, 7);
        assert!(!first.take(), "it is another key now");
        forget(NUMBER);
        assert_eq!(key(), None);
        // Other C libraries may have more keys.
        record(NUMBER + 1, 0x1000, 0x5000, 7);
        forget(NUMBER + 1);
    }
}
