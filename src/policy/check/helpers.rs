//! Reads what only helper lines have, and `ct-helper`.
//!
//! Life-cycle and concurrency: as `check`.

use super::chains::{RulePlaces, Stage};
use super::flows::OF_FLOWS;
use super::{Checker, Fields};
use crate::conntrack::helper::{HelperId, Info, Permissions};
use crate::conntrack::types::proto;
use crate::policy::diagnostic::Place;
use crate::policy::model::{
    Action, AddrMatch, Family, Helper, HelperMatch, Matches, ProtoSet, Rule,
};
use crate::policy::names::protocol_name;
use crate::policy::yaml::Node;

/// Keys of a helper line that are not matches.
pub(in crate::policy) const HELPER_KEYS: [&str; 5] =
    ["name", "comment", "helper", "loose", "low-ports"];

impl Checker<'_> {
    pub(super) fn helpers(&mut self, node: &Node) -> Vec<(Rule, RulePlaces)> {
        let items = self.list(node, "`helpers`").unwrap_or_default();
        self.rules(items, "helpers", Stage::Helper)
    }

    /// Reads which flows a line is for, and what listens to them. The matches hold only for flows
    /// that the helper can listen to.
    pub(super) fn helper_line(&mut self, fields: &Fields<'_>) -> Option<(Matches, Action)> {
        let node = fields.get("helper");
        if fields.key("helper").is_none() {
            self.sink.error(fields.place, "helper line has no `helper`");
        }
        let found = node.and_then(|node| {
            let text = self.scalar(node, "`helper`")?;
            self.helper(node.place, text)
        });
        // not to complain about what follows from a helper that could not be read
        let protos = found.map_or(&[proto::TCP, proto::UDP][..], |(_, info)| info.protos);
        let mut implied = ProtoSet::default();
        protos.iter().for_each(|proto| implied.insert(*proto));
        let mut matches = self.matches(fields, Some(implied));
        for key in OF_FLOWS.into_iter().chain(["ct"]) {
            if let Some(place) = fields.key(key) {
                self.sink
                    .error(place, format!("`{key}` is not possible in a helper line"))
                    .help("a line is asked about the packet that starts a flow");
            }
        }
        let mut switch = |key| {
            let node = fields.get(key);
            node.and_then(|node| self.boolean(node, key))
                .unwrap_or_default()
        };
        let permissions = Permissions {
            loose: switch("loose"),
            low_ports: switch("low-ports"),
        };
        let ((id, info), place) = (found?, node?.place);
        self.fits(info, place, fields, &mut matches);
        let name = info.name;
        let helper = Helper {
            id,
            name,
            permissions,
        };
        Some((matches, Action::Helper(helper)))
    }

    /// Reports a line for flows that `info` cannot listen to, and one for all that it can.
    fn fits(&mut self, info: &Info, place: Place, fields: &Fields<'_>, m: &mut Matches) {
        let protos: Vec<_> = info
            .protos
            .iter()
            .copied()
            .filter_map(protocol_name)
            .collect();
        let (name, protos) = (info.name, protos.join(" and "));
        let other = |set: ProtoSet| set.iter().any(|proto| !info.protos.contains(&proto));
        if let Some(node) = fields.get("proto")
            && m.proto.is_some_and(other)
        {
            let message = format!("`{name}` listens to {protos} only");
            self.sink.error(node.place, message);
        }
        if !info.ipv6 {
            let addrs = [("saddr", &m.saddr), ("daddr", &m.daddr)].map(|(key, addr)| {
                let only_v6 = |addr: &AddrMatch| addr.set.has_v6() && !addr.set.has_v4();
                let without = addr.as_ref().is_some_and(only_v6);
                (key, without)
            });
            let family = ("family", m.family == Some(Family::Ipv6));
            let v6 = [family].into_iter().chain(addrs).find(|(_, v6)| *v6);
            if let Some(node) = v6.and_then(|(key, _)| fields.get(key)) {
                let message = format!("`{name}` listens to IPv4 only");
                self.sink.error(node.place, message);
            }
            m.family = Some(Family::Ipv4);
        }
        let keys = ["sport", "dport", "saddr", "daddr"];
        if keys.iter().all(|key| fields.key(key).is_none()) {
            let message = format!("`{name}` listens to every flow of {protos}");
            self.sink
                .warn(place, message)
                .help("say which with a port or an address");
        }
    }

    pub(super) fn helper_match(&mut self, node: &Node) -> Option<HelperMatch> {
        let values = self.values(node, "ct-helper")?;
        let bits = self.each(&values, |this, node, text| {
            let (id, _) = this.helper(node.place, text)?;
            Some(1u16 << id.index())
        })?;
        Some(HelperMatch {
            mask: bits.into_iter().fold(0, |mask, bit| mask | bit),
            negated: values.negated,
        })
    }

    /// The helper called `name`; reports it if there is none.
    fn helper(&mut self, place: Place, name: &str) -> Option<(HelperId, &'static Info)> {
        let known = self.known;
        let found = known.iter().position(|info| info.name == name);
        if found.is_none() {
            self.unknown(place, "helper", name, known.iter().map(|info| info.name));
        }
        let at = found?;
        Some((HelperId::new(at)?, known[at]))
    }
}
