//! The state machine beside a simple model, with every event in any order.

use std::collections::BTreeMap;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fake {
    number: u64,
    content: u8,
}

impl Version for Fake {
    fn number(&self) -> u64 {
        self.number
    }

    fn hash(&self) -> [u8; 32] {
        [self.content; 32]
    }
}

/// Contents from here on cannot be loaded.
const BAD: u8 = 6;

/// Stands for no file.
const GONE: u8 = u8::MAX;

/// What has to be true, kept without any cleverness.
struct World {
    slot: Slot<Fake>,
    now: Instant,
    /// Content and identity of the file.
    file: Option<(u8, u64)>,
    writes: u64,
    loading: Option<(u64, u8)>,
    /// Generations that are in memory, with the last order to leave that each of them got.
    alive: BTreeMap<u64, Option<Option<u64>>>,
    contents: BTreeMap<u64, u8>,
    active: Option<u64>,
    last_load: Option<Instant>,
    may_hurry: bool,
    waits: Vec<Instant>,
}

impl World {
    fn new() -> Self {
        Self {
            slot: Slot::default(),
            now: Instant::now(),
            file: None,
            writes: 0,
            loading: None,
            alive: BTreeMap::new(),
            contents: BTreeMap::new(),
            active: None,
            last_load: None,
            may_hurry: false,
            waits: Vec::new(),
        }
    }

    fn found(&self) -> Option<(Found, Stat)> {
        let (_, write) = self.file?;
        let found = Found {
            path: "handlers/a_wsh.so".into(),
            folder: "handlers".into(),
            resource: "/a".into(),
            name: "a".into(),
        };
        Some((found, Stat::of_test(write)))
    }

    fn carry_out(&mut self, orders: Vec<Order<Fake>>) {
        for order in orders {
            match order {
                Order::Load { source, number } => {
                    assert!(self.loading.is_none(), "one load at a time");
                    if !self.may_hurry
                        && let Some(last) = self.last_load
                    {
                        assert!(
                            self.now >= last + LOAD_INTERVAL,
                            "not more often than every {LOAD_INTERVAL:?}"
                        );
                    }
                    self.may_hurry = false;
                    self.last_load = Some(self.now);
                    assert!(!self.alive.contains_key(&number), "no two generations have one number");
                    let content = match source {
                        // It may be gone by now, although nobody has looked yet.
                        Source::File(_) => self.file.map_or(GONE, |(content, _)| content),
                        Source::Copy(copy) => copy.content,
                    };
                    self.loading = Some((number, content));
                }
                Order::Route => self.active = self.slot.active().map(Version::number),
                Order::Leave { who, to } => {
                    let told = self.alive.get_mut(&who.number).expect("only who lives can leave");
                    *told = Some(to.map(|to| to.number));
                }
                Order::Wait(until) => self.waits.push(until),
            }
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.active, self.slot.active().map(Version::number), "the routes follow the slot");
        if let Some(active) = self.active {
            assert_eq!(self.alive.get(&active), Some(&None), "who is active was never told to leave");
        }
        let leaving: Vec<_> = self.slot.leaving().iter().map(Version::number).collect();
        for (number, told) in &self.alive {
            match told {
                None => assert_eq!(Some(*number), self.active, "who is not active is told to leave"),
                Some(to) => {
                    assert!(
                        leaving.contains(number),
                        "who was told to leave is remembered until it has ended"
                    );
                    assert_eq!(*to, self.active, "sessions go to whoever is active now");
                }
            }
        }
    }

    fn end_load(&mut self) {
        let Some((number, content)) = self.loading.take() else { return };
        let loaded = if self.slot.known().contains(&[content; 32]) && !self.slot.is_rolling_back() {
            Loaded::Same([content; 32])
        } else if content == GONE {
            Loaded::Refused(Refusal { reason: "cannot open the file".into(), hash: None })
        } else if content >= BAD {
            Loaded::Refused(Refusal { reason: "bad".into(), hash: Some([content; 32]) })
        } else {
            self.alive.insert(number, None);
            self.contents.insert(number, content);
            Loaded::Ready(Fake { number, content })
        };
        let orders = self.slot.loaded(number, loaded, self.now);
        self.carry_out(orders);
    }

    fn step(&mut self, choice: u64) {
        self.now += Duration::from_millis(choice / 16 % 150);
        match choice % 16 {
            0..=3 => {
                self.writes += 1;
                self.file = Some(((choice >> 20) as u8 % 8, self.writes));
            }
            4 => self.file = None,
            5..=8 => {
                let orders = self.slot.look(self.found(), self.now);
                self.carry_out(orders);
            }
            9..=10 => self.end_load(),
            11 => {
                // The oldest one that was told to leave ends.
                let gone = self.alive.iter().find(|(_, told)| told.is_some()).map(|(number, _)| *number);
                if let Some(number) = gone {
                    self.alive.remove(&number);
                    self.slot.ended(number);
                    self.check();
                }
            }
            12 => {
                let before = self.slot.previous.as_ref().map(Version::number);
                if let Ok(orders) = self.slot.roll_back(self.now) {
                    assert!(before.is_some() && self.active.is_some());
                    self.may_hurry = true;
                    self.carry_out(orders);
                }
            }
            13 => {
                self.may_hurry = true;
                let orders = self.slot.insist(self.now);
                self.carry_out(orders);
            }
            _ => self.wait(),
        }
    }

    fn wait(&mut self) {
        if let Some(until) = self.waits.pop() {
            self.now = self.now.max(until);
            let orders = self.slot.due(self.now);
            self.carry_out(orders);
        }
    }

    /// Nothing changes any more: everything that was begun ends.
    fn settle(&mut self) {
        let orders = self.slot.look(self.found(), self.now);
        self.carry_out(orders);
        for _ in 0..8 {
            self.end_load();
            self.now += LOAD_INTERVAL;
            self.waits.clear();
            let orders = self.slot.due(self.now);
            self.carry_out(orders);
        }
        assert!(self.slot.is_settled());
        match self.file {
            None => assert_eq!(self.active, None, "without a file nothing is served"),
            Some((content, _)) if content >= BAD => {
                assert!(
                    self.slot.refused().is_some() || self.slot.shunned.is_some(),
                    "a bad file is refused"
                );
            }
            Some((content, _)) => {
                let served = self.active.map(|number| self.contents[&number]);
                assert!(
                    served == Some(content) || self.slot.shunned == Some([content; 32]),
                    "what is in the file is served, unless it was rolled back from: {content} {served:?}"
                );
            }
        }
        for number in self.alive.keys().copied().collect::<Vec<_>>() {
            if Some(number) != self.active {
                self.alive.remove(&number);
                self.slot.ended(number);
            }
        }
        assert!(self.slot.leaving().is_empty());
        self.check();
    }
}

#[test]
fn whatever_happens_in_whatever_order_the_right_version_serves() {
    for seed in 1..=3000_u64 {
        let mut world = World::new();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..120 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            world.step(state >> 3);
        }
        world.settle();
    }
}

/// A version that is rolled back from is not loaded again by a touch of its file, and is when the file changes.
#[test]
fn what_was_rolled_back_from_stays_away() {
    let mut world = World::new();
    let write = |world: &mut World, content| {
        world.writes += 1;
        world.file = Some((content, world.writes));
        world.settle();
    };
    write(&mut world, 1);
    write(&mut world, 2);
    world.may_hurry = true;
    let orders = world.slot.roll_back(world.now).unwrap();
    world.carry_out(orders);
    world.settle();
    let serves = |world: &World| world.contents[&world.active.unwrap()];
    assert_eq!(serves(&world), 1);
    assert!(!world.slot.may_fall_back(), "never by itself to what was rolled back from");
    write(&mut world, 2);
    assert_eq!(serves(&world), 1, "it was only touched");
    write(&mut world, 3);
    assert_eq!(serves(&world), 3);
}
