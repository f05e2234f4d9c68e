//! "Did you mean": the nearest of the words allowed here.

/// What peers and habit call a thing → what it is called here.
const SYNONYMS: &[(&str, &str)] = &[
    ("admin", "operator"),
    ("upstreams", "services"),
    ("upstream", "services"),
    ("backends", "services"),
    ("clusters", "services"),
    ("backend", "to"),
    ("service", "to"),
    ("proxy_pass", "to"),
    ("servers", "endpoints"),
    ("hosts", "endpoints"),
    ("targets", "endpoints"),
    ("urls", "endpoints"),
    ("url", "address"),
    ("listen", "bind"),
    ("address", "bind"),
    ("port", "bind"),
    ("interval", "every"),
    ("period", "every"),
    ("max_attempts", "attempts"),
    ("max_retries", "attempts"),
    ("retries", "attempts"),
    ("num_retries", "attempts"),
    ("retries", "retry"),
    ("timeouts", "timeout"),
    ("per_try_timeout", "attempt"),
    ("per_try", "attempt"),
    ("try", "attempt"),
    ("read", "idle"),
    ("request", "total"),
    ("overall", "total"),
    ("circuit_breaker", "breaker"),
    ("circuitbreaker", "breaker"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("load_balancing", "balance"),
    ("lb", "balance"),
    ("lb_policy", "balance"),
    ("outlier_detection", "outlier"),
    ("rate_limit", "limit"),
    ("ratelimit", "limit"),
    ("max_concurrent", "max_in_flight"),
    ("max_requests", "max_in_flight"),
    ("max_pending", "queue"),
    ("max_wait", "queue_for"),
    ("threshold", "failure_rate"),
    ("error_rate", "failure_rate"),
    ("failure_threshold", "failure_rate"),
    ("minimum_calls", "min_calls"),
    ("min_requests", "min_calls"),
    ("sleep_window", "open_for"),
    ("reset_timeout", "open_for"),
    ("half_open_calls", "probes"),
    ("max_delay", "cap"),
    ("max", "cap"),
    ("initial", "base"),
    ("stale_if_error", "stale_for"),
    ("matches", "match"),
    ("prefix", "path"),
    ("method", "methods"),
    ("header", "headers"),
    ("key", "per"),
    ("by", "per"),
    ("logging", "logs"),
    ("log", "logs"),
    ("least_conn", "least_request"),
    ("least_connections", "least_request"),
    ("least_requests", "least_request"),
    ("ewma", "peak_ewma"),
    ("p2c", "least_request"),
    ("random", "least_request"),
    ("rr", "round_robin"),
    ("http2", "h2c"),
    ("h2", "h2c"),
    ("grpc", "h2c"),
    ("http", "http1"),
    ("http11", "http1"),
    ("http/1.1", "http1"),
    ("includes", "include"),
    ("routers", "routes"),
];

/// The word of `allowed` that `written` was probably meant to be.
pub(crate) fn nearest<'a>(
    written: &str,
    allowed: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    let allowed: Vec<&str> = allowed.into_iter().collect();
    let reach = (written.chars().count() / 3).clamp(1, 3);
    let by_distance = allowed
        .iter()
        .map(|word| (distance(&written, word), *word))
        .filter(|(distance, word)| *distance <= reach && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance);
    let by_meaning = || {
        let meant = SYNONYMS.iter().filter(|(theirs, _)| *theirs == written);
        meant.filter_map(|(_, ours)| allowed.iter().find(|word| *word == ours).copied()).next()
    };
    // `timeout_ms`, `retryPolicy`, `max_attempts`: the word is in there.
    let by_part = || {
        let mut inside = allowed.iter().filter(|word| {
            word.len() > 3
                && (written.contains(**word) || (written.len() > 3 && word.contains(&written)))
        });
        inside.next().copied()
    };
    by_meaning().or_else(|| by_distance.map(|(_, word)| word)).or_else(by_part)
}

/// Edits that turn `a` into `b`: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests;
