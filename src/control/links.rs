//! The links of the ports: looked at once a second by the control thread, which says what changed.
//!
//! Polled, not told by an interrupt: with every driver, and where interrupts cannot be had.

use super::appliance::Appliance;

impl Appliance {
    /// Looks at every port's link, and logs those that are not as they were.
    pub(super) fn look_at_links(&self) {
        for (number, view) in self.ports.iter().enumerate() {
            // One that cannot be known any more is as it was seen last.
            let Some(link) = self.nics.link(number) else {
                continue;
            };
            let mut links = self.links.lock();
            let Some((seen, changes)) = links.get_mut(number) else {
                continue;
            };
            let before = seen.replace(link);
            let gone = match link.up {
                true => None,
                false => self.nics.gone(number),
            };
            let port = &view.name;
            match (before, gone) {
                (Some(before), _) if before == link => continue,
                (_, Some(interface)) => tracing::error!(
                    port,
                    interface,
                    "its interface was removed: nothing comes or goes by this port until a restart \
                     finds the interface again"
                ),
                // The first look is no change.
                (None, None) => continue,
                (Some(before), None) if link.up => {
                    tracing::info!(port, "the link is {link}; it was {before}");
                }
                (Some(before), None) => tracing::warn!(port, "the link is down; it was {before}"),
            }
            *changes += 1;
        }
    }
}
