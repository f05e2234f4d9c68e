//! Reads the Prometheus text format, strictly.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    kinds: BTreeMap<String, String>,
}

/// One line of it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The series' name, with any suffix such as `_bucket`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Scrapes `/metrics` of an operator surface.
    ///
    /// # Panics
    ///
    /// When it does not answer, or not in the format.
    pub fn scrape(port: u16) -> Self {
        let answer = crate::raw::get(port, "/metrics").expect("the operator surface answers");
        assert_eq!(answer.status, 200, "/metrics: {}", answer.text());
        Self::parse(&answer.text()).unwrap_or_else(|line| panic!("not an exposition line: {line}"))
    }

    /// Parses an exposition.
    ///
    /// # Errors
    ///
    /// The first line that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        for line in text.lines() {
            if line.is_empty() || line == "# EOF" {
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_whitespace();
                if words.next() == Some("TYPE") {
                    let (Some(name), Some(kind)) = (words.next(), words.next()) else {
                        return Err(line.to_owned());
                    };
                    if metrics.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                        return Err(format!("declared twice: {line}"));
                    }
                }
                continue;
            }
            metrics.samples.push(sample(line).ok_or_else(|| line.to_owned())?);
        }
        Ok(metrics)
    }

    /// The sum of every series called `name` that has all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).iter().map(|sample| sample.value).sum()
    }

    /// Every series called `name` that has all of these labels.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|had| had == value))
            })
            .collect()
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// What the exposition declared each metric to be.
    pub fn kinds(&self) -> &BTreeMap<String, String> {
        &self.kinds
    }

    /// The names, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, rest) = match line.find('{') {
        Some(open) => {
            let close = open + closing(&line[open..])?;
            ((&line[..open], &line[open + 1..close]), &line[close + 1..])
        }
        None => {
            let space = line.find(' ')?;
            ((&line[..space], ""), &line[space..])
        }
    };
    let name_is_good = !series.0.is_empty()
        && series.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let mut rest = rest.split_whitespace();
    let value = match rest.next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        other => other.parse().ok()?,
    };
    name_is_good.then_some(())?;
    Some(Sample { name: series.0.to_owned(), labels: labels(series.1)?, value })
}

/// Where the brace that opens `text` closes, quotes considered.
fn closing(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (at, '"') => break at,
                (_, c) => value.push(c),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = &rest[end + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn reads_labels_escapes_and_infinities() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 3\na{x=\"2\"} 4\nb_bucket{le=\"+Inf\"} \
                    +Inf\nc 1e3\n# EOF\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &[("y", "q\"}")]), 3.0);
        assert_eq!(metrics.sum("c", &[]), 1000.0);
        assert!(metrics.sum("b_bucket", &[]).is_infinite());
        assert_eq!(metrics.kinds()["a"], "counter");
    }

    #[test]
    fn refuses_what_is_none() {
        assert!(Metrics::parse("a{x=1} 3").is_err());
        assert!(Metrics::parse("a three").is_err());
        assert!(Metrics::parse("# TYPE a counter\n# TYPE a gauge").is_err());
    }
}
