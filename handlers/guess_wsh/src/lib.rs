//! A game: a number from 1 to 100 is to be guessed in ten guesses. `/guess?seed=7` thinks of the same number each time.
//!
//! Written from top to bottom, on a thread for each player.

#![deny(unsafe_code)]

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

use handler_api::{BlockingHandler, BlockingSocket, Failure, Reject, Upgrade, export_handler};

const MOST: u64 = 100;
const GUESSES: u32 = 10;

struct Game {
    secret: u64,
}

impl BlockingHandler for Game {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        let chance = match upgrade.param("seed") {
            Some(seed) => hash(DefaultHasher::new(), &seed),
            // The keys of each one are new.
            None => hash(RandomState::new().build_hasher(), ""),
        };
        Ok(Self { secret: 1 + chance % MOST })
    }

    fn transfer_data(&mut self, socket: &mut BlockingSocket) -> Result<(), Failure> {
        socket.send(format!("I think of a number from 1 to {MOST}. Guess!"))?;
        for guess in 1..=GUESSES {
            // The player has left.
            let Some(message) = socket.receive() else { return Ok(()) };
            let number = message.as_text().and_then(|text| text.trim().parse().ok());
            let answer = match number.map(|number: u64| self.secret.cmp(&number)) {
                None => "that is no number".to_owned(),
                Some(std::cmp::Ordering::Less) => "less".to_owned(),
                Some(std::cmp::Ordering::Greater) => "more".to_owned(),
                Some(std::cmp::Ordering::Equal) => {
                    return Ok(socket.send(format!("yes, after {guess} guesses"))?);
                }
            };
            socket.send(answer)?;
        }
        Ok(socket.send(format!("enough: it was {}", self.secret))?)
    }
}

fn hash(mut hasher: impl Hasher, text: &str) -> u64 {
    text.hash(&mut hasher);
    hasher.finish()
}

export_handler!(Game, blocking);

#[cfg(test)]
mod tests {
    use handler_api::Blocking;
    use handler_api::testing::{Fake, FakeSession, Sent};

    use super::*;

    type Player = FakeSession<Blocking<Game>>;

    fn play(url: &str) -> Player {
        let mut player = Fake::upgrade(url).open().expect("everybody may play");
        assert_eq!(hear(&mut player), "I think of a number from 1 to 100. Guess!");
        player
    }

    fn hear(player: &mut Player) -> String {
        player.next_sent().and_then(Sent::into_text).expect("a text")
    }

    fn guess(player: &mut Player, text: &str) -> String {
        player.text(text);
        hear(player)
    }

    /// Halves what is left, and returns the number and how many guesses it took.
    fn find(player: &mut Player) -> (u64, String) {
        let (mut least, mut most) = (1_u64, MOST);
        loop {
            let number = least.midpoint(most);
            match guess(player, &number.to_string()).as_str() {
                "more" => least = number + 1,
                "less" => most = number - 1,
                found => return (number, found.to_owned()),
            }
        }
    }

    #[test]
    fn halving_finds_every_number_and_then_it_is_over() {
        for seed in 0..50 {
            let mut player = play(&format!("/guess?seed={seed}"));
            let (number, found) = find(&mut player);
            assert!(found.starts_with("yes, after "), "{found}");
            assert_eq!(player.next_sent(), Some(Sent::Close(1000, String::new())));
            assert_eq!(find(&mut play(&format!("/guess?seed={seed}"))), (number, found), "the same again");
        }
    }

    #[test]
    fn after_ten_guesses_it_is_said_and_over() {
        let mut player = play("/guess");
        for _ in 0..GUESSES {
            assert_eq!(guess(&mut player, "what?"), "that is no number");
        }
        assert!(hear(&mut player).starts_with("enough: it was "));
        assert_eq!(player.next_sent(), Some(Sent::Close(1000, String::new())));
    }

    #[test]
    fn a_player_may_leave() {
        assert_eq!(play("/guess").peer_close(1001, ""), 1001);
    }
}
