//! Who the peer is, as a handler asks for it, played by the fake host.

#![cfg(feature = "testing")]

use handler_api::testing::{Fake, Sent};
use handler_api::{Handler, Message, Reject, Upgrade, WebSocket};

/// Takes those whom the server has verified, and tells them who they are.
struct Members(String);

impl Handler for Members {
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        match upgrade.tls_subject() {
            Some(subject) if upgrade.is_secure() => Ok(Self(subject.to_owned())),
            _ => Err(Reject::new(401)),
        }
    }

    fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
        assert_eq!((socket.is_secure(), socket.tls_subject()), (true, Some(self.0.as_str())));
        let names: Vec<_> = socket.tls_names().collect();
        socket.send(&format!("{}: {}", self.0, names.join(", ")));
    }
}

#[test]
fn a_handler_knows_whose_certificate_was_verified() {
    let names = ["DNS:ann.example", "email:ann@a.example"];
    let mut ann = Fake::<Members>::upgrade("/").certificate("CN=Ann", &names).open().expect("accepted");
    ann.text("who am I");
    assert_eq!(ann.sent(), [Sent::Text("CN=Ann: DNS:ann.example, email:ann@a.example".into())]);
    for stranger in [Fake::<Members>::upgrade("/"), Fake::<Members>::upgrade("/").secure()] {
        assert_eq!(stranger.open().expect_err("refused").status, 401);
    }
}

/// Greets whom the server has verified, whatever it asked for.
struct Greeter;

impl Handler for Greeter {
    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        upgrade.user().map(|_| Self).ok_or_else(|| Reject::new(401))
    }

    fn on_message(&mut self, socket: &WebSocket, _: Message<'_>) {
        socket.send(socket.user().unwrap_or_default());
    }
}

#[test]
fn a_handler_knows_the_user() {
    let mut ann = Fake::<Greeter>::upgrade("/").user("ann").open().expect("accepted");
    ann.text("who am I");
    assert_eq!(ann.sent(), [Sent::Text("ann".into())]);
    assert_eq!(Fake::<Greeter>::upgrade("/").open().expect_err("refused").status, 401);
}
