//! Our side: a shard of its own for each conversation, on the clock of the kernel's answers.

use crate::Said;
use crate::oracle::Answer;
use crate::settings::Settings;
use crate::view::{FlowView, View};
use shardwall::base::hash::HashKey;
use shardwall::base::time::{Now, Span, Ticks};
use shardwall::conntrack::config::Config;
use shardwall::conntrack::shard::{Flow, Prepared, Shard};
use shardwall::conntrack::types::{CtState, Dir, TcpState};
use shardwall::wire::parse;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A tracker that accepts everything.
#[derive(Debug)]
pub(crate) struct Ours {
    shard: Shard,
    config: Config,
    /// The packet that started the flow last.
    starter: Option<Prepared>,
    /// When the first flow began.
    began: Option<Instant>,
    /// When the flow ends.
    deadline: Option<Instant>,
    /// The longest that the kernel took for an answer; its clock is that uncertain.
    slack: Duration,
}

impl Ours {
    pub(crate) fn new(now: Now, settings: &Settings) -> Self {
        Self {
            shard: Shard::new(0, 16, HashKey::from_seed(1), now.ticks(), Arc::default()),
            config: settings.0.clone(),
            starter: None,
            began: None,
            deadline: None,
            slack: Duration::from_millis(20), // jiffies
        }
    }

    /// How long to wait with the next packet: there are moments when nobody knows on which side of
    /// them the kernel's clock is. A UDP flow becomes a stream after two seconds, and flows end.
    pub(crate) fn patience(&self) -> Duration {
        let stream = self.began.map(|began| began + Duration::from_secs(2));
        let doubt = Duration::from_millis(100);
        let now = Instant::now();
        [stream, self.deadline]
            .into_iter()
            .flatten()
            .filter(|moment| now + doubt > *moment && now < *moment + doubt)
            .map(|moment| moment + doubt - now)
            .max()
            .unwrap_or_default()
    }

    /// How long the flow lives from `now`.
    fn remaining(&self, now: Ticks) -> Option<Duration> {
        let starter = self.starter.as_ref()?;
        let alive = |millis: u32| {
            let then = Ticks(now.0.wrapping_add(millis));
            self.shard.peek(starter, then).is_some()
        };
        let (mut low, mut high) = (0, Span::MAX.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if alive(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(Duration::from_millis(low.into()))
    }

    /// Judges `frame` and compares.
    pub(crate) fn judge(&mut self, frame: &[u8], answer: &Answer) -> Said {
        let now = answer.sent.ticks();
        self.slack = self.slack.max(answer.took + Duration::from_millis(20));
        self.shard.expire(now, usize::MAX);
        let parsed = parse(frame, frame.len());
        let prepared = self.shard.prepare(frame, &parsed, 0);
        let tracked = self
            .shard
            .track(frame, &parsed, &prepared, false, now, &self.config);
        if tracked.flow == Flow::Pending {
            self.shard.commit(now).expect("there is room");
        }
        if (tracked.state, tracked.dir) == (CtState::New, Some(Dir::Original)) {
            self.starter = Some(prepared);
            self.began.get_or_insert_with(Instant::now);
        }
        self.deadline = self.remaining(now).map(|left| Instant::now() + left);
        let view = |now: Ticks| View {
            state: Some(tracked.state),
            dir: tracked.dir,
            flow: self.flow(now),
        };
        let slack = self.slack.as_millis() as u32;
        let ours = view(now);
        let least = view(Ticks(now.0.wrapping_add(slack)));
        let most = view(Ticks(now.0.wrapping_sub(slack)));
        let kernel = answer.view;
        Said {
            kernel,
            ours,
            agree: agree(&kernel, &ours, &least, &most),
        }
    }

    /// The conversation's flow at `now`.
    fn flow(&self, now: Ticks) -> Option<FlowView> {
        let flow = self.shard.peek(self.starter.as_ref()?, now)?;
        let record = self.shard.record(flow, now);
        Some(FlowView {
            tcp: record.tcp_state.unwrap_or(TcpState::None),
            timeout: record.timeout,
            seen_reply: record.seen_reply,
            assured: record.assured,
        })
    }
}

/// The same, but for the uncertainty of the clock.
fn agree(kernel: &View, ours: &View, least: &View, most: &View) -> bool {
    let timeless = |view: &View| View {
        flow: view.flow.map(|flow| FlowView { timeout: 0, ..flow }),
        ..*view
    };
    let timeout = |view: &View| view.flow.map_or(0, |flow| flow.timeout);
    timeless(kernel) == timeless(ours)
        && (timeout(least)..=timeout(most)).contains(&timeout(kernel))
}
