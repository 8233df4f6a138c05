//! Passes a session on to another WebSocket server, both ways: texts, binary messages, and the code and reason of the end. Which
//! server is the operator's to say: `upstream = "ws://127.0.0.1:9000/echo"` in the table `[handlers.proxy.config]`.
//!
//! Without one, every peer is refused with 503. Whether the upstream answers is known only after the 101: asking takes time, and
//! `on_upgrade` would make all sessions of its worker wait for that long. So a bad gateway is not the 502 of HTTP here but the
//! 1014 of WebSocket, which says the same.
//!
//! No more than one message for each direction is kept here. While the upstream does not take it, nothing is received from the
//! peer; while the peer does not take it, nothing is read from the upstream. A reload lets sessions finish on the code they began
//! with, because a connection to the upstream cannot be carried over.

#![deny(unsafe_code)]

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, future::select};
use handler_api::{AsyncHandler, Closed, Failure, OwnedMessage, Reject, Socket, Upgrade};
use handler_api::{export_handler, log, runtime};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::{Message, client::ClientRequestBuilder, http::Uri, protocol};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Upstream = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    upstream: String,
    /// How long the upstream may take to answer an opening or a closing handshake.
    answer_seconds_max: u64,
    /// A larger message of the upstream ends the session. For those of the peer there is a limit of the server.
    message_bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { upstream: String::new(), answer_seconds_max: 5, message_bytes_max: 1 << 20 }
    }
}

struct Proxy {
    rules: Rules,
    protocol: Option<String>,
}

impl AsyncHandler for Proxy {
    const KEEPS_REQUEST: bool = false;

    fn on_load() -> Result<(), String> {
        let Rules { upstream, .. } = handler_api::config()?;
        let is_address = upstream.starts_with("ws://") && upstream.parse::<Uri>().is_ok();
        if upstream.is_empty() || is_address {
            return Ok(());
        }
        Err(format!("config.upstream: {upstream:?} is no address such as ws://127.0.0.1:9000/echo"))
    }

    fn on_upgrade(upgrade: &mut Upgrade) -> Result<Self, Reject> {
        // Read again for each session: that costs a microsecond, and a connection a hundred.
        let rules: Rules = handler_api::config().map_err(|error| Reject::new(503).body(error))?;
        if rules.upstream.is_empty() {
            return Err(Reject::new(503).body("no upstream: set it in [handlers.proxy.config]\n"));
        }
        // One has to be agreed before the upstream can be asked, which then has to agree to the same: what the peer likes best.
        let protocol = upgrade.protocols().next().map(str::to_owned);
        if let Some(protocol) = &protocol {
            let _ = upgrade.choose_protocol(protocol);
        }
        Ok(Self { rules, protocol })
    }

    async fn transfer_data(&mut self, socket: &Socket) -> Result<(), Failure> {
        let ended = match timeout(self.patience(), self.connect()).await {
            Ok(Ok(upstream)) => self.relay(socket, upstream).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err("no answer in time".into()),
        };
        if let Some(error) = ended.err().filter(|error| !error.is::<Closed>()) {
            log::warn(format_args!("{}: {error}", self.rules.upstream));
            // Fails if the peer is closing, and then it need not be told.
            let _ = socket.close(1014, "the upstream failed or does not answer");
        }
        Ok(())
    }
}

impl Proxy {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.rules.answer_seconds_max)
    }

    async fn connect(&self) -> Result<Upstream, Failure> {
        let mut request = ClientRequestBuilder::new(self.rules.upstream.parse()?);
        if let Some(protocol) = &self.protocol {
            request = request.with_sub_protocol(protocol);
        }
        let most = Some(self.rules.message_bytes_max);
        let config = protocol::WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        Ok(connect_async_with_config(request, Some(config), true).await?.0)
    }

    /// Runs until one of the two ends. Both directions are of one future, which is dropped with its session.
    async fn relay(&self, socket: &Socket, upstream: Upstream) -> Result<(), Failure> {
        let (mut sink, mut stream) = upstream.split();
        let (up, down) = (to_upstream(socket, &mut sink), to_peer(socket, &mut stream));
        let ended = select(pin!(up), pin!(down)).await.factor_first().0;
        // The goodbye to the upstream may take longer than the session is there.
        let goodbye = goodbye(socket);
        let mut upstream = stream.reunite(sink)?;
        runtime::spawn(timeout(self.patience(), async move {
            upstream.close(goodbye).await?;
            while upstream.next().await.is_some_and(|message| message.is_ok()) {}
            Ok::<_, Failure>(())
        }));
        ended
    }
}

async fn to_upstream(socket: &Socket, upstream: &mut SplitSink<Upstream, Message>) -> Result<(), Failure> {
    while let Some(message) = socket.receive().await {
        let message = match message.into_owned() {
            OwnedMessage::Text(text) => Message::text(text),
            OwnedMessage::Binary(bytes) => Message::binary(bytes),
        };
        upstream.send(message).await?;
    }
    Ok(())
}

async fn to_peer(socket: &Socket, upstream: &mut SplitStream<Upstream>) -> Result<(), Failure> {
    while let Some(message) = upstream.next().await {
        match message? {
            Message::Text(text) => socket.send(text.as_str()).await?,
            Message::Binary(bytes) => socket.send(&bytes[..]).await?,
            Message::Close(Some(close)) => return Ok(socket.close(close.code.into(), &close.reason)?),
            Message::Close(None) => return Ok(socket.close(0, "")?),
            // The client end answers pings.
            _ => {}
        }
    }
    Ok(())
}

/// What the upstream is told of the peer's end. 1005 and 1006 say that there was no code, and are never sent (RFC 6455, 7.4.1).
fn goodbye(socket: &Socket) -> Option<protocol::CloseFrame> {
    let (code, reason) = (socket.close_code()?, socket.close_reason().into());
    match code {
        1005 => None,
        1006 => Some(protocol::CloseFrame { code: 1001.into(), reason: "the peer is gone".into() }),
        code => Some(protocol::CloseFrame { code: code.into(), reason }),
    }
}

export_handler!(Proxy, async);

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use handler_api::Async;
    use handler_api::testing::{Fake, FakeSession, Rejected, Sent, set_config};
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    use tokio_tungstenite::tungstenite::{WebSocket, accept_hdr};

    use super::*;

    type Peer = FakeSession<Async<Proxy>>;

    /// An upstream for one session, which behaves like this. What the behaviour returns is what it has seen.
    fn upstream<T: Send + 'static>(
        behave: impl FnOnce(WebSocket<TcpStream>) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        configure(&listener, "");
        std::thread::spawn(move || {
            // It agrees to every subprotocol but to one.
            #[allow(clippy::result_large_err)]
            let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                let offered = request.headers().get("Sec-WebSocket-Protocol");
                if let Some(protocol) = offered.filter(|protocol| *protocol != "unknown") {
                    response.headers_mut().insert("Sec-WebSocket-Protocol", protocol.clone());
                }
                Ok(response)
            };
            behave(accept_hdr(listener.accept().unwrap().0, agree).expect("an opening handshake"))
        })
    }

    fn configure(listener: &TcpListener, more: &str) {
        let address = listener.local_addr().unwrap();
        set_config(&format!(r#"{{"upstream":"ws://{address}/there"{more}}}"#));
    }

    fn try_open() -> Result<Peer, Rejected> {
        Fake::upgrade("/proxy").open()
    }

    fn open() -> Peer {
        try_open().expect("accepted")
    }

    fn echo(mut socket: WebSocket<TcpStream>) -> Message {
        loop {
            match socket.read().unwrap() {
                close @ Message::Close(_) => {
                    while socket.read().is_ok() {}
                    return close;
                }
                message => socket.send(message).unwrap(),
            }
        }
    }

    fn bad_gateway() -> Option<Sent> {
        Some(Sent::Close(1014, "the upstream failed or does not answer".into()))
    }

    fn close(code: u16, reason: &str) -> Message {
        Message::Close(Some(protocol::CloseFrame { code: code.into(), reason: reason.into() }))
    }

    #[test]
    fn messages_go_there_and_back_and_the_peers_end_is_told() {
        let upstream = upstream(echo);
        let mut peer = open();
        peer.text("hello");
        peer.binary(&[1, 2, 3]);
        assert_eq!(peer.next_sent(), Some(Sent::Text("hello".into())));
        assert_eq!(peer.next_sent(), Some(Sent::Binary(vec![1, 2, 3])));
        assert_eq!(peer.peer_close(4001, "enough"), 4001);
        assert_eq!(upstream.join().unwrap(), close(4001, "enough"));
    }

    #[test]
    fn a_peer_that_is_gone_or_says_nothing_is_no_code_on_the_wire() {
        let gone = upstream(echo);
        let mut peer = open();
        peer.text("hello");
        assert_eq!(peer.next_sent(), Some(Sent::Text("hello".into())));
        peer.fail("the network broke");
        assert_eq!(gone.join().unwrap(), close(1001, "the peer is gone"));

        let silent = upstream(echo);
        let mut peer = open();
        peer.text("hello");
        assert_eq!(peer.next_sent(), Some(Sent::Text("hello".into())));
        peer.peer_close(1005, "");
        assert_eq!(silent.join().unwrap(), Message::Close(None));
    }

    #[test]
    fn the_upstreams_end_is_told_to_the_peer() {
        for (sent, told) in [
            (close(4002, "full"), Sent::Close(4002, "full".into())),
            (Message::Close(None), Sent::Close(0, String::new())),
        ] {
            let upstream = upstream(move |mut socket| {
                socket.send(Message::text("last")).unwrap();
                socket.send(sent).unwrap();
                while socket.read().is_ok() {}
            });
            let mut peer = open();
            assert_eq!(peer.next_sent(), Some(Sent::Text("last".into())));
            assert_eq!(peer.next_sent(), Some(told));
            upstream.join().expect("it was answered");
        }
    }

    #[test]
    fn the_subprotocol_that_is_agreed_is_the_one_that_the_upstream_agrees_to() {
        let agreeing = upstream(echo);
        let mut peer: Peer = Fake::upgrade("/proxy").protocol("first").protocol("second").open().unwrap();
        assert_eq!(peer.protocol(), "first");
        peer.text("hello");
        assert_eq!(peer.next_sent(), Some(Sent::Text("hello".into())));
        peer.peer_close(1000, "");
        agreeing.join().unwrap();

        let _refusing = upstream(drop);
        let mut peer: Peer = Fake::upgrade("/proxy").protocol("unknown").open().unwrap();
        assert_eq!(peer.next_sent(), bad_gateway());
    }

    #[test]
    fn without_an_upstream_the_peer_is_told_what_is_missing() {
        assert_eq!(Proxy::on_load(), Ok(()), "which is no reason not to serve");
        let refused = try_open().expect_err("refused");
        assert_eq!((refused.status, refused.body.contains("[handlers.proxy.config]")), (503, true));
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for address in ["127.0.0.1:9000", "http://host/", "wss://host/", "ws://", "ws://a b/"] {
            set_config(&format!(r#"{{"upstream":"{address}"}}"#));
            let error = Proxy::on_load().expect_err(address);
            assert!(error.starts_with("config.upstream: ") && error.contains(address), "{error}");
        }
        set_config(r#"{"upstream":"ws://host/path"}"#);
        assert_eq!(Proxy::on_load(), Ok(()));
    }

    #[test]
    fn an_upstream_that_is_not_there_or_does_not_answer_is_a_bad_gateway() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        configure(&listener, r#","answer_seconds_max":1"#);
        // It is connected to, and says nothing.
        let mut peer = open();
        assert!(peer.is_held(), "a peer that speaks waits");
        assert_eq!(peer.next_sent(), bad_gateway());
        drop(listener);
        assert_eq!(open().next_sent(), bad_gateway());
    }

    #[test]
    fn an_upstream_that_breaks_off_or_says_too_much_is_a_bad_gateway() {
        let _breaks = upstream(drop);
        assert_eq!(open().next_sent(), bad_gateway());
        let _shouts = upstream(|mut socket| {
            let _ = socket.send(Message::binary(vec![0; (1 << 20) + 1]));
            while socket.read().is_ok() {}
        });
        assert_eq!(open().next_sent(), bad_gateway());
    }

    /// More than the sockets of both sides hold.
    const MANY: usize = 1000;

    fn numbered(number: usize) -> Vec<u8> {
        [&number.to_le_bytes()[..], &[0; 65_528]].concat()
    }

    fn number(sent: Option<Sent>) -> Option<usize> {
        let Some(Sent::Binary(bytes)) = sent else { return None };
        bytes.first_chunk().map(|number| usize::from_le_bytes(*number))
    }

    #[test]
    fn the_peer_waits_for_an_upstream_that_does_not_read_and_nothing_is_lost() {
        let (go, may_read) = std::sync::mpsc::sync_channel(1);
        let upstream = upstream(move |mut socket| {
            may_read.recv().unwrap();
            for number in 0..MANY {
                assert!(socket.read().unwrap().into_data() == numbered(number), "{number}");
            }
            socket.send(Message::text("all")).unwrap();
            while socket.read().is_ok() {}
        });
        let mut peer = open();
        for number in 0..MANY {
            peer.binary(&numbered(number));
        }
        assert!(peer.is_held());
        go.send(()).unwrap();
        assert_eq!(peer.next_sent(), Some(Sent::Text("all".into())));
        drop(peer);
        upstream.join().unwrap();
    }

    #[test]
    fn the_upstream_waits_for_a_peer_that_does_not_read_and_nothing_is_lost() {
        let upstream = upstream(|mut socket| {
            for number in 0..MANY {
                socket.send(Message::binary(numbered(number))).unwrap();
            }
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
        });
        let mut peer = open();
        peer.set_slow();
        assert_eq!(number(peer.next_sent()), Some(0));
        assert_eq!(peer.sent().len(), 0, "one, and then it waits");
        assert!(!upstream.is_finished());
        peer.writable();
        for expected in 1..MANY {
            assert_eq!(number(peer.next_sent()), Some(expected));
        }
        assert_eq!(peer.next_sent(), Some(Sent::Close(0, String::new())));
        drop(peer);
        upstream.join().unwrap();
    }
}
