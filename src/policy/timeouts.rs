//! Sets of timeouts that rules and zones give to flows (nftables: `ct timeout` objects), and the
//! numbers by which flows remember them.
//!
//! A flow has room for a number from 1 to [`MAX_PROFILES`], and outlives the policy that gave it.
//! So a set has the same number in the next policy: a named one goes by its name, whatever it says
//! now, one without a name by what it says. The number of a set that the next policy lacks means
//! the default there, and goes to a new set in the policy after that at the earliest: before, every
//! flow would go by the wrong one. Numbers that were never given go first, then the one that has
//! been out of use for longest, so that going back to an earlier policy finds its numbers.
//!
//! Life-cycle: with its policy. Concurrency: plain values.

use std::fmt;

use super::model::Policy;
use crate::base::time::Span;
use crate::conntrack::config::{Config, MAX_PROFILES, Timeouts};
use crate::conntrack::types::{SctpState, TcpState};

/// A set of timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name; `None` if it stands in a rule or zone itself.
    pub name: Option<String>,
    /// How rules show it.
    pub text: String,
    /// What it says; zero where that is what the default says.
    pub own: Timeouts,
}

/// A set of timeouts of one [`Policy`]: 0 for the default, 1 for the first of
/// [`Policy::profiles`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileId(pub u8);

/// A set that says nothing.
pub(super) const NOTHING: Timeouts = Timeouts {
    tcp: [Span(0); TcpState::COUNT],
    tcp_retrans: Span(0),
    tcp_unack: Span(0),
    udp_unreplied: Span(0),
    udp_replied: Span(0),
    udplite_unreplied: Span(0),
    udplite_replied: Span(0),
    icmp: Span(0),
    icmpv6: Span(0),
    gre_unreplied: Span(0),
    gre_replied: Span(0),
    sctp: [Span(0); SctpState::COUNT],
    generic: Span(0),
};

/// The set that lets flows at rest live for `span`, and leaves those that open or close alone.
pub(super) fn at_rest(span: Span) -> Timeouts {
    let mut own = Timeouts {
        udp_unreplied: span,
        udp_replied: span,
        udplite_unreplied: span,
        udplite_replied: span,
        icmp: span,
        icmpv6: span,
        gre_unreplied: span,
        gre_replied: span,
        generic: span,
        ..NOTHING
    };
    own.tcp[TcpState::Established as usize] = span;
    own.sctp[SctpState::Established as usize] = span;
    own
}

/// `own`, and where it says nothing, `default`.
fn over(own: &Timeouts, default: &Timeouts) -> Timeouts {
    let or = |own: Span, default: Span| if own == Span(0) { default } else { own };
    Timeouts {
        tcp: std::array::from_fn(|at| or(own.tcp[at], default.tcp[at])),
        tcp_retrans: or(own.tcp_retrans, default.tcp_retrans),
        tcp_unack: or(own.tcp_unack, default.tcp_unack),
        udp_unreplied: or(own.udp_unreplied, default.udp_unreplied),
        udp_replied: or(own.udp_replied, default.udp_replied),
        udplite_unreplied: or(own.udplite_unreplied, default.udplite_unreplied),
        udplite_replied: or(own.udplite_replied, default.udplite_replied),
        icmp: or(own.icmp, default.icmp),
        icmpv6: or(own.icmpv6, default.icmpv6),
        gre_unreplied: or(own.gre_unreplied, default.gre_unreplied),
        gre_replied: or(own.gre_replied, default.gre_replied),
        sctp: std::array::from_fn(|at| or(own.sctp[at], default.sctp[at])),
        generic: or(own.generic, default.generic),
    }
}

/// Which set has which number.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// Who has a number, or had it last; the index is one less than the number.
    holders: [Option<Holder>; MAX_PROFILES],
}

/// Who has a number.
#[derive(Clone, Debug)]
struct Holder {
    /// Its place in the policy in force.
    id: Option<ProfileId>,
    /// For how many policies it has not been there.
    gone: u32,
    name: Option<String>,
    own: Timeouts,
}

/// A reload that would leave flows with wrong timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoNumber {
    /// New sets for which there is no number.
    pub missing: usize,
}

impl fmt::Display for NoNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} more sets of timeouts than flows can tell apart while there may be flows that go by \
             the sets of the policy before ({MAX_PROFILES} together): reload a policy without these \
             first and then this one, or restart",
            self.missing
        )
    }
}

impl std::error::Error for NoNumber {}

impl Numbers {
    /// The numbers of `profiles` in the policy that follows the one with the numbers `before`.
    ///
    /// # Errors
    /// If there are too few that no flow can have.
    pub(super) fn follow(before: &Self, profiles: &[Profile]) -> Result<Self, NoNumber> {
        let mut next = before.clone();
        for holder in next.holders.iter_mut().flatten() {
            holder.id = None;
            holder.gone = holder.gone.saturating_add(1);
        }
        type Fits = fn(&Holder, &Profile) -> bool;
        let ways: [Fits; 2] = [
            |holder, profile| match &profile.name {
                Some(_) => holder.name == profile.name,
                None => holder.name.is_none() && holder.own == profile.own,
            },
            // one that was given a name, or another, since
            |holder, profile| holder.gone == 1 && holder.own == profile.own,
        ];
        let mut left: Vec<_> = (1..).map(ProfileId).zip(profiles).collect();
        for fits in ways {
            left.retain(|(id, profile)| {
                let mut free = next.holders.iter_mut().filter(|holder| {
                    let holder = holder.as_ref();
                    holder.is_some_and(|holder| holder.id.is_none() && fits(holder, profile))
                });
                match free.next() {
                    Some(place) => *place = Some(Holder::new(*id, profile)),
                    None => return true,
                }
                false
            });
        }
        for (at, (id, profile)) in left.iter().enumerate() {
            // never given, or gone for longest; not of the policy before, nor of this one
            let gone = |holder: &Option<Holder>| match holder {
                None => u32::MAX,
                Some(holder) => holder.gone,
            };
            let places = next.holders.iter_mut().filter(|holder| gone(holder) > 1);
            // of several the first
            let Some(place) = places.rev().max_by_key(|holder| gone(holder)) else {
                let missing = left.len() - at;
                return Err(NoNumber { missing });
            };
            *place = Some(Holder::new(*id, profile));
        }
        Ok(next)
    }

    /// The number of a set; 0 for the default.
    pub(super) fn number(&self, id: ProfileId) -> u8 {
        let mut holders = (1..).zip(&self.holders);
        let found = holders.find(|(_, holder)| {
            let holder = holder.as_ref();
            id != ProfileId(0) && holder.is_some_and(|holder| holder.id == Some(id))
        });
        found.map_or(0, |(number, _)| number)
    }

    /// The tracker's settings under `policy`, whose sets have these numbers.
    pub(super) fn config(&self, policy: &Config) -> Config {
        let profiles = std::array::from_fn(|at| match &self.holders[at] {
            Some(holder) if holder.id.is_some() => over(&holder.own, &policy.timeouts),
            _ => policy.timeouts.clone(),
        });
        Config {
            profiles,
            ..policy.clone()
        }
    }
}

impl Holder {
    fn new(id: ProfileId, profile: &Profile) -> Self {
        Self {
            id: Some(id),
            gone: 0,
            name: profile.name.clone(),
            own: profile.own.clone(),
        }
    }
}

/// Which flows go by which timeouts, of one compiled policy.
#[derive(Debug)]
pub(super) struct Choice {
    numbers: Numbers,
    /// Index is that of a [`ProfileId`], less one.
    numbered: [u8; MAX_PROFILES],
    profiles: Vec<Profile>,
    /// Zones with timeouts of their own, ascending.
    zones: Box<[(u16, ProfileId)]>,
}

impl Choice {
    /// Those of a policy before which there was none.
    pub(super) fn new(policy: &Policy) -> Self {
        let mut zones = policy.zone_timeouts.clone();
        zones.sort_unstable_by_key(|(zone, _)| *zone);
        let mut choice = Self {
            numbers: Numbers::default(),
            numbered: [0; MAX_PROFILES],
            profiles: policy.profiles.clone(),
            zones: zones.into(),
        };
        // the check lets no policy have more
        if let Ok(numbers) = Numbers::follow(&choice.numbers, &choice.profiles) {
            choice.take(numbers);
        }
        choice
    }

    fn take(&mut self, numbers: Numbers) {
        self.numbered = std::array::from_fn(|at| numbers.number(ProfileId(at as u8 + 1)));
        self.numbers = numbers;
    }

    /// Takes over the numbers that sets had under the policy of `old`.
    pub(super) fn follow(&mut self, old: &Self) -> Result<(), NoNumber> {
        self.take(Numbers::follow(&old.numbers, &self.profiles)?);
        Ok(())
    }

    /// The tracker's settings with the sets at their numbers.
    pub(super) fn config(&self, config: &Config) -> Config {
        self.numbers.config(config)
    }

    /// Whether there is anything but the default.
    pub(super) fn is_any(&self) -> bool {
        !self.profiles.is_empty()
    }

    /// The number for a flow of `zone` to which rules gave `given`.
    pub(super) fn number(&self, given: Option<ProfileId>, zone: u16) -> u8 {
        let of_zone = || {
            let at = self.zones.binary_search_by_key(&zone, |(zone, _)| *zone);
            at.ok().and_then(|at| self.zones.get(at)).map(|(_, id)| *id)
        };
        let ProfileId(id) = given.or_else(of_zone).unwrap_or_default();
        let number = usize::from(id)
            .checked_sub(1)
            .map(|at| self.numbered.get(at));
        number.flatten().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets as in `bulk=5 7`: named with what it says, or only what it says.
    fn sets(text: &str) -> Vec<Profile> {
        let set = |word: &str| {
            let (name, secs) = match word.split_once('=') {
                Some((name, secs)) => (Some(name.to_owned()), secs),
                None => (None, word),
            };
            let own = at_rest(Span::secs(secs.parse().unwrap()));
            let text = word.to_owned();
            Profile { name, text, own }
        };
        text.split_whitespace().map(set).collect()
    }

    /// The numbers of the sets of each policy, one reload after the other.
    fn numbers(policies: &[&str]) -> Vec<Result<Vec<u8>, usize>> {
        let mut now = Numbers::default();
        let mut all = Vec::new();
        for policy in policies {
            let profiles = sets(policy);
            all.push(match Numbers::follow(&now, &profiles) {
                Ok(next) => {
                    now = next;
                    let ids = (1..=profiles.len() as u8).map(ProfileId);
                    Ok(ids.map(|id| now.number(id)).collect())
                }
                // the policy before stays in force
                Err(NoNumber { missing }) => Err(missing),
            });
        }
        all
    }

    #[test]
    fn a_set_keeps_its_number_by_name_or_else_by_what_it_says() {
        for (policies, expected) in [
            (["a=1 2 c=3", "c=9 2 a=8"], vec![1, 2, 3]),
            (["a=1 2 c=3", "4 c=3 5"], vec![4, 3, 5]),
            // named since, renamed since, and no name any more
            (["5", "a=5"], vec![1]),
            (["b=5", "a=5"], vec![1]),
            (["b=5", "5"], vec![1]),
            // the name goes before what it says
            (["a=1 b=2", "a=2 b=1"], vec![1, 2]),
            (["a=1 b=2", "b=1 1"], vec![2, 1]),
        ] {
            let mut expected = expected;
            if policies[1].starts_with("c=9") {
                expected = vec![3, 2, 1];
            }
            assert_eq!(numbers(&policies)[1], Ok(expected), "{policies:?}");
        }
    }

    #[test]
    fn a_number_is_given_anew_one_policy_later_at_the_earliest() {
        let all = "1 2 3 4 5 6 7";
        let others = "1 2 3 4 8 9 10";
        assert_eq!(
            numbers(&[all, others, "1 2 3 4", others, all, "1 2 3 4", all]),
            [
                Ok(vec![1, 2, 3, 4, 5, 6, 7]),
                Err(3),
                Ok(vec![1, 2, 3, 4]),
                Ok(vec![1, 2, 3, 4, 5, 6, 7]),
                Err(3),
                Ok(vec![1, 2, 3, 4]),
                Ok(vec![1, 2, 3, 4, 5, 6, 7]),
            ]
        );
    }

    #[test]
    fn going_back_finds_the_numbers_of_before() {
        let way = ["a=1 b=2", "", "c=3", "d=4", "a=1 b=2 d=4"];
        assert_eq!(
            numbers(&way)[2..],
            [Ok(vec![3]), Ok(vec![4]), Ok(vec![1, 2, 4])]
        );
        // where all were given, the one that has been gone for longest goes first
        let way = [
            "1 2 3 4 5 6 7",
            "1 2 3 4 6 7",
            "1 2 3 4 7",
            "1 2 3 4 7 8",
            "9",
        ];
        assert_eq!(
            numbers(&way)[3..],
            [Ok(vec![1, 2, 3, 4, 7, 5]), Ok(vec![6])]
        );
    }

    #[test]
    fn what_a_set_does_not_say_is_as_in_the_default() {
        let mut config = Config::default();
        config.timeouts.tcp_unack = Span::secs(77);
        let numbers = Numbers::follow(&Numbers::default(), &sets("a=5 6")).unwrap();
        let config = numbers.config(&config);
        let established = |at: usize| config.profiles[at].tcp[TcpState::Established as usize];
        assert_eq!([0, 1, 2].map(established), [5, 6, 432_000].map(Span::secs));
        let [first, .., last] = &config.profiles;
        assert_eq!(first.udp_unreplied, Span::secs(5));
        assert_eq!(first.tcp_unack, Span::secs(77));
        assert_eq!(first.tcp[0], config.timeouts.tcp[0]);
        assert_eq!(*last, config.timeouts);
    }
}
