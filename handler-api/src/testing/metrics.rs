//! Figures of the handlers in this program.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::host::bytes;
use crate::abi::{self, wsh_library, wsh_metric, wsh_metric_api, wsh_status};

pub(super) static TABLE: wsh_metric_api =
    wsh_metric_api { size: size_of::<wsh_metric_api>() as u32, reserved0: 0, declare, add, set };

struct Figure {
    kind: u32,
    value: AtomicI64,
}

static FIGURES: Mutex<BTreeMap<Vec<u8>, &'static Figure>> = Mutex::new(BTreeMap::new());

/// The value of a metric, by its name; `None` if it was not counted yet. All tests of a program share the figures of their handlers, as
/// the sessions of a server do.
pub fn metric(name: &str) -> Option<i64> {
    let figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    figures.get(name.as_bytes()).map(|figure| figure.value.load(Ordering::Relaxed))
}

unsafe extern "C" fn declare(
    _: *mut wsh_library,
    kind: u32,
    name: *const u8,
    name_len: usize,
    _: *const u8,
    _: usize,
    slot: *mut *mut wsh_metric,
) -> wsh_status {
    // SAFETY: wsh.h.
    let name = unsafe { bytes(name, name_len) };
    let mut figures = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    let figure = *figures
        .entry(name.to_vec())
        .or_insert_with(|| Box::leak(Box::new(Figure { kind, value: AtomicI64::new(0) })));
    if figure.kind != kind {
        return abi::WSH_E_STATE;
    }
    // SAFETY: the slot is writable (wsh.h).
    unsafe { slot.write(std::ptr::from_ref(figure).cast_mut().cast()) };
    abi::WSH_OK
}

unsafe extern "C" fn add(metric: *mut wsh_metric, amount: i64) {
    // SAFETY: a pointer of `declare`, which is never freed.
    let figure = unsafe { &*metric.cast::<Figure>().cast_const() };
    figure.value.fetch_add(amount, Ordering::Relaxed);
}

unsafe extern "C" fn set(metric: *mut wsh_metric, value: i64) {
    // SAFETY: as in `add`.
    let figure = unsafe { &*metric.cast::<Figure>().cast_const() };
    figure.value.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Counter, Gauge};

    static SEEN: Counter = Counter::new("test_seen", "Seen in this test");
    static THERE: Gauge = Gauge::new("test_there", "There in this test");

    #[test]
    fn what_a_handler_counts_can_be_read() {
        super::super::host::serve();
        SEEN.add(2);
        SEEN.add(3);
        THERE.set(10);
        THERE.add(-4);
        assert_eq!((metric("test_seen"), metric("test_there")), (Some(5), Some(6)));
        assert_eq!(metric("test_nothing"), None);
    }
}
