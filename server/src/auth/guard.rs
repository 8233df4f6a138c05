//! What verifying passwords may cost: so many at a time, so many wrong ones from one address, and none twice within a while.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::Denied;
use super::file::Hashed;
use crate::config::Limits;

/// See the module. One for the whole server.
pub(crate) struct Guard {
    limits: Bounds,
    turns: Arc<Semaphore>,
    /// Of this guard alone, so that what is remembered is of no use to whoever reads the memory later.
    key: [u8; 32],
    /// Digests of passwords that were right, and until when they are remembered.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// How many wrong passwords each address has shown since when.
    failures: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    at_a_time: usize,
    failures: u32,
    remembered: usize,
    remembered_for: Duration,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            at_a_time: limits.password_checks_max,
            failures: limits.password_failures_per_minute_max,
            remembered: limits.passwords_remembered_max,
            remembered_for: limits.passwords_remembered_seconds_max,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Addresses whose failures are counted; more at a time are not, because they could not be stopped by it anyway.
const ADDRESSES_MAX: usize = 10_000;

impl Guard {
    pub(crate) fn new(limits: &Limits) -> Self {
        let limits = Bounds::of(limits);
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has random numbers");
        Self {
            limits,
            turns: Arc::new(Semaphore::new(limits.at_a_time)),
            key,
            remembered: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Whether it stands for these limits.
    pub(crate) fn is_for(&self, limits: &Limits) -> bool {
        self.limits == Bounds::of(limits)
    }

    /// Whether a password belongs to a hash. It is asked for on another thread, once it is its turn.
    pub(super) async fn verify(
        &self,
        hashed: &Arc<Hashed>,
        password: &str,
        peer: IpAddr,
        patience: Duration,
    ) -> Result<bool, Denied> {
        // Before the memory is asked, which would tell a right guess from a wrong one for nothing.
        self.check_failures(peer)?;
        let digest = self.digest(hashed, password);
        if self.remembers(&digest) {
            return Ok(true);
        }
        let turn = tokio::time::timeout(patience, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Denied::Busy)?.expect("it is never closed");
        // Again, because many may have come at once.
        self.check_failures(peer)?;
        let (hashed, password) = (hashed.clone(), password.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            // Held here and not outside: who asked may leave, and the work goes on.
            let _turn = turn;
            hashed.is_of(&password)
        });
        let is_right = verified.await.map_err(|_| Denied::Busy)?;
        if is_right {
            self.remember(digest);
        } else {
            self.count_failure(peer);
        }
        Ok(is_right)
    }

    /// Without the key nobody learns anything of the password from it. Another hash in the file makes another digest.
    fn digest(&self, hashed: &Hashed, password: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key);
        digest.update((hashed.text().len() as u64).to_le_bytes());
        digest.update(hashed.text());
        digest.update(password);
        digest.finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        lock(&self.remembered).get(digest).is_some_and(|until| Instant::now() < *until)
    }

    fn remember(&self, digest: [u8; 32]) {
        let Bounds { remembered: most, remembered_for, .. } = self.limits;
        if most == 0 || remembered_for.is_zero() {
            return;
        }
        let (now, mut remembered) = (Instant::now(), lock(&self.remembered));
        if remembered.len() >= most {
            remembered.retain(|_, until| now < *until);
        }
        if remembered.len() >= most {
            let first = remembered.iter().min_by_key(|(_, until)| **until).map(|(digest, _)| *digest);
            first.map(|first| remembered.remove(&first));
        }
        remembered.insert(digest, now + remembered_for);
    }

    fn check_failures(&self, peer: IpAddr) -> Result<(), Denied> {
        let failures = lock(&self.failures);
        let counted = failures.get(&neighbourhood(peer));
        let is_over =
            |(since, count): &(Instant, u32)| since.elapsed() < MINUTE && *count >= self.limits.failures;
        if self.limits.failures > 0 && counted.is_some_and(is_over) {
            Err(Denied::TooManyFailures)
        } else {
            Ok(())
        }
    }

    fn count_failure(&self, peer: IpAddr) {
        let (now, mut failures) = (Instant::now(), lock(&self.failures));
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, (since, _)| since.elapsed() < MINUTE);
        }
        let is_full = failures.len() >= ADDRESSES_MAX;
        match failures.get_mut(&neighbourhood(peer)) {
            Some((since, count)) if since.elapsed() < MINUTE => *count += 1,
            Some(counted) => *counted = (now, 1),
            None if is_full => {}
            None => drop(failures.insert(neighbourhood(peer), (now, 1))),
        }
    }
}

/// Whoever has an address of IPv6 has 2^64 of them.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::file::Users;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn users() -> Users {
        Users::one("ann", "secret")
    }

    async fn ask(guard: &Guard, users: &Users, password: &str) -> Result<bool, Denied> {
        guard.verify(users.hash_of("ann"), password, PEER, PATIENCE).await
    }

    #[tokio::test]
    async fn a_password_that_was_right_is_remembered_and_not_verified_again() {
        let (guard, users) = (Guard::new(&Limits::default()), users());
        assert_eq!(ask(&guard, &users, "secret").await, Ok(true));
        // Whoever has no turn cannot verify; whoever is remembered need not.
        let _all = guard.turns.acquire_many(2).await.unwrap();
        assert_eq!(ask(&guard, &users, "secret").await, Ok(true));
        let late = guard.verify(users.hash_of("ann"), "wrong", PEER, Duration::ZERO).await;
        assert_eq!(late, Err(Denied::Busy));
        let renewed = Users::one("ann", "secret");
        let late = guard.verify(renewed.hash_of("ann"), "secret", PEER, Duration::ZERO).await;
        assert_eq!(late, Err(Denied::Busy), "another hash of the file, which may be of another password");
    }

    #[tokio::test]
    async fn what_is_remembered_has_bounds() {
        let limits = Limits { passwords_remembered_max: 1, ..Limits::default() };
        let guard = Guard::new(&limits);
        guard.remember([1; 32]);
        guard.remember([2; 32]);
        assert!(!guard.remembers(&[1; 32]) && guard.remembers(&[2; 32]), "the last one stays");
        let guard = Guard::new(&Limits { passwords_remembered_seconds_max: Duration::ZERO, ..limits });
        guard.remember([1; 32]);
        assert!(!guard.remembers(&[1; 32]));
    }

    #[tokio::test]
    async fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let limits = Limits { password_failures_per_minute_max: 2, ..Limits::default() };
        let (guard, users) = (Guard::new(&limits), users());
        assert_eq!(ask(&guard, &users, "secret").await, Ok(true));
        assert_eq!(ask(&guard, &users, "a").await, Ok(false));
        assert_eq!(ask(&guard, &users, "b").await, Ok(false));
        assert_eq!(ask(&guard, &users, "c").await, Err(Denied::TooManyFailures));
        assert_eq!(ask(&guard, &users, "secret").await, Err(Denied::TooManyFailures), "a guess like others");
        let other = "192.0.2.1".parse().unwrap();
        assert_eq!(guard.verify(users.hash_of("ann"), "secret", other, PATIENCE).await, Ok(true));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
