//! The families of one scrape, as they fill.

use super::names::{Id, KINDS, METRICS};
use crate::base::histogram::{BOUNDS, Histogram, Times};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

/// The families of one scrape.
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    pub(super) fn new() -> Self {
        let all = METRICS.iter().zip(KINDS).map(|(about, kind)| {
            let mut family = MetricFamily::default();
            family.set_name(about.name.to_owned());
            family.set_help(about.help.to_owned());
            family.set_field_type(*kind);
            family
        });
        Self(all.collect())
    }

    /// Those that have a value.
    pub(super) fn into_inner(self) -> Vec<MetricFamily> {
        self.0
    }

    /// A value of a metric; `labels` are the values of its labels, in their order.
    pub(super) fn add(&mut self, id: Id, labels: &[&str], value: f64) {
        let mut metric = metric(id, labels);
        match KINDS[id as usize] {
            MetricType::COUNTER => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0[id as usize].mut_metric().push(metric);
    }

    pub(super) fn add_times(&mut self, id: Id, labels: &[&str], times: &Times) {
        let mut seen = 0;
        let buckets = (0..BOUNDS).map(|at| {
            seen += times.counts[at];
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(Histogram::bound(at) / 1e9);
            bucket.set_cumulative_count(seen);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(times.count());
        histogram.set_sample_sum(times.sum as f64 / 1e9);
        let mut metric = metric(id, labels);
        metric.set_histogram(histogram);
        self.0[id as usize].mut_metric().push(metric);
    }
}

fn metric(id: Id, values: &[&str]) -> proto::Metric {
    let names = METRICS[id as usize].labels;
    debug_assert_eq!(names.len(), values.len(), "{id:?}");
    let labels = names.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    proto::Metric::from_label(labels.collect())
}
