//! Lines on standard error.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::settings::{LogFormat, LogSettings};

/// The target of lines that are logged even at `--v=0`: that the driver started, and that it stops.
pub const ALWAYS: &str = "kuration::always";

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("--log {0:?}: {1}; it must be a list such as warn,kuration::mount=trace")]
    Filter(String, ParseError),
    /// Somebody was faster.
    #[error("something in this process logs already: {0}")]
    Twice(TryInitError),
}

/// Begins to log. To be called once, before anything is worth a line.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    subscriber(settings, std::io::stderr, std::io::stderr().is_terminal())?
        .try_init()
        .map_err(LogError::Twice)?;
    // A panic is a fault of ours: it belongs into the log, in the log's form, with the request that met it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("it said nothing");
        tracing::error!(place, "panicked: {message}");
    }));
    Ok(())
}

/// What writes to `writer`, which is a terminal or isn't.
fn subscriber<W>(
    settings: &LogSettings,
    writer: W,
    terminal: bool,
) -> Result<impl Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let text = settings.filter.clone().unwrap_or_else(|| directives(settings.v));
    let filter = EnvFilter::try_new(&text).map_err(|error| LogError::Filter(text, error))?;
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    } else {
        // See https://no-color.org.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        lines.with_ansi(terminal && !plain).boxed()
    };
    Ok(Registry::default().with(filter).with(lines))
}

/// What `--v=N` lets through, with Kubernetes' meanings of N (its "Logging Conventions").
///
/// Libraries say little below 9. Above, they speak at the level debug and not more: what h2 and hyper would add are single
/// frames, and nobody has promised that no header stands in them.
fn directives(v: u8) -> String {
    let libraries = if v >= 9 { "debug" } else { "warn" };
    // These say at each try what our own lines say once.
    let kubernetes = if v >= 9 { "debug" } else { "off" };
    let ours = match v {
        0 => "warn",
        1..=2 => "info",
        3..=4 => "debug",
        5.. => "trace",
    };
    let told = |from: u8| if v >= from { "trace" } else { "off" };
    let (requests, headers, contents) = (told(6), told(7), told(8));
    format!(
        "{libraries},kube_client={kubernetes},kube_runtime={kubernetes},kuration={ours},{ALWAYS}=info,kuration::rpc::requests={requests},\
         kuration::rpc::headers={headers},kuration::rpc::contents={contents}"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Takes what is logged, for a test to look at.
    #[derive(Clone, Default)]
    pub struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        /// All lines so far.
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs to memory what `--v=V` lets through, until the guard is dropped.
    pub fn capture(v: u8, format: LogFormat) -> (Captured, tracing::subscriber::DefaultGuard) {
        let captured = Captured::default();
        let writer = captured.clone();
        let settings = LogSettings { v, filter: None, format };
        let subscriber = subscriber(&settings, move || writer.clone(), false).unwrap();
        (captured, tracing::subscriber::set_default(subscriber))
    }

    #[test]
    fn each_step_of_verbosity_lets_more_through() {
        let seen = |v: u8| {
            let (captured, _guard) = capture(v, LogFormat::Auto);
            tracing::warn!(target: "h2", "a");
            tracing::warn!("b");
            tracing::info!(target: ALWAYS, "c");
            tracing::info!("d");
            tracing::debug!("e");
            tracing::trace!("f");
            tracing::trace!(target: "kuration::rpc::requests", "g");
            tracing::trace!(target: "kuration::rpc::headers", "h");
            tracing::trace!(target: "kuration::rpc::contents", "i");
            tracing::debug!(target: "h2", "j");
            tracing::trace!(target: "h2", "k");
            let message =
                |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].to_string();
            captured.text().lines().map(message).collect::<String>().replace('"', "")
        };
        let all = [
            "abc",
            "abcd",
            "abcd",
            "abcde",
            "abcde",
            "abcdef",
            "abcdefg",
            "abcdefgh",
            "abcdefghi",
            "abcdefghij",
        ];
        for (v, wanted) in (0..).zip(all) {
            assert_eq!(seen(v), wanted, "--v={v}");
        }
        assert_eq!(seen(10), "abcdefghij");
    }

    #[test]
    fn a_filter_counts_instead_of_the_verbosity_and_nonsense_is_refused() {
        let settings =
            |filter: &str| LogSettings { v: 10, filter: Some(filter.into()), format: LogFormat::Json };
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(&settings("error"), move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::warn!("nobody hears this"));
        assert_eq!(captured.text(), "");
        assert!(matches!(super::subscriber(&settings("a=b=c"), io::sink, false), Err(LogError::Filter(..))));
    }

    #[test]
    fn a_terminal_gets_text_and_a_file_gets_json() {
        for (format, terminal, json) in [
            (LogFormat::Auto, true, false),
            (LogFormat::Auto, false, true),
            (LogFormat::Text, false, false),
            (LogFormat::Json, true, true),
        ] {
            let captured = Captured::default();
            let writer = captured.clone();
            let settings = LogSettings { v: 2, filter: None, format };
            let subscriber = subscriber(&settings, move || writer.clone(), terminal).unwrap();
            tracing::subscriber::with_default(subscriber, || tracing::info!("hello"));
            assert_eq!(captured.text().starts_with('{'), json, "{format:?} {terminal}");
        }
    }
}
