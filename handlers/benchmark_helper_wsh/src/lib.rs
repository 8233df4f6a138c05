//! The server's half of a benchmark of throughput: `receive N` has it send N bytes, `send 0` or `send 1` has it receive a message
//! and answer its length, having looked at each byte with 1. All bytes are `a`. It never compresses.
//!
//! What it sends goes out in fragments, so that N bytes take no N bytes of memory for a client that reads slowly; to the client it
//! is one message. Anything else is answered with 1011 and the reason in words; pywebsocket's example drops the connection.

#![deny(unsafe_code)]

use handler_api::{AsyncHandler, Failure, Kind, Reject, Socket, Upgrade, export_handler};

struct BenchmarkHelper;

enum Command {
    Receive(u64),
    Send { is_checked: bool },
}

impl Command {
    fn read(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("receive", bytes) => bytes.parse().ok().map(Self::Receive),
            ("send", "0") => Some(Self::Send { is_checked: false }),
            ("send", "1") => Some(Self::Send { is_checked: true }),
            _ => None,
        }
    }
}

impl AsyncHandler for BenchmarkHelper {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        upgrade.decline_extensions();
        Ok(Self)
    }

    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        while let Some(message) = socket.receive().await {
            match message.as_text().and_then(Command::read) {
                Some(Command::Receive(bytes)) => send(socket, bytes).await?,
                Some(Command::Send { is_checked }) => receive(socket, is_checked).await?,
                None => return Ok(socket.close(1011, "say receive N, send 0 or send 1")?),
            }
        }
        Ok(())
    }
}

async fn send(socket: &Socket, mut bytes: u64) -> Result<(), Failure> {
    static PART: [u8; 64 << 10] = [b'a'; 64 << 10];
    loop {
        let part = &PART[..bytes.min(PART.len() as u64) as usize];
        bytes -= part.len() as u64;
        socket.send_fragment(Kind::Binary, part, bytes == 0).await?;
        if bytes == 0 {
            return Ok(());
        }
    }
}

async fn receive(socket: &Socket, is_checked: bool) -> Result<(), Failure> {
    let Some(message) = socket.receive().await else { return Ok(()) };
    let (length, is_right) = message.with(|message| {
        let bytes = message.as_bytes();
        (bytes.len(), !is_checked || bytes.iter().all(|byte| *byte == b'a'))
    });
    if !is_right {
        return Ok(socket.close(1011, "a byte of the message is no a")?);
    }
    Ok(socket.send(length.to_string()).await?)
}

export_handler!(BenchmarkHelper, async);

#[cfg(test)]
mod tests {
    use handler_api::Async;
    use handler_api::testing::{Fake, FakeSession, Sent};

    use super::*;

    fn open() -> FakeSession<Async<BenchmarkHelper>> {
        Fake::<Async<BenchmarkHelper>>::upgrade("/benchmark_helper").open().expect("everybody is accepted")
    }

    #[test]
    fn it_sends_so_many_bytes() {
        for bytes in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
            let mut session = open();
            assert!(session.answer().declines_extensions);
            session.text(&format!("receive {bytes}"));
            let sent = session.sent();
            let mut length = 0;
            for (index, sent) in sent.iter().enumerate() {
                let Sent::Fragment(part, is_last) = sent else { panic!("{sent:?}") };
                length += part.len();
                assert_eq!(*is_last, length == bytes && part.len() <= 65_536, "{bytes}: part {index}");
                assert!(part.iter().all(|byte| *byte == b'a'));
            }
            assert_eq!(length, bytes);
        }
    }

    #[test]
    fn it_answers_the_length_of_what_it_receives() {
        let mut session = open();
        session.text("send 1");
        session.binary(b"aaaa");
        session.text("send 0");
        session.binary(b"xyz");
        assert_eq!(session.sent(), [Sent::Text("4".into()), Sent::Text("3".into())]);
        session.text("send 1");
        session.binary(b"aaxa");
        assert!(matches!(&session.sent()[..], [Sent::Close(1011, _)]));
    }

    #[test]
    fn what_is_no_command_is_answered_with_1011() {
        for command in ["", "receive", "receive x", "receive -1", "send 2", "sing"] {
            let mut session = open();
            session.text(command);
            assert!(matches!(&session.sent()[..], [Sent::Close(1011, _)]), "{command:?}");
        }
    }
}
