//! Files of users: one a line, `NAME:WHAT`, with empty lines and lines that begin with `#` between them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use sha2::{Digest, Sha256};

use super::is_user;

/// What is wrong, and in which line.
pub(super) type Wrong = (usize, String);

/// Users and their passwords.
pub(super) struct Users {
    of: HashMap<Arc<str>, Arc<Hashed>>,
    /// What is verified for names that are not known: as costly as the costliest of the others.
    stand_in: Arc<Hashed>,
}

/// The hash of a password, as the PHC string `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
pub(super) struct Hashed {
    text: String,
    hash: PasswordHash,
    cost: u64,
}

/// Users and the hashes of their tokens. A user may have several.
pub(super) struct Tokens(HashMap<[u8; 32], Arc<str>>);

/// Users and what their certificates call them.
#[derive(Debug)]
pub(super) struct CertificateNames(HashMap<String, Arc<str>>);

/// A password that takes more memory than this to verify would be a mistake in the file. 256 MiB, in KiB.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// The same for time: blocks of memory times passes over them, a few seconds.
const COST_MAX: u64 = 16 << 20;

/// Nobody's, at the cost of what `wshd passwd` makes.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$d3NoZCBoYXMgbm9ib2R5$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

impl Users {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut of = HashMap::new();
        for (line, user, hash) in entries(text)? {
            let hashed = Hashed::parse(hash).map_err(|wrong| (line, wrong))?;
            match of.entry(Arc::from(user)) {
                Entry::Occupied(_) => return Err((line, format!("the user {user:?} is there twice"))),
                Entry::Vacant(place) => place.insert(Arc::new(hashed)),
            };
        }
        let costliest = of.values().max_by_key(|hashed: &&Arc<Hashed>| hashed.cost).cloned();
        Ok(Self { of, stand_in: costliest.unwrap_or_else(nobodys) })
    }

    /// Somebody whose password is known.
    pub(super) fn one(user: &str, password: &str) -> Self {
        let hashed = Arc::new(Hashed::parse(&hash(password)).expect("it was made here"));
        Self { of: HashMap::from([(user.into(), hashed.clone())]), stand_in: hashed }
    }

    /// The name as it stands in the file, if it does.
    pub(super) fn name(&self, user: &str) -> Option<Arc<str>> {
        self.of.get_key_value(user).map(|(user, _)| user.clone())
    }

    /// The hash to verify a password of this user with, whether there is such a user or not.
    pub(super) fn hash_of(&self, user: &str) -> &Arc<Hashed> {
        self.of.get(user).unwrap_or(&self.stand_in)
    }
}

fn nobodys() -> Arc<Hashed> {
    Arc::new(Hashed::parse(NOBODYS).expect("it is a hash"))
}

/// What a file keeps of a password, at the cost that argon2 itself proposes: 19 MiB, and some 20 ms of a core.
pub(super) fn hash(password: &str) -> String {
    use argon2::password_hash::PasswordHasher;

    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the system has random numbers, and a password is shorter than 4 GiB").to_string()
}

/// What a file keeps of a token. Tokens are random and long, so that nobody gets from the hash to the token, and a fast one will do.
pub(super) fn hash_of_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Hashed {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "this is no hash of argon2; `wshd passwd USER FILE` makes one".to_owned();
        let hash = PasswordHash::new(text).map_err(|_| wrong())?;
        if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() || hash.salt.is_none() {
            return Err(wrong());
        }
        let params = Params::try_from(&hash).map_err(|_| wrong())?;
        let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
        if params.m_cost() > MEMORY_KIB_MAX || cost > COST_MAX {
            return Err(format!(
                "to verify it would take {} KiB and {} passes",
                params.m_cost(),
                params.t_cost()
            ));
        }
        Ok(Self { text: text.to_owned(), hash, cost })
    }

    /// Takes its time, and the same for every password. Hashes are compared in constant time.
    pub(super) fn is_of(&self, password: &str) -> bool {
        Argon2::default().verify_password(password.as_bytes(), &self.hash).is_ok()
    }

    /// Tells it from every other one.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Tokens {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut tokens = HashMap::new();
        for (line, user, hash) in entries(text)? {
            let digits = hash.as_bytes();
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            let bytes: Option<Vec<u8>> =
                digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect();
            let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| {
                (
                    line,
                    "this is no hash of a token, 64 hexadecimal digits; `wshd token USER FILE` makes one"
                        .to_owned(),
                )
            })?;
            if tokens.insert(hash, Arc::from(user)).is_some() {
                return Err((line, "this token is there twice".to_owned()));
            }
        }
        Ok(Self(tokens))
    }

    /// How long it takes to find a hash tells something about the hash at most, which nobody can choose the bytes of.
    pub(super) fn user_of(&self, token: &str) -> Option<Arc<str>> {
        self.0.get(&hash_of_token(token)).cloned()
    }
}

impl CertificateNames {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut names = HashMap::new();
        for (line, user, name) in entries(text)? {
            if names.insert(name.to_owned(), Arc::from(user)).is_some() {
                return Err((line, format!("the name {name:?} is there twice")));
            }
        }
        Ok(Self(names))
    }

    pub(super) fn user_of(&self, name: &str) -> Option<Arc<str>> {
        self.0.get(name).cloned()
    }
}

/// Line number, user, and what follows the first colon.
fn entries(text: &str) -> Result<Vec<(usize, &str, &str)>, Wrong> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| match line.split_once(':') {
            Some((user, what)) if is_user(user) && !what.is_empty() => Ok((number, user, what)),
            _ => Err((number, "a line is written USER:WHAT, with a user of at most 255 bytes".to_owned())),
        })
        .collect()
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.of.keys()).finish()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cheap as argon2 goes.
    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$";

    fn cheap(password: &str) -> String {
        use argon2::password_hash::PasswordHasher;

        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(password.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn a_file_of_users_knows_their_passwords() {
        let text = format!("# staff\n\nann:{}\nJörg K.:{}\r\n", cheap("secret"), cheap("geheim: ja"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.name("ann").as_deref(), Some("ann"));
        assert!(users.hash_of("ann").is_of("secret") && !users.hash_of("ann").is_of("geheim: ja"));
        assert!(users.hash_of("Jörg K.").is_of("geheim: ja"));
        assert_eq!(users.name("bob"), None);
    }

    /// Otherwise the time of an answer would tell which users there are.
    #[test]
    fn a_password_of_nobody_costs_as_much_as_that_of_the_costliest() {
        let costly = hash("secret");
        let users = Users::parse(&format!("ann:{}\nbob:{costly}\n", cheap("secret"))).unwrap();
        assert_eq!(users.hash_of("nobody").text(), costly);
        assert_eq!(Users::parse("").unwrap().hash_of("nobody").text(), NOBODYS);
        assert!(!nobodys().is_of(""));
    }

    #[test]
    fn a_broken_line_is_named() {
        let wrong = |text: &str| Users::parse(text).unwrap_err();
        assert_eq!(wrong("\nann").0, 2);
        assert_eq!(wrong(":x").0, 1);
        assert!(wrong("ann:secret").1.contains("wshd passwd"));
        assert!(wrong("ann:$2y$10$abcdefghijklmnopqrstuv").1.contains("argon2"));
        let twice = format!("ann:{0}\nann:{0}", cheap("a"));
        assert_eq!(wrong(&twice), (2, "the user \"ann\" is there twice".to_owned()));
        let dear = format!("ann:{}", cheap("a").replace("m=8,", "m=1000000,"));
        assert!(wrong(&dear).1.contains("1000000 KiB"), "{dear}");
        assert!(wrong(&format!("ann:{CHEAP}")).1.contains("argon2"), "without a hash");
    }

    #[test]
    fn a_user_has_as_many_tokens_as_lines() {
        let hex =
            |token: &str| hash_of_token(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = format!("ann:{}\nann:{}\nbob:{}\n", hex("one"), hex("two").to_uppercase(), hex("three"));
        let tokens = Tokens::parse(&text).unwrap();
        let user = |token| tokens.user_of(token).map(|user| user.to_string());
        assert_eq!(user("one").as_deref(), Some("ann"));
        assert_eq!(user("two").as_deref(), Some("ann"));
        assert_eq!(user("three").as_deref(), Some("bob"));
        assert_eq!(user("four"), None);
        for wrong in
            ["ann:123", "ann:zz", &format!("ann:{}0", hex("one")), &format!("ann:{}ü", &hex("one")[2..])]
        {
            assert!(Tokens::parse(wrong).unwrap_err().1.contains("wshd token"), "{wrong}");
        }
    }
}
