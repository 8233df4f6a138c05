//! A WebSocket server as the documentation of tokio-tungstenite shows it: one task for each connection, default settings. It echoes,
//! or tells everybody what one says, by a channel of tokio.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;

/// Messages that a slow subscriber may be behind.
const BEHIND_MAX: usize = 1024;

pub(crate) fn run(broadcasts: bool) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        let (said, _) = broadcast::channel(BEHIND_MAX);
        loop {
            let (stream, _) = listener.accept().await?;
            // Both servers get it, or the comparison would be one of Nagle's algorithm.
            stream.set_nodelay(true)?;
            if broadcasts {
                tokio::spawn(tell_everybody(stream, said.clone(), said.subscribe()));
            } else {
                tokio::spawn(echo(stream));
            }
        }
    })
}

async fn echo(stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut sink, mut messages) = socket.split();
    while let Some(Ok(message)) = messages.next().await {
        if (message.is_text() || message.is_binary()) && sink.send(message).await.is_err() {
            return;
        }
    }
}

async fn tell_everybody(
    stream: TcpStream,
    said: broadcast::Sender<Message>,
    mut heard: broadcast::Receiver<Message>,
) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut sink, mut messages) = socket.split();
    loop {
        // Both are cancel safe: a message is taken or it is not.
        tokio::select! {
            message = messages.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => drop(said.send(message)),
                Some(Ok(_)) => {}
                _ => return,
            },
            message = heard.recv() => {
                let Ok(message) = message else { return };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}
