//! The links of the ports: looked at once a second by the control thread, which says what changed.
//!
//! Polled, not told by an interrupt: with every driver, and where interrupts cannot be had.

use super::appliance::Appliance;

impl Appliance {
    /// Looks at every port's link, and logs those that are not as they were.
    pub(super) fn look_at_links(&self) {
        for (port, view) in self.ports.iter().enumerate() {
            // One that cannot be known any more is as it was seen last.
            let Some(link) = self.nics.link(port) else {
                continue;
            };
            let mut links = self.links.lock();
            let Some((seen, changes)) = links.get_mut(port) else {
                continue;
            };
            // The first look is no change.
            if let Some(before) = seen.replace(link)
                && before != link
            {
                *changes += 1;
                let port = &view.name;
                match link.up {
                    false => tracing::warn!(port, "the link is down; it was {before}"),
                    true => tracing::info!(port, "the link is {link}; it was {before}"),
                }
            }
        }
    }
}
