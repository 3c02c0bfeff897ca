//! Named points between effects at which a test can end the driver, as a power cut would.
//!
//! `fault_point!("create.made")` does nothing, and is not even there, unless the crate is built with the feature
//! `fault-points`. Then the environment variable `KURATION_FAULT=NAME=ACTION` chooses one point and what happens there:
//! `kill` ends the driver and its children by SIGKILL, `kill-child` ends the child that is at work, `hang` waits for ever,
//! as a call on a dead mount does.

/// Marks a point between two effects.
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        #[cfg(feature = "fault-points")]
        $crate::fault::reach($name);
    };
}

/// Acts, if this is the point that was chosen.
#[cfg(feature = "fault-points")]
pub fn reach(name: &str) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getpid, getppid};

    let Ok(chosen) = std::env::var("KURATION_FAULT") else { return };
    let Some((point, action)) = chosen.split_once('=') else { return };
    if point != name {
        return;
    }
    let is_child = std::env::args().nth(1).as_deref() == Some("worker");
    let end = |pid: Pid| {
        // Nothing can be done where a signal can't be sent; the test that waits for it fails.
        kill(pid, Signal::SIGKILL).ok();
    };
    match action {
        "kill" => {
            if is_child {
                end(getppid());
            }
            end(getpid());
        }
        "kill-child" if is_child => end(getpid()),
        "hang" => loop {
            std::thread::park();
        },
        _ => {}
    }
}
