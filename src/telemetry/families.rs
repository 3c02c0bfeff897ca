//! Numbers that somebody else keeps, of things that come and go: they are written out at each scrape, and what went is not in it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::Metrics;

/// Who keeps numbers.
pub trait Families: fmt::Debug + Send + Sync + 'static {
    /// Writes all of them.
    fn write(&self, page: &mut Page<'_>) -> fmt::Result;
}

/// What is being scraped.
pub struct Page<'a>(DescriptorEncoder<'a>);

/// What kind of number a family has. The name of a counter gets `_total` at its end, that of an info `_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FamilyKind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number<'a> {
    /// Of a gauge.
    Gauge(f64),
    /// Of a counter.
    Counter(u64),
    /// Of a histogram: the sum of all that was observed, how much was, and how much in each bucket, by its upper bound. The last
    /// bound is [`f64::INFINITY`].
    Histogram(f64, u64, &'a [(f64, u64)]),
    /// Of an info: none, its labels say it all.
    Info,
}

/// Labels, by name.
pub type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Page<'_> {
    /// Writes a family; nothing where it has no numbers now.
    pub fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: FamilyKind,
        numbers: impl IntoIterator<Item = (Labels<'v>, Number<'v>)>,
    ) -> fmt::Result {
        let mut numbers = numbers.into_iter().peekable();
        if numbers.peek().is_none() {
            return Ok(());
        }
        let kind = match kind {
            FamilyKind::Gauge => MetricType::Gauge,
            FamilyKind::Counter => MetricType::Counter,
            FamilyKind::Histogram => MetricType::Histogram,
            FamilyKind::Info => MetricType::Info,
        };
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, number) in numbers {
            match number {
                Number::Gauge(value) => family.encode_family(&labels)?.encode_gauge(&value)?,
                Number::Counter(value) => {
                    let no_example = None::<&Exemplar<NoLabelSet, u64>>;
                    family.encode_family(&labels)?.encode_counter(&value, no_example)?;
                }
                Number::Histogram(sum, count, buckets) => {
                    family
                        .encode_family(&labels)?
                        .encode_histogram::<NoLabelSet>(sum, count, buckets, None)?;
                }
                Number::Info => family.encode_info(&labels)?,
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Source<F>(F);

impl<F: Families> Collector for Source<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.write(&mut Page(encoder))
    }
}

impl Metrics {
    /// Lets each scrape ask `families` too.
    pub fn families(&self, families: impl Families) {
        self.collect(Box::new(Source(families)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Two;

    impl Families for Two {
        fn write(&self, page: &mut Page<'_>) -> fmt::Result {
            let labels = || vec![("task", "a \"b\"")];
            page.family("x_seconds", "X", FamilyKind::Gauge, [(labels(), Number::Gauge(1.5))])?;
            page.family("y", "Y", FamilyKind::Counter, [(labels(), Number::Counter(3))])?;
            let buckets = [(1.0, 2), (f64::INFINITY, 1)];
            let held = Number::Histogram(9.0, 3, &buckets);
            page.family("z", "Z", FamilyKind::Histogram, [(labels(), held)])?;
            page.family("it", "It", FamilyKind::Info, [(labels(), Number::Info)])?;
            page.family("none", "None", FamilyKind::Gauge, [])
        }
    }

    #[test]
    fn each_kind_is_written_as_it_is_and_nothing_where_there_is_nothing() {
        let metrics = Metrics::new();
        metrics.families(Two);
        let text = metrics.text().unwrap();
        for line in [
            "x_seconds{task=\"a \\\"b\\\"\"} 1.5",
            "y_total{task=\"a \\\"b\\\"\"} 3",
            "z_bucket{le=\"1.0\",task=\"a \\\"b\\\"\"} 2",
            "z_bucket{le=\"+Inf\",task=\"a \\\"b\\\"\"} 3",
            "it_info{task=\"a \\\"b\\\"\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("none"), "{text}");
    }
}
