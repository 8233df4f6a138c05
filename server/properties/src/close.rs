//! A Close frame is taken exactly when RFC 6455 allows it, and what is taken can be sent back.

use wshd_protocol::close::{REASON_BYTES_MAX, may_be_sent_by_server};
use wshd_protocol::{Connection, Event, Inflater, Limits, PeerClose, ProtocolError, ReadyState};

use crate::wire::{CLOSE, FIN, first_event, frame, sent_frames};

/// `bytes` are the payload of a Close frame.
pub fn close(bytes: &[u8]) {
    let event = heard(bytes);
    assert_eq!(event, expected(bytes), "RFC 6455 sections 5.5.1 and 7.4");
    if let Event::CloseRequested(PeerClose { code, reason }) = event {
        can_be_sent_back(bytes, code, &reason);
    }
    any_failure_is_a_close_frame(bytes);
}

fn heard(payload: &[u8]) -> Event<'static> {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let bytes = frame(FIN | CLOSE, payload);
    first_event(&mut connection, &bytes, &Limits::default(), &mut Inflater::new(), &mut output)
        .expect("Close is an event, whatever it says")
}

/// What the RFC says of such a frame, in other words than the code has.
fn expected(payload: &[u8]) -> Event<'static> {
    if payload.len() > 125 {
        return Event::Failed(ProtocolError::LongControl);
    }
    let code = match payload {
        [] => return Event::CloseRequested(PeerClose { code: None, reason: "".into() }),
        [_] => return Event::Failed(ProtocolError::ShortClose),
        [high, low, ..] => 256 * u16::from(*high) + u16::from(*low),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Event::Failed(ProtocolError::CloseCode(code));
    }
    match String::from_utf8(payload[2..].to_vec()) {
        Ok(reason) => Event::CloseRequested(PeerClose { code: Some(code), reason: reason.into() }),
        Err(_) => Event::Failed(ProtocolError::CloseReason),
    }
}

fn can_be_sent_back(payload: &[u8], code: Option<u16>, reason: &str) {
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    let result = connection.close(code, reason, &mut output);
    assert_eq!(result.is_ok(), code.is_none_or(may_be_sent_by_server));
    if result.is_ok() {
        assert_eq!(sent_frames(&output, false), [(FIN | CLOSE, payload)]);
        connection.close(code, reason, &mut output).expect_err("Close is sent once");
        assert_eq!(connection.ready_state(), ReadyState::Closing);
    } else {
        assert!(output.is_empty() && connection.ready_state() == ReadyState::Open);
    }
}

/// Whatever code and reason a caller fails a connection with, the peer gets a Close frame that is right.
fn any_failure_is_a_close_frame(bytes: &[u8]) {
    let Some((code, reason)) = bytes.split_first_chunk() else { return };
    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
    let (mut connection, mut output) = (Connection::new(), Vec::new());
    connection.fail(code, &reason, &mut output);
    let frames = sent_frames(&output, false);
    let [(_, payload)] = frames[..] else { panic!("one frame, and not {frames:?}") };
    let Event::CloseRequested(PeerClose { code: Some(sent), reason: cut }) = heard(payload) else {
        panic!("a peer could not read {payload:x?}");
    };
    assert_eq!(sent, if may_be_sent_by_server(code) { code } else { 1011 });
    assert!(reason.starts_with(&*cut), "{cut:?} is no beginning of {reason:?}");
    // At most three bytes of the character at the cut are missing.
    assert!(cut.len() == reason.len() || cut.len() > REASON_BYTES_MAX - 4);
}
