//! Being asked to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when somebody presses Ctrl-C or sends SIGTERM. From its first poll on, these no longer end the process by
/// themselves: whoever waits here must clean up and leave.
pub async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without a handler the signals end the process, as they do by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
