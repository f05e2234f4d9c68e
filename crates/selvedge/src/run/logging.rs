//! Log lines on standard error: JSON for machines, text for a terminal.

use crate::cli::LogFormat;
use selvedge_config::Telemetry;
use std::io::IsTerminal as _;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging as `telemetry` says, where neither `SELVEDGE_LOG` (`debug`,
/// `selvedge_proxy=debug,info`) nor `format` says otherwise.
pub(crate) fn start(telemetry: &Telemetry, format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_env("SELVEDGE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(telemetry.log_level));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(match telemetry.log_format {
        selvedge_config::LogFormat::Json => LogFormat::Json,
        selvedge_config::LogFormat::Text => LogFormat::Text,
        selvedge_config::LogFormat::Auto if terminal => LogFormat::Text,
        selvedge_config::LogFormat::Auto => LogFormat::Json,
    });
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(filter);
    // A line that cannot be written is lost. To say so on the same standard
    // error would be a panic: a full disk would end the process.
    // A second start, as tests do, changes nothing.
    let _ = match format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .compact()
                    .with_ansi(colour)
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
}
