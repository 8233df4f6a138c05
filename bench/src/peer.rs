//! A WebSocket echo server as the documentation of tokio-tungstenite shows it: one task for each connection, default settings.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;

pub(crate) fn run() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            // Both servers get it, or the comparison would be one of Nagle's algorithm.
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
                let (mut sink, mut messages) = socket.split();
                while let Some(Ok(message)) = messages.next().await {
                    if (message.is_text() || message.is_binary()) && sink.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}
