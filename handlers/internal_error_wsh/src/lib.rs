//! Fails as soon as it is asked to talk: an error of a handler closes with 1011, and is a line in the server's log.

#![deny(unsafe_code)]

use handler_api::{AsyncHandler, Failure, Reject, Socket, Upgrade, export_handler};

struct InternalError;

impl AsyncHandler for InternalError {
    const KEEPS_REQUEST: bool = false;

    fn on_upgrade(_: &mut Upgrade) -> Result<Self, Reject> {
        Ok(Self)
    }

    async fn transfer_data(&mut self, _: &Socket) -> Result<(), Failure> {
        Err("this handler always fails".into())
    }
}

export_handler!(InternalError, async);

#[cfg(test)]
mod tests {
    use handler_api::Async;
    use handler_api::testing::{Fake, Sent};

    use super::*;

    #[test]
    fn it_closes_with_1011() {
        let session = Fake::<Async<InternalError>>::upgrade("/internal_error").open();
        assert_eq!(session.expect("everybody is accepted").sent(), [Sent::Close(1011, String::new())]);
    }
}
